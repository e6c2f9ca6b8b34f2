// SPDX-License-Identifier: Apache-2.0
//! SIGINT and SIGTERM, from the very first moment on.
//!
//! A build is PID 1 of its namespace, and the kernel drops signals for which PID 1 has no handler. So a handler that
//! only takes a note is set before the process goes there, and the asynchronous one, which comes with the runtime, looks
//! at the note when it begins.

use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::engine::CancelHandle;

/// The last signal that came, 0 for none.
static NOTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(number: libc::c_int) {
    NOTED.store(number, Ordering::Relaxed);
}

/// Takes note of SIGINT and SIGTERM from here on; forked children inherit handler and note.
pub(super) fn watch_from_here() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(libc::c_int) = note;
        // SAFETY: the handler does nothing but store into an atomic, which is safe in a signal handler. The call can
        // only fail for numbers that are no signals.
        unsafe { libc::signal(number, handler as libc::sighandler_t) };
    }
}

/// Keeps both signals waiting: between the fork and the moment when the parent forwards them, one that was delivered to
/// the parent would be noted where nobody looks. Blocked ones wait for the parent's `sigwaitinfo`.
#[derive(Debug)]
pub(super) struct Held {
    before: libc::sigset_t,
}

impl Held {
    /// Blocks both; to be called while there is one thread.
    pub(super) fn begin() -> Self {
        let mut blocked = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the first set before it is read, sigprocmask the second one; both numbers and
        // the operation are valid, so none of the calls can fail.
        unsafe {
            libc::sigemptyset(blocked.as_mut_ptr());
            libc::sigaddset(blocked.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(blocked.as_mut_ptr(), libc::SIGTERM);
            libc::sigprocmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
            Self { before: before.assume_init() }
        }
    }
}

impl Drop for Held {
    /// What waits is delivered now, and noted.
    fn drop(&mut self) {
        // SAFETY: the set was filled by sigprocmask and lives across the call.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Raises the flag at the first SIGINT or SIGTERM; says whether it was SIGTERM.
pub(super) async fn raise_at_first(handle: CancelHandle) -> bool {
    let registered = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = registered else {
        tracing::warn!("signals can't be watched; end the build with SIGKILL");
        return std::future::pending().await;
    };
    // The note is looked at after the registration, which calls the earlier handler too: no signal falls in between.
    let terminated = match NOTED.load(Ordering::Relaxed) {
        0 => tokio::select! {
            _ = interrupt.recv() => false,
            _ = terminate.recv() => true,
        },
        number => number == libc::SIGTERM,
    };
    handle.raise();
    terminated
}
