// SPDX-License-Identifier: Apache-2.0
//! The program's start: namespaces before threads, then the runtime, then the command.

use std::io::{IsTerminal as _, Write as _};

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
            // As in `report`: who does not read learns it from the exit code.
            let _ = error.print();
            if failed {
                // clap ends with an advice, and the last line is the cause's.
                let text = error.to_string();
                let cause = text.split("\n\n").next().unwrap_or_default();
                let cause = one_line(cause.strip_prefix("error: ").unwrap_or(cause));
                let _ = writeln!(std::io::stderr(), "pushless: {cause}");
            }
            return code(if failed { ExitCode::Usage } else { ExitCode::Success });
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("PUSHLESS_LOG"))
        .with_writer(std::io::stderr)
        .init();
    // Where progress was shown, the command's output was on the screen already.
    let silent = matches!(&line.command, Command::Build(build) if build.quiet);
    match run(line) {
        Ok(()) => code(ExitCode::Success),
        Err(error) => {
            report(&error, silent);
            code(exit::exit_code(&error))
        }
    }
}

fn run(line: CommandLine) -> Result<(), CommandError> {
    if matches!(line.command, Command::Build(_)) {
        // First of all: PID 1 does not get a signal that it has no handler for.
        signals::watch_from_here();
        let _held = signals::Held::begin();
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
fn report(error: &CommandError, silent: bool) {
    let diagnostic = exit::diagnostic(error);
    let mut text = String::new();
    if silent
        && let CommandError::Build(BuildError::Step(failure)) = error
        && !failure.tail.is_empty()
    {
        text.push_str("the command's last output:\n");
        for line in failure.tail.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text.push_str(diagnostic.render(std::io::stderr().is_terminal()).trim_end());
    text.push_str(&format!("\npushless: {}\n", one_line(&diagnostic.to_string())));
    // A reader that has left can't be told; the exit code still tells.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// `text` without line breaks: a command, or what containerd says, may have several lines.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn code(code: ExitCode) -> std::process::ExitCode {
    std::process::ExitCode::from(code as u8)
}
