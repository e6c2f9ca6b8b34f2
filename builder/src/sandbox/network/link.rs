// SPDX-License-Identifier: Apache-2.0
//! Network namespaces and the bridge's link, through system calls: no tool has to be there.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::NetworkError;

/// A network namespace that lives as long as this value: bound to a path, loopback up.
#[derive(Debug)]
pub(super) struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Makes it and binds it to `path`, where nothing may be yet.
    pub(super) fn new(path: PathBuf) -> Result<Self, NetworkError> {
        let at = |operation: &'static str| {
            let path = path.clone();
            move |source| NetworkError::System { operation, path, source }
        };
        std::fs::File::create_new(&path).map_err(at("make mount point"))?;
        let target = path.clone();
        // A namespace is entered by a thread; this one ends afterwards, so nothing else is moved.
        let made = std::thread::spawn(move || -> io::Result<()> {
            // SAFETY: unshare takes no pointers; only this thread, which does nothing else, gets the new namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } == -1 {
                return Err(io::Error::last_os_error());
            }
            set_up("lo", true)?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &target)?;
            Ok(())
        });
        made.join()
            .expect("invariant: the thread does not panic")
            .map_err(at("make a network namespace at"))?;
        Ok(Self { path })
    }

    /// Where it is bound.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(errno) = rustix::mount::unmount(&self.path, UnmountFlags::DETACH) {
            tracing::warn!(path = %self.path.display(), %errno, "a network namespace could not be unmounted");
        }
    }
}

/// Whether a link of this name exists in the present network namespace.
pub(super) fn exists(name: &str) -> bool {
    let name = CString::new(name).expect("invariant: names of links hold no NUL");
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// Removes a bridge; that there is none is no error.
pub(super) fn remove_bridge(name: &str) -> io::Result<()> {
    if !exists(name) {
        return Ok(());
    }
    // A bridge that is up cannot be removed.
    set_up(name, false)?;
    let socket = control_socket()?;
    let name = CString::new(name).expect("invariant: names of links hold no NUL");
    // SAFETY: SIOCBRDELBR reads a NUL-terminated name, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRDELBR, name.as_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Removes a bridge by name (`linux/sockios.h`); the libc crate does not have it.
const SIOCBRDELBR: libc::Ioctl = 0x89a1;

/// Raises or lowers a link of the present network namespace.
fn set_up(name: &str, up: bool) -> io::Result<()> {
    let socket = control_socket()?;
    // SAFETY: ifreq is plain data; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    let flags = if up { libc::IFF_UP | libc::IFF_RUNNING } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request lives across the call and is an initialised ifreq, as SIOCSIFFLAGS wants.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn control_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?)
}
