// SPDX-License-Identifier: Apache-2.0
//! Shakedown, a conformance and benchmark harness for container image builders.
//!
//! A scenario says what must hold, an adapter says how a builder is driven, and the trial brings the two together. This
//! crate must not know any builder's code: a builder is a command line and what it leaves in containerd.

pub mod adapter;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod document;
pub mod latency;
pub mod pod;
pub mod scenario;
pub mod schemas;
pub mod trial;
