// SPDX-License-Identifier: Apache-2.0
//! Empty until its first slice lands.
