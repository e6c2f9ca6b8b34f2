// SPDX-License-Identifier: Apache-2.0
//! The `pushless` program; everything is in the library.

fn main() -> std::process::ExitCode {
    pushless::cli::main()
}
