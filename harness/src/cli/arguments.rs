// SPDX-License-Identifier: Apache-2.0
//! The flags. Their documentation here is what `--help` prints.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Judges container image builders: does every Dockerfile feature work, can a pod run the image, and how long does it
/// take from an edit to the running pod?
#[derive(Debug, Parser)]
#[command(name = "shakedown", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
    0  all required scenarios hold
    1  red: a required scenario fails, or an expectation is broken
    2  wrong usage, or an invalid scenario or adapter
    3  latency regression (only with --gate-latency)
    4  nothing ran: the selection is empty, or no selected builder is installed
   70  the harness or its environment failed
  106  incomplete: something planned has no verdict
  130  ended by Ctrl-C
  143  ended by SIGTERM";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios against builders on a private containerd, and measure latencies.
    Run(RunArguments),
    /// List the scenarios and builders that a run would take.
    List(ListArguments),
    /// Show what is here, what is missing, and how to get it; exit code 0 when `run` can start, else 2.
    Doctor(DoctorArguments),
}

/// Where the documents are.
#[derive(Debug, Clone, Default, Args)]
pub struct DocumentArguments {
    /// Folder of the scenarios. Default: `scenarios` in the working directory, or else in the nearest folder above the
    /// program that has one.
    #[arg(long, value_name = "DIR")]
    pub scenarios: Option<PathBuf>,
    /// Folder of the adapters. Default: `adapters`, found in the same way.
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,
}

/// What to take.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionArguments {
    /// Only this builder; can be given several times, and the first is the one that others are compared with. Default:
    /// every adapter, pushless first.
    #[arg(long = "builder", value_name = "NAME")]
    pub builders: Vec<String>,
    /// Only scenarios with this text in their id or among their tags.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
}

/// `shakedown run`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// What to take.
    #[command(flatten)]
    pub selection: SelectionArguments,
    /// Where the documents are.
    #[command(flatten)]
    pub documents: DocumentArguments,
    /// Where report.json, events.jsonl and logs/ go; what an earlier run left there is replaced.
    #[arg(long, value_name = "DIR", default_value = "target/shakedown")]
    pub out: PathBuf,
    /// The containerd to start. Default: $SHAKEDOWN_CONTAINERD, or else the installed one.
    #[arg(long, value_name = "PATH")]
    pub containerd: Option<PathBuf>,
    /// Do not measure.
    #[arg(long)]
    pub no_bench: bool,
    /// Rounds of each measurement that count; one more is thrown away first.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Attempts after a failed one; a pass after a failure is `flaky`, which is red.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Exit with 3 when this builder is slower than the first one; can be given several times.
    #[arg(long = "gate-latency", value_name = "NAME")]
    pub gate_latency: Vec<String>,
    /// Seed of every random choice. Default: a random one, which the report names.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Trials at a time. Only 1: residue is found by comparing the node before and after each trial.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1))]
    pub jobs: u32,
    /// Keep the node's directory for a look at it.
    #[arg(long)]
    pub keep: bool,
}

/// `shakedown list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// What to take.
    #[command(flatten)]
    pub selection: SelectionArguments,
    /// Where the documents are.
    #[command(flatten)]
    pub documents: DocumentArguments,
}

/// `shakedown doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArguments {
    /// Where the documents are.
    #[command(flatten)]
    pub documents: DocumentArguments,
    /// The containerd to look at. Default: $SHAKEDOWN_CONTAINERD, or else the installed one.
    #[arg(long, value_name = "PATH")]
    pub containerd: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn unknown_flags_and_values_out_of_range_are_usage_errors() {
        for line in [
            "shakedown run --fast",
            "shakedown run --rounds 0",
            "shakedown run --jobs 2",
            "shakedown",
            "shakedown go",
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        use shakedown_report::Outcome;
        for outcome in [
            Outcome::Holds,
            Outcome::Red,
            Outcome::Usage,
            Outcome::LatencyRegression,
            Outcome::NothingRan,
            Outcome::HarnessFailed,
            Outcome::Incomplete,
            Outcome::Interrupted,
            Outcome::Terminated,
        ] {
            let code = format!("{:>5}  ", outcome.exit_code());
            assert!(EXIT_CODES.lines().any(|line| line.starts_with(&code)), "{outcome:?}");
        }
    }
}
