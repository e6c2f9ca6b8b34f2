// SPDX-License-Identifier: Apache-2.0
//! Writes the stream of events, each line as it happens, so that a crash loses at most the line it interrupted.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shakedown_report::Event;

/// `events.jsonl`, open for the length of a run, and its events.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    events: Vec<Event>,
}

/// Why the stream could not be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be made.
    #[error("create {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A line could not be written.
    #[error("write an event to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl Journal {
    /// Makes the file, empty. Done before anything else of a run, so that an unwritable place is seen at once.
    ///
    /// # Errors
    /// [`JournalError::Create`].
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let file =
            File::create(path).map_err(|source| JournalError::Create { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, events: Vec::new() })
    }

    /// Adds one event: one write of one whole line, past any buffer of this process.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn record(&mut self, event: Event) -> Result<(), JournalError> {
        let written = serde_json::to_vec(&event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        self.events.push(event);
        written.map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    /// Every event so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

#[cfg(test)]
mod tests {
    use shakedown_report::{TrialStarted, read_events};

    use super::*;

    #[test]
    fn each_event_is_on_disk_when_record_returns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::create(&path).unwrap();
        for attempt in 1..4 {
            let started = TrialStarted { scenario: "a/b".into(), builder: "c".into(), attempt, at_ms: 0 };
            journal.record(Event::TrialStarted(started)).unwrap();
            let text = std::fs::read(&path).unwrap();
            assert_eq!(read_events(text.as_slice()).unwrap().events, journal.events());
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut journal = Journal::create(Path::new("/dev/full")).unwrap();
        let started = TrialStarted { scenario: "a/b".into(), builder: "c".into(), attempt: 1, at_ms: 0 };
        let error = journal.record(Event::TrialStarted(started)).unwrap_err();
        assert_eq!(error.to_string(), "write an event to /dev/full");
    }
}
