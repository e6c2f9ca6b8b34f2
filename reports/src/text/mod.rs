// SPDX-License-Identifier: Apache-2.0
//! Renderings as plain text for a terminal or a log. They read a report and decide nothing.

mod latency;
mod matrix;
mod table;

pub use latency::latency;
pub use matrix::{findings, matrix};
