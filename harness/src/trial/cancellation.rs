// SPDX-License-Identifier: Apache-2.0
//! One bit that every waiting part of a run sees: somebody asked it to end, and how.

use shakedown_report::Ending;
use tokio::sync::watch;

/// A handle on the bit; clones share it. The first cancellation wins.
#[derive(Debug, Clone)]
pub struct Cancellation(watch::Sender<Option<Ending>>);

impl Default for Cancellation {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Cancellation {
    /// Asks the run to end.
    pub fn cancel(&self, ending: Ending) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            *current = current.or(Some(ending));
            first
        });
    }

    /// How the run was asked to end, if it was.
    pub fn get(&self) -> Option<Ending> {
        *self.0.borrow()
    }

    /// Returns when the run is asked to end, at once if it has been.
    pub async fn wait(&self) -> Ending {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(ending) = *receiver.borrow_and_update() {
                return ending;
            }
            // The sender lives in `self`, so the channel cannot be closed; were it, nobody could cancel any more.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cancellation_wins_and_late_waiters_see_it() {
        let cancellation = Cancellation::default();
        assert_eq!(cancellation.get(), None);
        let other = cancellation.clone();
        other.cancel(Ending::Terminated);
        other.cancel(Ending::Interrupted);
        assert_eq!(cancellation.get(), Some(Ending::Terminated));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(cancellation.wait()), Ending::Terminated);
    }
}
