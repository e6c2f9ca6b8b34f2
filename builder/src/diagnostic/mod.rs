// SPDX-License-Identifier: Apache-2.0
//! What a person is told when something they wrote is wrong: a stable code, a sentence, the place, the remedy.
//!
//! Pure values and their rendering. This module must not know the Dockerfile language nor who prints the text.

mod message;
mod render;
mod suggest;

pub use message::{Diagnostic, Location, Severity};
pub use suggest::closest;
