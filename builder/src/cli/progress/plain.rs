// SPDX-License-Identifier: Apache-2.0
//! Progress as lines, for logs and pipes: each line says which step it belongs to, for steps interleave.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Display;
use crate::engine::{Event, OutputStream, StepId, StepOutcome};

/// Writes one line per event.
pub struct Plain<W> {
    out: W,
    /// Output that does not end in a newline yet, by step and stream.
    unfinished: BTreeMap<(StepId, bool), Vec<u8>>,
}

impl<W: Write> Plain<W> {
    /// A display that writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, unfinished: BTreeMap::new() }
    }

    fn output(&mut self, step: StepId, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = self.unfinished.remove(&(step, stream == OutputStream::Stderr)).unwrap_or_default();
        buffer.extend_from_slice(bytes);
        let whole = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        for line in buffer[..whole].split_inclusive(|byte| *byte == b'\n') {
            self.line(step, line)?;
        }
        if whole < buffer.len() {
            self.unfinished.insert((step, stream == OutputStream::Stderr), buffer.split_off(whole));
        }
        Ok(())
    }

    fn line(&mut self, step: StepId, line: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        writeln!(self.out, "#{} {}", step.0, text.trim_end_matches(['\n', '\r']))
    }

    fn flush_output(&mut self, step: StepId) -> io::Result<()> {
        for stream in [false, true] {
            if let Some(rest) = self.unfinished.remove(&(step, stream)) {
                self.line(step, &rest)?;
            }
        }
        Ok(())
    }
}

impl<W: Write + Send> Display for Plain<W> {
    fn show(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::StepStarted { step, title } => writeln!(self.out, "#{} {title}", step.0),
            Event::StepOutput { step, stream, bytes } => self.output(step, stream, &bytes),
            Event::StepEnded { step, outcome, took } => {
                self.flush_output(step)?;
                match outcome {
                    StepOutcome::Executed => {
                        writeln!(self.out, "#{} DONE {:.1}s", step.0, took.as_secs_f64())
                    }
                    StepOutcome::Cached => writeln!(self.out, "#{} CACHED", step.0),
                    StepOutcome::Failed => {
                        writeln!(self.out, "#{} FAILED {:.1}s", step.0, took.as_secs_f64())
                    }
                    StepOutcome::Cancelled => writeln!(self.out, "#{} CANCELLED", step.0),
                }
            }
            Event::Notice(text) => writeln!(self.out, "notice: {text}"),
            Event::Finished { name, image_id, visible, .. } => {
                let seen = if visible { ", visible to pods" } else { "" };
                writeln!(self.out, "built {name} {image_id}{seen}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(events: impl IntoIterator<Item = Event>) -> String {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        for event in events {
            plain.show(event).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn output(step: usize, text: &str) -> Event {
        Event::StepOutput { step: StepId(step), stream: OutputStream::Stdout, bytes: text.into() }
    }

    #[test]
    fn interleaved_output_stays_in_whole_lines() {
        let ended = Event::StepEnded {
            step: StepId(1),
            outcome: StepOutcome::Executed,
            took: Duration::from_millis(1240),
        };
        let text = shown([output(1, "a"), output(2, "x\r\ny"), output(1, "b\nc"), ended]);
        assert_eq!(text, "#2 x\n#1 ab\n#1 c\n#1 DONE 1.2s\n");
    }
}
