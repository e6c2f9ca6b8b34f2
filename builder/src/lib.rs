// SPDX-License-Identifier: Apache-2.0
//! Pushless builds a Dockerfile straight into containerd's stores, in the namespace that Kubernetes reads.
//!
//! The library behind the `pushless` binary. `ARCHITECTURE.md` tells which module may know what; the short form:
//! `cli -> engine -> {cache, layer, sandbox, store, context} -> image`, with `dockerfile` and `plan` pure.

pub mod cache;
pub mod cli;
pub mod context;
pub mod diagnostic;
pub mod dockerfile;
pub mod engine;
pub mod image;
pub mod layer;
pub mod plan;
pub mod sandbox;
pub mod store;
