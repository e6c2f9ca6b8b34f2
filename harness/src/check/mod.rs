// SPDX-License-Identifier: Apache-2.0
//! Compares what was observed with what must hold.
