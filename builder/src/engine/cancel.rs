// SPDX-License-Identifier: Apache-2.0
//! A flag that ends a build early, seen by every task at once.

use tokio::sync::watch;

/// Raises the flag.
#[derive(Debug)]
pub struct CancelHandle {
    sender: watch::Sender<bool>,
}

/// Sees the flag.
#[derive(Debug, Clone)]
pub struct Cancel {
    receiver: watch::Receiver<bool>,
}

impl Cancel {
    /// A flag that is not raised yet.
    pub fn new() -> (CancelHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (CancelHandle { sender }, Self { receiver })
    }

    /// Whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Waits until the flag is raised; for ever if nobody is left to raise it.
    pub async fn raised(&mut self) {
        if self.receiver.wait_for(|raised| *raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl CancelHandle {
    /// Raises the flag; a second time changes nothing.
    pub fn raise(&self) {
        self.sender.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_raised_flag_is_seen_by_all_clones() {
        let (handle, mut cancel) = Cancel::new();
        let mut other = cancel.clone();
        assert!(!cancel.is_raised());
        handle.raise();
        handle.raise();
        cancel.raised().await;
        other.raised().await;
        assert!(other.is_raised());
    }
}
