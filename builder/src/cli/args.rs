// SPDX-License-Identifier: Apache-2.0
//! The command line, as clap sees it. Nothing here acts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds a Dockerfile straight into containerd, where pods find the image at once: no daemon, no push, no tarball.
#[derive(Debug, Parser)]
#[command(name = "pushless", disable_version_flag = true, max_term_width = 100)]
pub struct CommandLine {
    /// Where containerd and the state are.
    #[command(flatten)]
    pub node: NodeArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// containerd's socket [default: $CONTAINERD_ADDRESS, else the usual places of containerd, k3s, microk8s and k0s]
    #[arg(long, short = 'a', global = true, value_name = "SOCKET")]
    pub address: Option<String>,
    /// containerd namespace [default: $CONTAINERD_NAMESPACE, else k8s.io, which is the one that Kubernetes reads]
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// containerd snapshotter [default: $CONTAINERD_SNAPSHOTTER, else the one that CRI uses]
    #[arg(long, global = true, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// Where the cache index is kept [default: $PUSHLESS_STATE_DIR, else /var/lib/pushless]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// List the images that pushless built
    Images(ImagesArgs),
    /// Remove images by name
    Rmi(RmiArgs),
    /// Let go of cached steps
    Prune(PruneArgs),
    /// Show what the cache holds
    Du,
    /// Show the versions of pushless, containerd and runc
    Version,
}

/// `pushless build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The name of the image, such as registry.test/app:1
    #[arg(long = "tag", short = 't', value_name = "REF", required = true)]
    pub tags: Vec<String>,
    /// The Dockerfile [default: Dockerfile or Containerfile in the context]
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Set an ARG; without =VALUE it is taken from the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub build_args: Vec<String>,
    /// Build this stage instead of the last one
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Execute every step, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,
    /// Print nothing but the image id
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "HOW")]
    pub progress: Progress,
    /// runc [default: $PATH, else the folders of k3s, microk8s and k0s]
    #[arg(long, value_name = "PROGRAM")]
    pub runc: Option<PathBuf>,
    /// The cgroup that RUN steps belong below [default: $PUSHLESS_CGROUP_PARENT, else the root, or in a pod its own]
    #[arg(long, value_name = "CGROUP")]
    pub cgroup_parent: Option<PathBuf>,
    /// The directory that COPY reads
    #[arg(value_name = "CONTEXT")]
    pub context: PathBuf,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// A live display on a terminal, plain lines elsewhere
    Auto,
    /// One line per event
    Plain,
}

/// `pushless images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Print only image ids, one a line
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// `pushless rmi`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Names of the images
    #[arg(value_name = "REF", required = true)]
    pub names: Vec<String>,
}

/// `pushless prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Let go of everything, not only of what is over the limits
    #[arg(long)]
    pub all: bool,
    /// Results kept of each image name
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub keep_results: usize,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
