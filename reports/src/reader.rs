// SPDX-License-Identifier: Apache-2.0
//! Lines to events. A line that the writer never finished is told apart from a line that is wrong.

use std::io::{self, BufRead};

use crate::Event;

/// The events of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct EventLog {
    /// Every whole event.
    pub events: Vec<Event>,
    /// The unfinished last line that a crash left, if any. It is kept out of `events`.
    pub torn: Option<String>,
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader broke.
    #[error("read line {line} of the events")]
    Io {
        /// Number of the line, from 1.
        line: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A finished line is no event of this version.
    #[error("understand line {line} of the events")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
        /// The cause, with its column.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads every event.
///
/// # Errors
/// When the source breaks, or when a line that ends with a newline is no event.
pub fn read_events(mut source: impl BufRead) -> Result<EventLog, ReadError> {
    let mut log = EventLog { events: Vec::new(), torn: None };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length =
            source.read_until(b'\n', &mut line).map_err(|source| ReadError::Io { line: number, source })?;
        if length == 0 {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(event) => log.events.push(event),
            Err(_) if line.last() != Some(&b'\n') => {
                log.torn = Some(String::from_utf8_lossy(&line).into_owned());
            }
            Err(source) => return Err(ReadError::Malformed { line: number, source }),
        }
    }
    Ok(log)
}
