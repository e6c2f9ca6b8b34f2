// SPDX-License-Identifier: Apache-2.0
//! The command line: what was asked for, where the documents are, and what is printed.
//!
//! Nothing here judges or measures; the exit code comes from [`shakedown_report::Outcome`] alone.

mod arguments;
mod doctor;
mod list;
mod places;
mod run;
mod selection;

use shakedown_report::Outcome;

pub use arguments::{
    Arguments, Command, DoctorArguments, DocumentArguments, ListArguments, RunArguments, SelectionArguments,
};
pub use doctor::doctor;
pub use list::list;
pub use places::{Places, PlacesError};
pub use run::run;
pub use selection::{Selection, SelectionError};

/// Does what the command line asks for. Must be called while the process has one thread.
pub fn main(arguments: Arguments) -> Outcome {
    log_to_stderr();
    match arguments.command {
        Command::Run(arguments) => run(&arguments),
        Command::List(arguments) => match list::selected(&arguments) {
            Ok(selection) => {
                print!("{}", list(&selection));
                if selection.scenarios.is_empty() { Outcome::NothingRan } else { Outcome::Holds }
            }
            Err(text) => {
                eprint!("{text}");
                Outcome::Usage
            }
        },
        Command::Doctor(arguments) => {
            let (text, ready) = doctor(&arguments);
            print!("{text}");
            if ready { Outcome::Holds } else { Outcome::Usage }
        }
    }
}

/// Warnings go to standard error; `SHAKEDOWN_LOG` (for instance `debug`) asks for more.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SHAKEDOWN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
