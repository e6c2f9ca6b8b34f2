// SPDX-License-Identifier: Apache-2.0
//! The commands: each turns arguments into calls and results into text.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::args::{BuildArgs, Command, CommandLine, ImagesArgs, NodeArgs, PruneArgs, RmiArgs};
use super::progress;
use super::signals;
use super::stats;
use crate::cache::{CacheLimits, StateDir};
use crate::engine::{BuildError, BuildRequest, Cancel, DEFAULT_RUN_DIR, EventSink, NodePaths, Upkeep, build};
use crate::image::{ImageReference, ManifestOrIndex};
use crate::sandbox::network::{NetworkError, remove_unused};
use crate::sandbox::runc::Runc;
use crate::store::discovery::{OVERLAYFS, probe};
use crate::store::{Discovery, DiscoveryError, Store, StoreError, labels};

/// How long an explicit prune waits for containerd to give the space back.
const PRUNE_WAIT: Duration = Duration::from_secs(120);
/// How long a build that was told to end may take to remove what it has made.
const ENDING_LIMIT: Duration = Duration::from_secs(10);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// containerd's socket, namespace or snapshotter.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The private namespaces could not be made.
    #[error(transparent)]
    Confine(#[from] confine::ConfineError),
    /// An argument that clap could not judge.
    #[error("{0}")]
    Usage(String),
    /// A build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// containerd failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bridge of the builds could not be removed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An image to remove is not there.
    #[error("remove image {name}: containerd has no such image")]
    NoSuchImage {
        /// The name as given.
        name: String,
    },
    /// The result could not be printed.
    #[error("print the result")]
    Output(#[from] io::Error),
    /// The asynchronous runtime could not be started.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// The figures could not be written where `PUSHLESS_STATS` says.
    #[error("write figures to {path}")]
    Stats {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A signal ended the command.
    #[error("cancelled")]
    Cancelled {
        /// By SIGTERM rather than by SIGINT.
        terminated: bool,
    },
}

/// Where everything is, from flags and environment.
struct Node {
    store: Store,
    paths: NodePaths,
    discovery: Discovery,
}

impl Node {
    fn find(args: &NodeArgs, runc: Option<PathBuf>) -> Result<Self, CommandError> {
        let discovery = Discovery {
            address: args.address.clone().map(Into::into),
            namespace: args.namespace.clone(),
            snapshotter: args.snapshotter.clone(),
            ..Discovery::of_process()
        };
        let address = discovery.address()?;
        let namespace = discovery.namespace()?;
        let snapshotter = discovery.snapshotter()?.unwrap_or_else(|| OVERLAYFS.to_owned());
        let store = Store::connect(&address, &namespace)?;
        let root = args.state_dir.clone().or_else(|| std::env::var_os("PUSHLESS_STATE_DIR").map(Into::into));
        let state = StateDir::new(root.as_deref(), &address, &namespace, &snapshotter);
        let run_dir =
            std::env::var_os("PUSHLESS_RUN_DIR").map_or_else(|| DEFAULT_RUN_DIR.into(), PathBuf::from);
        let cgroup_parent = std::env::var_os("PUSHLESS_CGROUP_PARENT").map(PathBuf::from);
        Ok(Self { store, paths: NodePaths { run_dir, state, runc, cgroup_parent }, discovery })
    }

    fn upkeep(&self) -> Upkeep<'_> {
        Upkeep { store: &self.store, state: &self.paths.state }
    }
}

/// Carries out the command line.
pub(super) async fn execute(line: CommandLine) -> Result<(), CommandError> {
    match line.command {
        Command::Build(args) => build_image(&line.node, *args).await,
        Command::Images(args) => images(&Node::find(&line.node, None)?, &args).await,
        Command::Rmi(args) => remove_images(&Node::find(&line.node, None)?, &args).await,
        Command::Prune(args) => prune(&Node::find(&line.node, None)?, &args).await,
        Command::Du => disk_usage(&Node::find(&line.node, None)?).await,
        Command::Version => version(&line.node).await,
    }
}

async fn build_image(node: &NodeArgs, args: BuildArgs) -> Result<(), CommandError> {
    let request = request(&args)?;
    let mut node = Node::find(node, args.runc.clone())?;
    if args.cgroup_parent.is_some() {
        node.paths.cgroup_parent.clone_from(&args.cgroup_parent);
    }
    let (events, stream) = EventSink::channel();
    let (handle, cancel) = Cancel::new();
    let shown = tokio::spawn(progress::follow(progress::display(args.progress, args.quiet), stream));
    let signals = tokio::spawn(signals::raise_at_first(handle));
    let build = async {
        // Asked once a store, the first time: CRI and this builder must agree on the snapshotter.
        if !node.paths.state.steps().is_dir()
            && let Some(cri) = node.store.cri()
        {
            node.discovery.check_cri_snapshotter(cri.snapshotter().await?.as_deref())?;
        }
        Ok::<_, CommandError>(build(request, &node.store, &node.paths, &events, &cancel).await?)
    };
    let built = tokio::select! {
        built = build => built,
        // Should something hang that can't be given up, what it leaves is for the next build to collect.
        () = async { cancel.raised().await; tokio::time::sleep(ENDING_LIMIT).await } => {
            Err(BuildError::Cancelled.into())
        }
    };
    drop(events);
    // The display ends with the stream; what a panic in it would say was printed already.
    let _ = shown.await;
    let figures = stats::write(node.store.counts());
    match built {
        Err(CommandError::Build(BuildError::Cancelled)) => {
            let terminated = signals.await.unwrap_or(false);
            Err(CommandError::Cancelled { terminated })
        }
        Err(error) => Err(error),
        Ok(image) => {
            signals.abort();
            figures?;
            if args.quiet {
                writeln!(io::stdout(), "{}", image.image_id)?;
            }
            Ok(())
        }
    }
}

fn request(args: &BuildArgs) -> Result<BuildRequest, CommandError> {
    let [tag] = &*args.tags else {
        return Err(CommandError::Usage(
            "name one image with -t: several names are not supported yet".to_owned(),
        ));
    };
    let name: ImageReference = tag.parse().map_err(|error| CommandError::Usage(format!("{error}")))?;
    if name.digest().is_some() {
        return Err(CommandError::Usage(format!(
            "name image {tag}: a name with a digest can't be given to a new image"
        )));
    }
    if args.context.as_os_str() == "-" || args.file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(CommandError::Usage("reading from standard input is not supported yet".to_owned()));
    }
    Ok(BuildRequest {
        name,
        context: args.context.clone(),
        dockerfile: args.file.clone(),
        build_args: build_args(&args.build_args, |name| std::env::var_os(name))?,
        target: args.target.clone(),
        no_cache: args.no_cache,
        cache_limits: CacheLimits::default(),
    })
}

/// `KEY=VALUE`, or `KEY` to be taken from the environment; there unset, it is left to the Dockerfile's default.
fn build_args(
    given: &[String],
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, String>, CommandError> {
    let mut args = BTreeMap::new();
    for text in given {
        match text.split_once('=') {
            Some(("", _)) => {
                return Err(CommandError::Usage(format!("--build-arg {text}: the name is empty")));
            }
            Some((name, value)) => {
                args.insert(name.to_owned(), value.to_owned());
            }
            None if text.is_empty() => {
                return Err(CommandError::Usage("--build-arg: the name is empty".to_owned()));
            }
            None => {
                if let Some(value) = environment(text) {
                    let value = value.into_string().map_err(|_| {
                        CommandError::Usage(format!(
                            "--build-arg {text}: its value in the environment is not UTF-8"
                        ))
                    })?;
                    args.insert(text.clone(), value);
                }
            }
        }
    }
    Ok(args)
}

async fn images(node: &Node, args: &ImagesArgs) -> Result<(), CommandError> {
    let filter = format!("labels.\"{}\"", labels::IMAGE);
    let mut records = node.store.images(&[&filter]).await?;
    records.sort_by_key(|record| (std::cmp::Reverse(record.updated_at), record.name.clone()));
    let mut out = io::stdout().lock();
    if !args.quiet {
        writeln!(out, "{:<50} {:<14} {:>10}  UPDATED", "NAME", "IMAGE ID", "SIZE")?;
    }
    for record in records {
        // The record may outlive its blobs when another client deletes content; such an image is still listed.
        let manifest = node.store.read_content(record.target.digest, 8 << 20).await;
        let manifest = match manifest {
            Ok(raw) => match ManifestOrIndex::parse(raw, &record.target.media_type) {
                Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest),
                Ok(ManifestOrIndex::Index(_)) | Err(_) => None,
            },
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let id = manifest
            .as_ref()
            .map_or_else(|| "missing".to_owned(), |manifest| manifest.value().config.digest.short());
        if args.quiet {
            writeln!(out, "{id}")?;
            continue;
        }
        let size: u64 =
            manifest.iter().flat_map(|manifest| &manifest.value().layers).map(|layer| layer.size_bytes).sum();
        let updated = record
            .updated_at
            .and_then(|moment| jiff::Timestamp::try_from(moment).ok())
            .map_or_else(String::new, |moment| moment.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let name = record.name.parse::<ImageReference>().map_or(record.name.clone(), |name| name.familiar());
        writeln!(out, "{name:<50} {id:<14} {:>10}  {updated}", human(size))?;
    }
    Ok(())
}

async fn remove_images(node: &Node, args: &RmiArgs) -> Result<(), CommandError> {
    for given in &args.names {
        let name: ImageReference = given.parse().map_err(|error| CommandError::Usage(format!("{error}")))?;
        let Some(record) = node.store.image(&name.to_string()).await? else {
            return Err(CommandError::NoSuchImage { name: given.clone() });
        };
        node.store.delete_image(&name.to_string(), false).await?;
        // Records by id that CRI made of an image before it was managed would keep it for ever.
        let (by_id, named): (Vec<_>, Vec<_>) = node
            .store
            .images(&[&format!("target.digest=={}", record.target.digest)])
            .await?
            .into_iter()
            .partition(|other| other.name.starts_with("sha256:"));
        // While the image has another name they belong to that one: pods may refer to it by id.
        if named.is_empty() {
            for other in by_id {
                node.store.delete_image(&other.name, false).await?;
            }
        }
        writeln!(io::stdout(), "removed {}", name.familiar())?;
    }
    Ok(())
}

async fn prune(node: &Node, args: &PruneArgs) -> Result<(), CommandError> {
    let limits = if args.all {
        CacheLimits::nothing()
    } else {
        CacheLimits { results_per_name: args.keep_results, ..CacheLimits::default() }
    };
    let pruned = node.upkeep().prune(limits, PRUNE_WAIT).await?;
    if args.all {
        // The bridge that builds share stays between them to save time; it goes with the rest of the cache.
        let run_dir = node.paths.run_dir.clone();
        let removed = tokio::task::spawn_blocking(move || remove_unused(&run_dir, "prune"));
        removed.await.map_err(|error| CommandError::Runtime(error.into()))??;
    }
    writeln!(io::stdout(), "let go of {} layers, {}", pruned.snapshots, human(pruned.size_bytes))?;
    Ok(())
}

async fn disk_usage(node: &Node) -> Result<(), CommandError> {
    let entries = node.upkeep().entries().await?;
    let mut out = io::stdout().lock();
    writeln!(out, "{:<14} {:>10}  {:<20} KIND", "LAYER", "SIZE", "CREATED")?;
    for entry in &entries {
        let created = i64::try_from(entry.created_s)
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let created =
            created.map_or_else(String::new, |moment| moment.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let kind = if entry.keys == 0 { "base" } else { "step" };
        writeln!(out, "{:<14} {:>10}  {created:<20} {kind}", entry.chain.0.short(), human(entry.size_bytes))?;
    }
    let total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    writeln!(out, "{} layers, {}", entries.len(), human(total))?;
    Ok(())
}

async fn version(args: &NodeArgs) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "pushless {}", env!("CARGO_PKG_VERSION"))?;
    // The builder's version is wanted most where the rest can't be reached.
    let containerd = match Node::find(args, None) {
        Ok(node) => match node.store.version().await {
            Ok(version) => format!("{version} at {}", node.store.address().display()),
            Err(error) => format!("{error}"),
        },
        Err(error) => format!("{error}"),
    };
    writeln!(out, "containerd {containerd}")?;
    match Runc::discover(None) {
        Ok(runc) => writeln!(out, "runc {}", runc.path().display())?,
        Err(error) => writeln!(out, "runc: {error}")?,
    }
    Ok(())
}

/// Whether the socket that the arguments lead to can be used at all, told before anything else is set up.
pub(super) fn check_socket(args: &NodeArgs) -> Result<(), CommandError> {
    let node = Discovery { address: args.address.clone().map(Into::into), ..Discovery::of_process() };
    let address = node.address()?;
    probe(&address).map_err(|problem| {
        CommandError::Discovery(DiscoveryError::NoSocket { tried: vec![(address.clone(), problem)] })
    })
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_args_from_text_and_environment() {
        use std::os::unix::ffi::OsStringExt as _;
        let environment = |name: &str| match name {
            "SET" => Some("from-env".into()),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        };
        let given = ["A=1", "B=", "C=x=y", "SET", "UNSET"].map(str::to_owned);
        let args = build_args(&given, environment).unwrap();
        let pairs: Vec<_> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["A=1", "B=", "C=x=y", "SET=from-env"]);
        for bad in ["=x", "", "BYTES"] {
            assert!(build_args(&[bad.to_owned()], environment).is_err());
        }
    }

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB")] {
            assert_eq!(human(bytes), text);
        }
    }
}
