// SPDX-License-Identifier: Apache-2.0
//! Paired, interleaved measurement: who is timed when, by which clock, and what the figures allow to say.
//!
//! Statistics and schedule are pure. The driver knows neither builders nor containerd: it asks a [`Subject`] to do one
//! phase after another and takes the time around each call, unless the subject's own clock was closer to the work.

mod driver;
mod schedule;
mod statistics;

pub use driver::{Clock, Driver, MonotonicClock, Subject, Timing, Visit};
pub use schedule::{Round, schedule};
pub use statistics::{Estimate, MINIMUM_EFFECT, MINIMUM_PAIRS, RESAMPLES, compare, paired_ratio};
