// SPDX-License-Identifier: Apache-2.0
//! Reads a container's log in CRI's format.
//!
//! Each line is `<RFC 3339 time> <stdout|stderr> <tags> <text>` (Kubernetes, `pkg/kubelet/kuberuntime/logs`). The first
//! tag is `F` for a full line, whose newline belonged to the output, or `P` for a part: containerd splits lines longer
//! than 16 KiB, and an output that ends without a newline ends with a part. Pure but for [`ContainerLog::read`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a container wrote, byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerLog {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file could not be read.
    #[error("read container log {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A line has another form.
    #[error("parse line {number} of a container log: {line:?}")]
    Line {
        /// The line's number, from one.
        number: usize,
        /// The line.
        line: String,
    },
}

impl ContainerLog {
    /// Reads a log file; one that was never written holds nothing.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn read(path: &Path) -> Result<Self, LogError> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(LogError::Read { path: path.to_owned(), source }),
        }
    }

    /// Puts the two streams together from a log's text.
    ///
    /// # Errors
    /// [`LogError::Line`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let mut log = Self::default();
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let wrong =
                || LogError::Line { number: index + 1, line: String::from_utf8_lossy(line).into_owned() };
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let mut fields = line.splitn(4, |byte| *byte == b' ');
            let _time = fields.next();
            let stream = match fields.next() {
                Some(b"stdout") => &mut log.stdout,
                Some(b"stderr") => &mut log.stderr,
                _ => return Err(wrong()),
            };
            let tag = fields.next().and_then(|tags| tags.split(|byte| *byte == b':').next());
            let text = fields.next().ok_or_else(wrong)?;
            match tag {
                Some(b"P") => stream.extend_from_slice(text),
                Some(b"F") => {
                    stream.extend_from_slice(text);
                    stream.push(b'\n');
                }
                _ => return Err(wrong()),
            }
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.678901234Z";

    #[test]
    fn parts_are_joined_and_streams_kept_apart() {
        let text = format!(
            "{TIME} stdout P one \n{TIME} stderr F bad\n{TIME} stdout F and two\n{TIME} stdout F \n{TIME} stdout P end\n"
        );
        let log = ContainerLog::parse(text.as_bytes()).unwrap();
        assert_eq!(log, ContainerLog { stdout: b"one and two\n\nend".to_vec(), stderr: b"bad\n".to_vec() });
        assert_eq!(ContainerLog::parse(b"").unwrap(), ContainerLog::default());
    }

    #[test]
    fn malformed_lines_are_named() {
        for line in ["x", "t stdin F a", "t stdout X a", "t stdout F"] {
            let text = format!("{TIME} stdout F ok\n{line}\n");
            let error = ContainerLog::parse(text.as_bytes()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("parse line 2 of a container log: {:?}", format!("{line}\n"))
            );
        }
    }
}
