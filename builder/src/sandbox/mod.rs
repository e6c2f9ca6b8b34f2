// SPDX-License-Identifier: Apache-2.0
//! What a `RUN` sees and how it is run: mounted roots, the OCI configuration, cgroup, network, and runc itself.
//!
//! Everything here relies on the whole process being PID 1 of a private pid and mount namespace (`confine::enter`):
//! mounts and processes need no collector. What outlives a killed build, cgroup directories and network
//! leases, carries a build id and is collected by a later build.

pub mod build_lock;
pub mod cgroup;
pub mod executor;
pub mod hosts;
mod kill;
pub mod network;
pub mod output;
pub mod overlay;
pub mod runc;
pub mod scratch;
pub mod spec;
pub mod stubs;
pub mod user;
