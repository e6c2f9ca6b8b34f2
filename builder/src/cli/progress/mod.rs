// SPDX-License-Identifier: Apache-2.0
//! Displays of a running build. They consume the engine's events and know nothing else of it.

mod plain;
mod tty;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::cli::args::Progress;
use crate::engine::Event;

pub use plain::Plain;
pub use tty::Tty;

/// Turns events into what a person or a log reads.
pub trait Display: Send {
    /// Shows one event.
    ///
    /// # Errors
    /// When the output can't be written.
    fn show(&mut self, event: Event) -> io::Result<()>;

    /// Called a few times a second while nothing happens, so that running times move.
    ///
    /// # Errors
    /// When the output can't be written.
    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called once after the last event.
    ///
    /// # Errors
    /// When the output can't be written.
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The display that the command line asks for. Progress goes to standard error; standard output is for results.
pub fn display(progress: Progress, quiet: bool) -> Box<dyn Display> {
    if quiet {
        return Box::new(Quiet);
    }
    match progress {
        Progress::Auto if io::stderr().is_terminal() => Box::new(Tty::new(io::stderr())),
        Progress::Auto | Progress::Plain => Box::new(Plain::new(io::stderr())),
    }
}

/// Feeds `display` until the stream ends. A display that can't write any more is given up; the build goes on.
pub async fn follow(mut display: Box<dyn Display>, mut events: UnboundedReceiver<Event>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(120));
    let mut writable = true;
    loop {
        let written = tokio::select! {
            event = events.recv() => match event {
                Some(event) if writable => display.show(event),
                Some(_) => Ok(()),
                None => break,
            },
            _ = ticks.tick() => if writable { display.tick() } else { Ok(()) },
        };
        if let Err(error) = written {
            tracing::debug!(%error, "progress can't be written any more");
            writable = false;
        }
    }
    if writable && let Err(error) = display.close() {
        tracing::debug!(%error, "progress can't be written any more");
    }
}

/// Shows nothing: with `--quiet` only the result on standard output and failures on standard error are wanted.
struct Quiet;

impl Display for Quiet {
    fn show(&mut self, _: Event) -> io::Result<()> {
        Ok(())
    }
}
