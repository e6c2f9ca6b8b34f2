// SPDX-License-Identifier: Apache-2.0
//! One stage: walks its instructions and carries the image that they describe.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::base::{Bases, ImageLayer};
use super::context::BuildContext;
use super::error::BuildError;
use super::event::{Event, StepId, StepOutcome};
use super::history;
use super::layer_step::PendingLayer;
use super::ports;
use super::session::Session;
use crate::cache::StepRecord;
use crate::diagnostic::Location;
use crate::dockerfile::scope::Scope;
use crate::dockerfile::{Command, Dockerfile, ExpandError, Instruction, InstructionKind, Word};
use crate::image::{ChainId, Descriptor, History, ImageConfig, ImagePath, NameSet, Platform, media_type};
use crate::plan::{Base, Plan, PlannedInstruction, PlannedStage, StageId};

/// What all stages of a build share.
pub(crate) struct Build {
    pub(crate) session: Session,
    pub(crate) dockerfile: Dockerfile,
    pub(crate) plan: Plan,
    pub(crate) bases: Bases,
    pub(crate) context: BuildContext,
    /// Steps get their numbers up front, in the order of the file.
    pub(crate) first_steps: BTreeMap<StageId, usize>,
}

impl Build {
    pub(crate) fn location(&self, span: std::ops::Range<usize>) -> Location {
        self.dockerfile.location(span)
    }
}

/// The results of the stages before, as they become ready. A stage that failed never sends.
pub(crate) type StageResults = BTreeMap<StageId, watch::Receiver<Option<Arc<StageImage>>>>;

/// An image under construction: what FROM gave and every instruction so far has changed.
#[derive(Debug, Clone)]
pub(crate) struct StageImage {
    pub(crate) chain: Option<ChainId>,
    pub(crate) layers: Vec<ImageLayer>,
    pub(crate) config: ImageConfig,
    pub(crate) scope: Scope,
    /// Steps of this build whose results came from the cache; they are checked before the image is given out.
    pub(crate) hits: Vec<StepRecord>,
    cmd_set: bool,
}

impl StageImage {
    /// The working directory that relative paths start from.
    pub(crate) fn workdir(&self) -> ImagePath {
        ImagePath::new(&self.config.config.working_dir)
    }

    /// Adds the layer of a step.
    pub(crate) fn push_layer(&mut self, record: &StepRecord, created_by: String) {
        self.chain = Some(record.chain);
        self.layers.push(ImageLayer {
            descriptor: Descriptor::new(media_type::LAYER, record.diff_id.0, record.size_bytes),
            diff_id: record.diff_id,
        });
        self.config.rootfs.diff_ids.push(record.diff_id);
        let created = timestamp(record.created_s);
        self.config.created = Some(created.clone());
        self.push_history(Some(created), created_by, false);
    }

    /// Adds a step that changed nothing but the config. It has the time of the step before it: an unchanged
    /// Dockerfile must give an unchanged image.
    pub(crate) fn push_metadata(&mut self, created_by: String) {
        let created = self.config.created.get_or_insert_with(|| timestamp(0)).clone();
        self.push_history(Some(created), created_by, true);
    }

    fn push_history(&mut self, created: Option<String>, created_by: String, empty_layer: bool) {
        self.config.history.push(History {
            created,
            created_by,
            comment: history::COMMENT.to_owned(),
            empty_layer,
            ..History::default()
        });
    }

    fn expand(&self, build: &Build, word: &Word) -> Result<String, BuildError> {
        self.scope.expand(word).map_err(|error| expansion(build, error))
    }
}

pub(crate) fn expansion(build: &Build, error: ExpandError) -> BuildError {
    BuildError::Dockerfile(Box::new(error.into_diagnostic(&build.dockerfile.file, &build.dockerfile.source)))
}

/// A moment of the image config: RFC 3339 in UTC.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A stage's walk.
pub(crate) struct StageRun<'b> {
    pub(crate) build: &'b Build,
    pub(crate) planned: &'b PlannedStage,
    pub(crate) results: &'b StageResults,
    pub(crate) image: StageImage,
    /// The newest layer, not yet committed: the next step, or the end of the stage, does that.
    pub(crate) pending: Option<PendingLayer>,
    next_step: usize,
    position: usize,
    total: usize,
}

impl<'b> StageRun<'b> {
    /// Starts from the stage's base.
    pub(crate) async fn start(
        build: &'b Build,
        planned: &'b PlannedStage,
        results: &'b StageResults,
    ) -> Result<Self, BuildError> {
        let image = StageImage {
            chain: None,
            layers: Vec::new(),
            config: ImageConfig::default(),
            scope: Scope::new(
                &[],
                &build.plan.global_args,
                &build.session.request.build_args,
                build.dockerfile.escape,
            ),
            hits: Vec::new(),
            cmd_set: false,
        };
        let total = step_count(planned);
        let first = build.first_steps.get(&planned.id).copied().unwrap_or(1);
        let mut run =
            Self { build, planned, results, image, pending: None, next_step: first, position: 0, total };
        run.image = run.base().await?;
        Ok(run)
    }

    async fn base(&mut self) -> Result<StageImage, BuildError> {
        let build = self.build;
        let scope = |env: &[String]| {
            Scope::new(
                env,
                &build.plan.global_args,
                &build.session.request.build_args,
                build.dockerfile.escape,
            )
        };
        match &self.planned.base {
            Base::Stage(id) => {
                let earlier = self.stage_result(*id).await?;
                Ok(StageImage { cmd_set: false, ..(*earlier).clone() })
            }
            Base::Scratch => {
                let platform = Platform::of_this_node();
                let mut config = ImageConfig {
                    architecture: platform.architecture,
                    os: platform.os,
                    variant: platform.variant,
                    ..ImageConfig::default()
                };
                config.config.working_dir = "/".to_owned();
                config.config.env = vec![format!("PATH={}", crate::dockerfile::scope::DEFAULT_PATH)];
                let scope = scope(&config.config.env);
                Ok(StageImage {
                    chain: None,
                    layers: Vec::new(),
                    config,
                    scope,
                    hits: Vec::new(),
                    cmd_set: false,
                })
            }
            Base::Image(reference, span) => {
                let location = build.location(span.clone());
                let step = self.begin(format!("FROM {}", reference.familiar()));
                let base = build.bases.get(&build.session, reference, &location).await;
                let base = base.map(|base| (StepOutcome::Cached, base));
                self.end(step, &base.as_ref().map(|(outcome, _)| *outcome));
                let (_, base) = base?;
                let mut config = base.config.clone();
                if !config.config.on_build.is_empty() {
                    return Err(BuildError::BaseTriggers {
                        reference: reference.clone(),
                        location: Box::new(location),
                        triggers: config.config.on_build,
                    });
                }
                history::settle(&mut config);
                let has_path = config.config.env.iter().any(|pair| pair.starts_with("PATH="));
                if !has_path {
                    config.config.env.push(format!("PATH={}", crate::dockerfile::scope::DEFAULT_PATH));
                }
                if config.config.working_dir.is_empty() {
                    config.config.working_dir = "/".to_owned();
                }
                let scope = scope(&config.config.env);
                Ok(StageImage {
                    chain: base.chain,
                    layers: base.layers.clone(),
                    config,
                    scope,
                    hits: Vec::new(),
                    cmd_set: false,
                })
            }
        }
    }

    /// Waits for another stage of this build.
    pub(crate) async fn stage_result(&self, id: StageId) -> Result<Arc<StageImage>, BuildError> {
        let Some(results) = self.results.get(&id) else {
            return Err(BuildError::StageUnplanned { stage: id });
        };
        let mut results = results.clone();
        // An error means that the stage has failed; it reports its own failure.
        let ready = async { results.wait_for(Option::is_some).await.map(|ready| ready.clone()) };
        let ready = self.build.session.cancel.unless_raised(ready).await.ok_or(BuildError::Cancelled)?;
        ready.ok().flatten().ok_or(BuildError::DependencyFailed)
    }

    /// Carries out every instruction.
    pub(crate) async fn run(&mut self) -> Result<(), BuildError> {
        let planned = self.planned;
        for instruction in &planned.instructions {
            self.build.session.check_cancelled()?;
            self.instruction(instruction).await?;
        }
        Ok(())
    }

    async fn instruction(&mut self, planned: &PlannedInstruction) -> Result<(), BuildError> {
        let build = self.build;
        let Instruction { kind, span, .. } = &planned.instruction;
        match kind {
            InstructionKind::Run { command } => self.run_step(&planned.instruction, command).await?,
            InstructionKind::Copy(copy) => self.copy_step(planned, copy).await?,
            InstructionKind::Workdir(word) => {
                let path = self.image.expand(build, word)?;
                self.workdir_step(&planned.instruction, &path).await?;
            }
            InstructionKind::Env(pairs) => {
                let pairs = self.image.scope.apply_env(pairs).map_err(|error| expansion(build, error))?;
                self.image.config.config.env =
                    self.image.scope.env().iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.image.push_metadata(history::assignments("ENV", &pairs));
            }
            InstructionKind::Arg(declarations) => {
                let declared =
                    self.image.scope.apply_arg(declarations).map_err(|error| expansion(build, error))?;
                let words: Vec<String> = declared
                    .into_iter()
                    .map(|(name, value)| value.map_or(name.clone(), |value| format!("{name}={value}")))
                    .collect();
                self.image.push_metadata(format!("ARG {}", words.join(" ")));
            }
            InstructionKind::User(word) => {
                let user = self.image.expand(build, word)?;
                self.image.push_metadata(format!("USER {user}"));
                self.image.config.config.user = user;
            }
            InstructionKind::Label(pairs) => {
                let pairs = self.image.scope.expand_pairs(pairs).map_err(|error| expansion(build, error))?;
                self.image.config.config.labels.extend(pairs.iter().cloned());
                self.image.push_metadata(history::assignments("LABEL", &pairs));
            }
            InstructionKind::Expose(words) => {
                let mut expanded = Vec::new();
                for word in words {
                    expanded.extend(
                        self.image.scope.expand_words(word).map_err(|error| expansion(build, error))?,
                    );
                }
                let ports = ports::exposed_ports(&expanded).map_err(|source| BuildError::Port {
                    location: Box::new(build.location(span.clone())),
                    source,
                })?;
                self.image.push_metadata(history::expose(&ports));
                let NameSet(exposed) = &mut self.image.config.config.exposed_ports;
                exposed.extend(ports);
            }
            InstructionKind::Cmd(command) => {
                let argv = shell_or_exec(&self.image.config.config.shell, command);
                self.image.push_metadata(history::argv("CMD", &argv));
                self.image.config.config.args_escaped = true;
                self.image.config.config.cmd = argv;
                self.image.cmd_set = true;
            }
            InstructionKind::Entrypoint(command) => {
                let argv = shell_or_exec(&self.image.config.config.shell, command);
                self.image.push_metadata(history::argv("ENTRYPOINT", &argv));
                self.image.config.config.entrypoint = argv;
                if !self.image.cmd_set {
                    // An inherited CMD was meant for the inherited ENTRYPOINT.
                    self.image.config.config.cmd.clear();
                }
            }
        }
        Ok(())
    }

    /// Tells that a step begins; `title` follows the stage's name and the step's place in it.
    pub(crate) fn begin(&mut self, title: String) -> (StepId, Instant) {
        let step = StepId(self.next_step);
        self.next_step += 1;
        self.position += 1;
        let name = match &self.planned.name {
            Some(name) => format!("{name} "),
            None if self.build.plan.stages.len() > 1 => format!("stage-{} ", self.planned.id),
            None => String::new(),
        };
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        let title = format!("[{name}{}/{}] {title}", self.position, self.total);
        self.build.session.events.send(Event::StepStarted { step, title });
        (step, Instant::now())
    }

    /// Tells that a step ended, and how.
    pub(crate) fn end<E: Borrow<BuildError>>(
        &self,
        (step, since): (StepId, Instant),
        done: &Result<StepOutcome, E>,
    ) {
        let outcome = match done {
            Ok(outcome) => *outcome,
            Err(error) => match error.borrow() {
                BuildError::Cancelled | BuildError::DependencyFailed => StepOutcome::Cancelled,
                _ => StepOutcome::Failed,
            },
        };
        self.build.session.events.send(Event::StepEnded { step, outcome, took: since.elapsed() });
    }
}

/// The steps of a stage that are shown: those that can take time.
pub(crate) fn step_count(stage: &PlannedStage) -> usize {
    let from = usize::from(matches!(stage.base, Base::Image(..)));
    let layers = stage.instructions.iter().filter(|planned| {
        matches!(
            planned.instruction.kind,
            InstructionKind::Run { .. } | InstructionKind::Copy(_) | InstructionKind::Workdir(_)
        )
    });
    from + layers.count()
}

/// The argument list of a command; a text goes to `shell`, or to `/bin/sh -c` when the image names none.
pub(crate) fn shell_or_exec(shell: &[String], command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) if shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
        Command::Shell(text) => shell.iter().chain([text]).cloned().collect(),
        Command::Exec(argv) => argv.clone(),
    }
}
