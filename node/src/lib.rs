// SPDX-License-Identifier: Apache-2.0
//! A private containerd for tests and conformance runs; empty until its first slice lands.
