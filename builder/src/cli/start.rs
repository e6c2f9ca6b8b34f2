// SPDX-License-Identifier: Apache-2.0
//! The program's start: namespaces before threads, then the runtime, then the command.

use std::io::IsTerminal as _;

use clap::Parser as _;
use confine::Confinement;

use super::args::{Command, CommandLine};
use super::command::{self, CommandError};
use super::exit::{self, ExitCode};
use super::signals;
use crate::engine::BuildError;

/// Runs the program and returns its exit code.
pub fn main() -> std::process::ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let failed = error.use_stderr();
            if let Err(error) = error.print() {
                eprintln!("pushless: {error}");
            }
            return code(if failed { ExitCode::Usage } else { ExitCode::Success });
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("PUSHLESS_LOG"))
        .with_writer(std::io::stderr)
        .init();
    match run(line) {
        Ok(()) => code(ExitCode::Success),
        Err(error) => {
            report(&error);
            code(exit::exit_code(&error))
        }
    }
}

fn run(line: CommandLine) -> Result<(), CommandError> {
    if matches!(line.command, Command::Build(_)) {
        // First of all: PID 1 does not get a signal that it has no handler for.
        signals::watch_from_here();
        // A socket out of reach is told as that, not as a lack of privileges for namespaces.
        command::check_socket(&line.node)?;
        confine::enter(Confinement::default())?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    let done = runtime.block_on(command::execute(line));
    // What still blocks (a file that is being hashed for a build that was cancelled) is not waited for.
    runtime.shutdown_background();
    done
}

/// Tells the failure; the last line carries the cause, for tools such as Tilt show only that one.
fn report(error: &CommandError) {
    let diagnostic = exit::diagnostic(error);
    if let CommandError::Build(BuildError::Step(failure)) = error
        && !failure.tail.is_empty()
    {
        eprintln!("the command's last output:");
        for line in failure.tail.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev() {
            eprintln!("  {line}");
        }
    }
    eprintln!("{}", diagnostic.render(std::io::stderr().is_terminal()).trim_end());
    eprintln!("pushless: {diagnostic}");
}

fn code(code: ExitCode) -> std::process::ExitCode {
    std::process::ExitCode::from(code as u8)
}
