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

pub use arguments::{Arguments, Command, DoctorArguments, DocumentArguments, ListArguments, RunArguments};
pub use doctor::doctor;
pub use list::list;
pub use places::{Places, PlacesError};
pub use run::run;
pub use selection::{Selection, SelectionError};
