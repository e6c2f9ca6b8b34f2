// SPDX-License-Identifier: Apache-2.0
//! A flag that ends a build early, seen by every task at once.

use tokio::sync::watch;

/// Raises the flag.
#[derive(Debug)]
pub struct CancelHandle {
    sender: watch::Sender<bool>,
}

/// Sees the flag, and that of the [`Cancel`] that it was made from.
#[derive(Debug, Clone)]
pub struct Cancel {
    receiver: watch::Receiver<bool>,
    outer: Option<Box<Cancel>>,
}

impl Cancel {
    /// A flag that is not raised yet.
    pub fn new() -> (CancelHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (CancelHandle { sender }, Self { receiver, outer: None })
    }

    /// A flag of its own that counts as raised when this one is, too.
    pub fn inner(&self) -> (CancelHandle, Self) {
        let (handle, inner) = Self::new();
        (handle, Self { outer: Some(Box::new(self.clone())), ..inner })
    }

    /// Whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        *self.receiver.borrow() || self.outer.as_ref().is_some_and(|outer| outer.is_raised())
    }

    /// Waits until the flag is raised; for ever if nobody is left to raise it.
    pub async fn raised(&self) {
        let mut receiver = self.receiver.clone();
        let own = async {
            if receiver.wait_for(|raised| *raised).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        match &self.outer {
            None => own.await,
            Some(outer) => tokio::select! {
                () = own => {}
                () = Box::pin(outer.raised()) => {}
            },
        }
    }

    /// The outcome of `work`, or `None` once the flag is raised; `work` is dropped then.
    pub async fn unless_raised<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.raised() => None,
            done = work => Some(done),
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
        let (handle, cancel) = Cancel::new();
        let other = cancel.clone();
        assert!(!cancel.is_raised());
        handle.raise();
        handle.raise();
        cancel.raised().await;
        other.raised().await;
        assert!(other.is_raised());
    }

    #[tokio::test]
    async fn an_inner_flag_is_raised_with_the_outer_one_but_not_the_other_way_round() {
        let (handle, outer) = Cancel::new();
        let (inner_handle, inner) = outer.inner();
        let (_, other) = outer.inner();
        assert_eq!(inner.unless_raised(async { 1 }).await, Some(1));
        inner_handle.raise();
        inner.raised().await;
        assert!(inner.is_raised() && !outer.is_raised() && !other.is_raised());
        assert_eq!(inner.unless_raised(std::future::pending::<()>()).await, None);
        handle.raise();
        other.raised().await;
        assert!(other.is_raised());
    }
}
