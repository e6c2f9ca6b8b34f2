// SPDX-License-Identifier: Apache-2.0
//! Shakedown, a conformance and benchmark harness for image builders; empty until its first slice lands.

pub mod cluster;
pub mod pod;
