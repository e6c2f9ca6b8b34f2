// SPDX-License-Identifier: Apache-2.0
//! What a build tells while it runs: one stream of events, which progress displays only consume.

use std::time::Duration;

use crate::image::Digest;

/// Numbers a step for its whole life; steps of parallel stages interleave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// Where a line of a step's output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// The command's standard output.
    Stdout,
    /// The command's standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// It was executed.
    Executed,
    /// Its result was there already.
    Cached,
    /// It failed; the build's error tells why.
    Failed,
    /// The build ended first.
    Cancelled,
}

/// Something that happened in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    StepStarted {
        /// Its number.
        step: StepId,
        /// What to show: `[stage 2/4] RUN make`.
        title: String,
    },
    /// A step's command wrote something; not necessarily whole lines.
    StepOutput {
        /// Its number.
        step: StepId,
        /// Which of the command's outputs.
        stream: OutputStream,
        /// The bytes, as written.
        bytes: Vec<u8>,
    },
    /// A step ended.
    StepEnded {
        /// Its number.
        step: StepId,
        /// How.
        outcome: StepOutcome,
        /// How long it took, looking up the cache included.
        took: Duration,
    },
    /// Something the user should know that is no failure; one line.
    Notice(String),
    /// The image is there.
    Finished {
        /// Its full name.
        name: String,
        /// The digest of its config: what CRI calls the image id.
        image_id: Digest,
        /// The digest of its manifest.
        manifest: Digest,
        /// Whether CRI was asked and showed this very id.
        visible: bool,
    },
}

/// The sending side, cheap to clone. A display that is gone stops nobody.
#[derive(Debug, Clone)]
pub struct EventSink {
    sender: tokio::sync::mpsc::UnboundedSender<Event>,
}

impl EventSink {
    /// A sink and the stream that it feeds.
    pub fn channel() -> (Self, tokio::sync::mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// Tells `event` to whoever listens.
    pub fn send(&self, event: Event) {
        // Nobody listening is no reason to fail a build.
        let _ = self.sender.send(event);
    }

    /// Tells one line that is no failure.
    pub fn notice(&self, text: impl Into<String>) {
        self.send(Event::Notice(text.into()));
    }
}
