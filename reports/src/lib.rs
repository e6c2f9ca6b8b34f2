// SPDX-License-Identifier: Apache-2.0
//! The report model; empty until its first slice lands.
