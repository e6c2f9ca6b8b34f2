// SPDX-License-Identifier: Apache-2.0
//! Runs the rest of a process as the first process of private namespaces that die with their starter.
//!
//! [`enter`] forks while the process still has a single thread. The parent stays outside as a supervisor: it forwards
//! signals and ends with the child's exit status. The child becomes PID 1 of a new pid namespace with a mount
//! namespace of its own and the death signal `SIGKILL`. So when the supervisor is killed, even by `SIGKILL`, the kernel
//! kills PID 1, with it every process of the namespace, and with the last of them every mount made there: nothing has
//! to be cleaned up by code that may never run.
//!
//! This crate must not know what runs inside.

mod supervisor;

use std::io;
use std::sync::OnceLock;

use rustix::mount::{MountFlags, MountPropagationFlags};

/// Which namespaces [`enter`] makes besides pid and mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Confinement {
    /// A network namespace of its own, with the loopback interface up and nothing else in it.
    pub network: bool,
    /// Keep PID 1 as a reaper of orphans and run the rest as its child, for programs whose children daemonise.
    /// Without it the rest of the process *is* PID 1.
    pub reap_orphans: bool,
}

/// Why the namespaces could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Forking with threads would leave locks held by threads that do not exist in the child.
    #[error("enter private namespaces: the process already has {threads} threads")]
    Threads {
        /// Threads found.
        threads: usize,
    },
    /// A system call was refused.
    #[error("enter private namespaces: {operation}")]
    System {
        /// The step that failed.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl ConfineError {
    /// Whether the kernel refused for want of privileges.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// What this process has entered; forked children inherit it, programs that it starts do not know it.
static ENTERED: OnceLock<Confinement> = OnceLock::new();

/// The confinement that this process runs in, `None` when [`enter`] has not returned in it (or in its forking parent).
///
/// For code that would do harm outside: a mount made in the host's namespace, for instance.
pub fn entered() -> Option<Confinement> {
    ENTERED.get().copied()
}

/// Moves the rest of this process into private namespaces; returns only in the child.
///
/// The calling process stays behind as the supervisor and never returns from here: it ends with the child's exit
/// status, or with 128 + the number of the signal that ended the child. Signals sent to it by processes are forwarded;
/// those that a terminal sends to the whole foreground group are not, because the child got them already.
///
/// # Errors
/// [`ConfineError::Threads`] when called too late, [`ConfineError::System`] when the kernel refuses (without
/// `CAP_SYS_ADMIN`: `EPERM` at the very first step, before anything changed).
pub fn enter(confinement: Confinement) -> Result<(), ConfineError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(ConfineError::Threads { threads });
    }
    let (watch, alive) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(at("make a pipe"))?;
    unshare(libc::CLONE_NEWPID, "make a pid namespace")?;
    let blocked = supervisor::Blocked::new();
    match fork()? {
        Fork::Parent { child } => {
            drop(watch);
            // `alive` stays open until this process ends: that is how the child learns of a death before its own
            // death signal was set.
            let status = supervisor::supervise(child, &blocked);
            drop(alive);
            std::process::exit(status)
        }
        Fork::Child => {
            drop(alive);
            die_with_parent(&watch)?;
        }
    }
    let mut namespaces = libc::CLONE_NEWNS;
    if confinement.network {
        namespaces |= libc::CLONE_NEWNET;
    }
    unshare(namespaces, "make a mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(at("make the mounts private"))?;
    rustix::mount::mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )
    .map_err(at("mount /proc"))?;
    if confinement.network {
        raise_loopback()?;
    }
    if confinement.reap_orphans
        && let Fork::Parent { child } = fork()?
    {
        // PID 1 ends: the kernel kills whatever is left in the namespace.
        std::process::exit(supervisor::supervise(child, &blocked));
    }
    blocked.lift();
    // Nested confinement keeps the outer record: both are private, and the first is the one with more around it.
    let _ = ENTERED.set(confinement);
    Ok(())
}

enum Fork {
    Parent { child: libc::pid_t },
    Child,
}

fn fork() -> Result<Fork, ConfineError> {
    // SAFETY: the callers have checked that this process has one thread, so no lock is held by another.
    match unsafe { libc::fork() } {
        -1 => Err(ConfineError::System { operation: "fork", source: io::Error::last_os_error() }),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child }),
    }
}

fn unshare(flags: libc::c_int, operation: &'static str) -> Result<(), ConfineError> {
    // SAFETY: unshare takes no pointers, and the flags used here do not split memory or file tables.
    if unsafe { libc::unshare(flags) } == -1 {
        return Err(ConfineError::System { operation, source: io::Error::last_os_error() });
    }
    Ok(())
}

/// Asks the kernel for `SIGKILL` when the parent ends, and ends at once if it has ended before the request.
fn die_with_parent(watch: &impl std::os::fd::AsFd) -> Result<(), ConfineError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(at("set the death signal"))?;
    let mut poll = [rustix::event::PollFd::new(watch, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&now)).map_err(at("look whether the parent lives"))?;
    if poll[0].revents().contains(rustix::event::PollFlags::HUP) {
        std::process::exit(128 + libc::SIGKILL);
    }
    Ok(())
}

/// A new network namespace has its loopback interface down.
fn raise_loopback() -> Result<(), ConfineError> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(at("open a socket to raise the loopback interface"))?;
    // SAFETY: ifreq is plain data; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    use std::os::fd::AsRawFd;
    // SAFETY: the request lives across the call and is an initialised ifreq, as SIOCSIFFLAGS wants.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } == -1 {
        return Err(ConfineError::System {
            operation: "raise the loopback interface",
            source: io::Error::last_os_error(),
        });
    }
    Ok(())
}

fn at(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> ConfineError {
    move |errno| ConfineError::System { operation, source: errno.into() }
}
