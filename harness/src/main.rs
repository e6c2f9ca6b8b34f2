// SPDX-License-Identifier: Apache-2.0
//! The program: reads the command line, enters private namespaces while there is one thread, and turns the outcome into
//! the exit code.

use std::process::ExitCode;

use clap::Parser;
use shakedown::cli::{self, Arguments};

fn main() -> ExitCode {
    // A panic is a defect of the harness and must not look like the verdict on a builder; clap ends by itself with 2.
    let outcome = std::panic::catch_unwind(|| cli::main(Arguments::parse()));
    ExitCode::from(outcome.unwrap_or(shakedown_report::Outcome::HarnessFailed).exit_code())
}
