// SPDX-License-Identifier: Apache-2.0
//! The command line: arguments to requests, events to progress, errors to diagnostics and exit codes.

mod args;
mod command;
mod exit;
mod progress;
mod signals;
mod start;
mod stats;

pub use exit::ExitCode;
pub use start::main;
