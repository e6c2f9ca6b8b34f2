// SPDX-License-Identifier: Apache-2.0
//! One build from request to image: plan, stages side by side, finish, upkeep.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::base::Bases;
use super::cancel::{Cancel, CancelHandle};
use super::collect;
use super::context::BuildContext;
use super::error::BuildError;
use super::event::{Event, EventSink};
use super::finish::{BuiltImage, finish};
use super::layer_step::join;
use super::prune::Upkeep;
use super::request::BuildRequest;
use super::session::{NodePaths, Session};
use super::stage::{Build, StageImage, StageResults, StageRun, step_count};
use crate::cache::{BuildResult, CacheLock, ResultLog};
use crate::context::{ContextError, DockerfileSource};
use crate::dockerfile::{self, Dockerfile};
use crate::image::Platform;
use crate::plan::{Plan, PlanRequest, StageId, plan};
use crate::store::Store;

/// How often a build starts over because something turned out to be gone that was not a cached result.
const ATTEMPTS: usize = 3;
/// Between two tries to get hold of a cache that is being pruned.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Builds what `request` asks for.
///
/// # Errors
/// [`BuildError`]; nothing of the build is left behind then but finished steps in the cache.
pub async fn build(
    request: BuildRequest,
    store: &Store,
    paths: &NodePaths,
    events: &EventSink,
    cancel: &Cancel,
) -> Result<BuiltImage, BuildError> {
    check_context(&request.context)?;
    let source = DockerfileSource::load(&request.context, request.dockerfile.as_deref())?;
    let dockerfile = dockerfile::parse(&source.path.display().to_string(), &source.text)
        .map_err(BuildError::Dockerfile)?;
    for notice in &dockerfile.notices {
        events.notice(notice.to_string());
    }
    let plan = plan(
        &dockerfile,
        &PlanRequest {
            target: request.target.clone(),
            build_args: request.build_args.clone(),
            platform_args: platform_args(),
        },
    )
    .map_err(BuildError::Dockerfile)?;
    if !plan.unused_build_args.is_empty() {
        events
            .notice(format!("no ARG asks for these build arguments: {}", plan.unused_build_args.join(", ")));
    }

    let in_use = lock_cache(paths, events, cancel).await?;
    store.ensure_namespace().await?;
    let look_again = collect::collect(store, paths, events).await?;
    let upkeep = Upkeep { store, state: &paths.state };
    upkeep.restore_index().await?;

    let mut attempts = 0;
    loop {
        attempts += 1;
        let context =
            BuildContext::new(request.context.clone(), source.path.clone(), paths.state.root().to_owned());
        let (stop, cancel) = cancel.inner();
        let session = Session::new(request.clone(), store.clone(), paths.clone(), events.clone(), cancel)?;
        match attempt(session, stop, dockerfile.clone(), plan.clone(), context).await {
            Err(BuildError::Stale { hits }) => {
                // Every record that goes is progress; without any a few more tries are all that makes sense.
                if forget_stale(store, paths, &hits).await? == 0 && attempts >= ATTEMPTS {
                    return Err(BuildError::Stale { hits });
                }
                events.notice("cached steps are gone from containerd; building them again");
            }
            Ok(done) => {
                if look_again {
                    collect::collect(store, paths, events).await?;
                }
                drop(in_use);
                if done.is_new {
                    let limits = request.cache_limits;
                    let name = request.name.to_string();
                    // The image is there and has its name; what the cache holds too much goes with the next build.
                    if let Err(error) = upkeep.after_build(&name, limits, done.snapshots.as_deref()).await {
                        events.notice(format!("the cache could not be trimmed: {error}"));
                    }
                }
                events.send(Event::Finished {
                    name: request.name.to_string(),
                    image_id: done.image.image_id,
                    manifest: done.image.manifest,
                    visible: done.image.visible,
                });
                return Ok(done.image);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A context that is not there is told as that, not as a missing Dockerfile.
fn check_context(path: &Path) -> Result<(), ContextError> {
    let found = std::fs::metadata(path).and_then(|metadata| {
        if metadata.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    });
    found.map_err(|source| ContextError::OpenTree { path: path.to_owned(), source })
}

/// Says that this build uses the cache, once nobody prunes it.
async fn lock_cache(paths: &NodePaths, events: &EventSink, cancel: &Cancel) -> Result<CacheLock, BuildError> {
    if let Some(lock) = paths.state.try_lock_shared()? {
        return Ok(lock);
    }
    events.notice("waiting for the cache: it is being pruned");
    let locked = async {
        loop {
            tokio::time::sleep(LOCK_PAUSE).await;
            if let Some(lock) = paths.state.try_lock_shared()? {
                return Ok(lock);
            }
        }
    };
    cancel.unless_raised(locked).await.unwrap_or(Err(BuildError::Cancelled))
}

/// A successful attempt.
struct Done {
    image: BuiltImage,
    /// Whether it led to something else than the build before it.
    is_new: bool,
    /// A place on the file system of the snapshots, if any was touched.
    snapshots: Option<std::path::PathBuf>,
}

async fn attempt(
    session: Session,
    stop: CancelHandle,
    dockerfile: Dockerfile,
    plan: Plan,
    context: BuildContext,
) -> Result<Done, BuildError> {
    let mut first_steps = BTreeMap::new();
    let mut next = 1;
    for stage in &plan.stages {
        first_steps.insert(stage.id, next);
        next += step_count(stage);
    }
    let build = Arc::new(Build { session, dockerfile, plan, bases: Bases::default(), context, first_steps });
    let outcome = run_stages(&build, &stop).await;
    if let Err(error) = build.context.save() {
        build.session.events.notice(format!("the next build reads the whole context again: {error}"));
    }
    let closed = build.session.close().await;
    let manifest = outcome.as_ref().ok().map(|image| image.manifest);
    let result =
        BuildResult::new(build.session.request.name.to_string(), manifest, build.session.used_chains());
    let worth_recording = outcome.is_ok() || !result.chains.is_empty();
    let recorded = if worth_recording {
        ResultLog::new(build.session.paths.state.results()).record(result)
    } else {
        Ok(false)
    };
    // The build's own failure is the one to tell.
    let image = outcome?;
    closed?;
    Ok(Done { image, is_new: recorded?, snapshots: build.session.snapshot_path() })
}

/// Runs every stage as a task of its own, each waiting for those it needs. The first failure stops them all.
async fn run_stages(build: &Arc<Build>, stop: &CancelHandle) -> Result<BuiltImage, BuildError> {
    let mut senders = BTreeMap::new();
    let mut results = StageResults::new();
    for stage in &build.plan.stages {
        let (sender, receiver) = watch::channel(None);
        senders.insert(stage.id, sender);
        results.insert(stage.id, receiver);
    }
    let results = Arc::new(results);
    let mut tasks = JoinSet::new();
    for (id, sender) in senders {
        tasks.spawn(run_stage(build.clone(), results.clone(), id, sender));
    }
    let mut image = None;
    let mut failure: Option<BuildError> = None;
    while let Some(ended) = tasks.join_next().await {
        let error = match join(ended)? {
            Ok(built) => {
                image = image.or(built);
                continue;
            }
            // What breaks while the user ends the build breaks because of that.
            Err(_) if failure.is_none() && build.session.cancel.is_raised() => BuildError::Cancelled,
            Err(error) => error,
        };
        // Whoever waits for a failed stage only says so; the stage itself says why.
        if !matches!(error, BuildError::DependencyFailed) {
            stop.raise();
        }
        if failure.as_ref().is_none_or(|first| weight(first) < weight(&error)) {
            failure = Some(error);
        }
    }
    match (failure, image) {
        (Some(error), _) => Err(error),
        (None, Some(image)) => Ok(image),
        (None, None) => Err(BuildError::StageUnplanned { stage: build.plan.target }),
    }
}

/// How much a stage's failure tells about the build's. Of equal ones the first counts.
fn weight(error: &BuildError) -> u8 {
    match error {
        BuildError::DependencyFailed => 0,
        BuildError::Cancelled => 1,
        _ => 2,
    }
}

async fn run_stage(
    build: Arc<Build>,
    results: Arc<StageResults>,
    id: StageId,
    sender: watch::Sender<Option<Arc<StageImage>>>,
) -> Result<Option<BuiltImage>, BuildError> {
    let planned = build.plan.stage(id).ok_or(BuildError::StageUnplanned { stage: id })?;
    let mut run = StageRun::start(&build, planned, &results).await?;
    let done = async {
        run.run().await?;
        if id == build.plan.target {
            return finish(&mut run).await.map(Some);
        }
        run.settle().await?;
        Ok(None)
    }
    .await;
    match done {
        Ok(None) => {
            sender.send_replace(Some(Arc::new(run.image)));
        }
        Ok(Some(_)) => {}
        Err(_) => run.keep_finished().await,
    }
    done
}

/// Drops the records of hits whose snapshot or blob is gone, and says how many there were.
async fn forget_stale(
    store: &Store,
    paths: &NodePaths,
    hits: &[(crate::cache::StepKey, crate::cache::StepRecord)],
) -> Result<usize, BuildError> {
    let index = crate::cache::StepIndex::new(paths.state.steps());
    let mut gone = 0;
    for (key, record) in hits {
        let present = store.snapshot(&record.chain.to_string()).await?.is_some()
            && store.content_info(record.diff_id.0).await?.is_some();
        if !present {
            index.remove(*key)?;
            gone += 1;
        }
    }
    Ok(gone)
}

/// The platform arguments of a build for this node.
fn platform_args() -> BTreeMap<String, String> {
    let platform = Platform::of_this_node();
    let mut args = BTreeMap::new();
    for side in ["BUILD", "TARGET"] {
        args.insert(format!("{side}PLATFORM"), platform.to_string());
        args.insert(format!("{side}OS"), platform.os.clone());
        args.insert(format!("{side}ARCH"), platform.architecture.clone());
        args.insert(format!("{side}VARIANT"), platform.variant.clone());
    }
    args
}
