// SPDX-License-Identifier: Apache-2.0
//! Turns the bytes that a command writes into chunks that end at line ends where they can.
//!
//! Pure. Nothing is lost or changed: the chunks of a stream, joined, are what was written. A line that does not end soon
//! is given out in parts, so prompts and progress dots are seen while they matter.

use bytes::Bytes;

/// From this many bytes on, a line is not waited for any longer.
const LINE_LIMIT_BYTES: usize = 16 * 1024;

/// Where a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a command's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where it was written to.
    pub stream: Stream,
    /// What was written: whole lines, or a part of one.
    pub bytes: Bytes,
}

/// Holds back the unfinished line of one stream.
#[derive(Debug)]
pub(super) struct LineBuffer {
    stream: Stream,
    held: Vec<u8>,
}

impl LineBuffer {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// Takes what was read; gives out everything up to the last line end.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<OutputChunk> {
        self.held.extend_from_slice(bytes);
        let cut = match self.held.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.held.len() >= LINE_LIMIT_BYTES => self.held.len(),
            None => return None,
        };
        let rest = self.held.split_off(cut);
        Some(self.chunk(rest))
    }

    /// Gives out the unfinished line.
    pub(super) fn flush(&mut self) -> Option<OutputChunk> {
        (!self.held.is_empty()).then(|| self.chunk(Vec::new()))
    }

    /// Whether a line is held back.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn chunk(&mut self, rest: Vec<u8>) -> OutputChunk {
        OutputChunk { stream: self.stream, bytes: std::mem::replace(&mut self.held, rest).into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_kept_together() {
        let mut buffer = LineBuffer::new(Stream::Stdout);
        assert_eq!(buffer.push(b"one"), None);
        assert_eq!(buffer.push(b"\ntwo\nthr").expect("lines").bytes, "one\ntwo\n".as_bytes());
        assert!(buffer.is_holding());
        assert_eq!(buffer.flush().expect("the rest").bytes, "thr".as_bytes());
        assert_eq!(buffer.flush(), None);
        assert_eq!(
            buffer.push(&[b'x'; LINE_LIMIT_BYTES]).expect("a long line").bytes.len(),
            LINE_LIMIT_BYTES
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost(pieces in proptest::collection::vec("[ab\n]{0,9}", 0..20)) {
            let mut buffer = LineBuffer::new(Stream::Stderr);
            let mut out = Vec::new();
            for piece in &pieces {
                out.extend(buffer.push(piece.as_bytes()).into_iter().flat_map(|chunk| chunk.bytes));
            }
            out.extend(buffer.flush().into_iter().flat_map(|chunk| chunk.bytes));
            prop_assert_eq!(out, pieces.concat().into_bytes());
        }
    }
}
