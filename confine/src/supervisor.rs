// SPDX-License-Identifier: Apache-2.0
//! Waits for one child, hands it the signals that this process receives, and reaps every orphan on the way.

use std::mem::MaybeUninit;

/// What a person or a service manager sends to end or tell a program something.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// The signals that a supervisor waits for, blocked from before its child exists: one that came between the fork and
/// the wait would end the supervisor, or, where that is PID 1 of a namespace, be lost.
#[derive(Clone, Copy)]
pub(crate) struct Blocked {
    waited_for: libc::sigset_t,
    before: libc::sigset_t,
}

/// Returns the exit status of `child`: its code, or 128 + the signal that ended it.
///
/// Must be called in a process with one thread.
pub(crate) fn supervise(child: libc::pid_t, blocked: &Blocked) -> i32 {
    loop {
        if let Some(status) = reap(child) {
            return status;
        }
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: both pointers are valid for the call, and the set was initialised by `Blocked::new`.
        let signal = unsafe { libc::sigwaitinfo(&raw const blocked.waited_for, info.as_mut_ptr()) };
        if !FORWARDED.contains(&signal) {
            continue; // SIGCHLD, or an interrupted wait: look at the children again.
        }
        // SAFETY: zeroed above and filled by a successful sigwaitinfo.
        let info = unsafe { info.assume_init() };
        // A terminal signals the whole foreground group (si_code > 0, from the kernel): the child has it already.
        if info.si_code <= 0 {
            // SAFETY: kill takes no pointers. The child is not yet reaped, so its pid cannot have been reused.
            unsafe { libc::kill(child, signal) };
        }
    }
}

impl Blocked {
    /// Blocks them. Must be called before the fork, in a process with one thread.
    pub(crate) fn new() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it, and sigprocmask, which cannot fail with
        // these arguments, the mask of before; every signal number is valid. SIGCHLD gets its default action back, for
        // an inherited SIG_IGN would make the kernel reap the child unseen.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in FORWARDED {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            Self { waited_for: set.assume_init(), before: before.assume_init() }
        }
    }

    /// Brings the mask of before back, in the process that goes on with the program.
    pub(crate) fn lift(&self) {
        // SAFETY: the mask was initialised by `new` and outlives the call.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Collects every ended child; the status of `child` once it is among them.
fn reap(child: libc::pid_t) -> Option<i32> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        if pid == child && libc::WIFEXITED(status) {
            return Some(libc::WEXITSTATUS(status));
        }
        if pid == child && libc::WIFSIGNALED(status) {
            return Some(128 + libc::WTERMSIG(status));
        }
    }
}
