// SPDX-License-Identifier: Apache-2.0
//! What the test programs of this workspace share: trials that need something, and a look at processes.
//!
//! A dev-dependency only; it knows no other crate of the workspace, so that each of them can use it.

mod need;
mod processes;

pub use need::{root, trial};
pub use processes::{descendants, is_running};
