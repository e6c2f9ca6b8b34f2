// SPDX-License-Identifier: Apache-2.0
//! Shakedown, a conformance and benchmark harness for image builders.

pub mod latency;
pub mod trial;
