// SPDX-License-Identifier: Apache-2.0
//! RUN: a command under runc on a writable overlay, and the layer of what it left.

use std::collections::VecDeque;
use std::io::Read as _;

use super::error::{BuildError, StepFailure};
use super::event::{Event, OutputStream, StepId, StepOutcome};
use super::layer_step::join;
use super::stage::StageRun;
use crate::cache::KeyBuilder;
use crate::diagnostic::Location;
use crate::dockerfile::{Command, Instruction};
use crate::image::{ImagePath, Platform};
use crate::layer::{View, diff, normalise};
use crate::sandbox::executor::{NetworkChoice, Step};
use crate::sandbox::output::{OutputChunk, Stream};
use crate::sandbox::overlay;
use crate::sandbox::runc::Outcome;
use crate::sandbox::user::{ResolvedUser, UserError, resolve_user as resolve};

/// Bytes of a failed command's output that its error repeats.
const TAIL_BYTES: usize = 4096;

impl StageRun<'_> {
    pub(crate) async fn run_step(
        &mut self,
        instruction: &Instruction,
        command: &Command,
    ) -> Result<(), BuildError> {
        let step = self.begin(instruction.original.clone());
        let done = self
            .execute_or_hit(instruction, command, step.0)
            .await
            .map_err(|error| error.in_instruction(&self.build.location(instruction.span.clone())));
        self.end(step, &done);
        done.map(drop)
    }

    async fn execute_or_hit(
        &mut self,
        instruction: &Instruction,
        command: &Command,
        step: StepId,
    ) -> Result<StepOutcome, BuildError> {
        let argv = self.shell_or_exec(command);
        let env = self.image.scope.run_env();
        let args = self.image.scope.history_args();
        let created_by = super::history::run(&args, &argv);
        let pairs: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let user = self.image.config.config.user.clone();
        let cwd = self.image.workdir();
        let key = KeyBuilder::new("run", self.image.chain)
            .list("argv", &argv)
            .list("env", &pairs)
            .field("cwd", cwd.to_os_string().as_encoded_bytes())
            .field("user", &user)
            .field("platform", Platform::of_this_node().to_string())
            .finish();
        if let Some(record) = self.look_up(&[key]).await? {
            self.take_hit(key, record, created_by).await?;
            return Ok(StepOutcome::Cached);
        }
        let snapshot = self.prepare().await?;
        let session = &self.build.session;
        let location = || Box::new(self.build.location(instruction.span.clone()));
        let scratch = session.scratch().await?;
        let work = snapshot.dirs.work.clone();
        let root = overlay::mount_root(
            &scratch,
            &snapshot.dirs.lower,
            snapshot.upper()?,
            work.as_deref().unwrap_or(snapshot.upper()?),
        )?;
        let inside = View::new(root.fd())?;
        let owner = resolve_user(&inside, &user, location)?;
        make_directory(&root, &inside, &cwd, &owner)?;
        drop(inside);

        let mut process_env = pairs;
        process_env
            .extend(self.image.scope.proxy_env().into_iter().map(|(name, value)| format!("{name}={value}")));
        let exit = self.execute(&root, step, argv.clone(), process_env, cwd, owner).await;
        root.unmount()?;
        let (exit, tail) = exit?;
        match exit {
            Outcome::Exited { code: 0 } => {}
            Outcome::Exited { code } => {
                return Err(BuildError::Step(Box::new(StepFailure {
                    location: *location(),
                    argv,
                    code,
                    tail,
                })));
            }
            Outcome::Cancelled => return Err(BuildError::Cancelled),
        }

        let parents = session.view(&snapshot.dirs.lower).await?;
        let upper = snapshot.open_upper()?;
        let layer = self
            .write_layer(upper, &parents, |upper, view, sink| {
                use rustix::fd::AsFd as _;
                normalise(upper.as_fd(), view)?;
                diff(upper.as_fd(), view, sink)
            })
            .await?;
        self.take_layer(snapshot, layer, vec![key], created_by);
        Ok(StepOutcome::Executed)
    }

    fn shell_or_exec(&self, command: &Command) -> Vec<String> {
        super::stage::shell_or_exec(&self.image.config.config.shell, command)
    }

    /// Runs the command and passes its output on; returns how it ended and the last it wrote.
    async fn execute(
        &self,
        root: &overlay::MountedRoot,
        step: StepId,
        argv: Vec<String>,
        env: Vec<String>,
        cwd: ImagePath,
        user: ResolvedUser,
    ) -> Result<(Outcome, String), BuildError> {
        let session = &self.build.session;
        let (sender, mut output) = tokio::sync::mpsc::channel::<OutputChunk>(64);
        let events = session.events.clone();
        let forward = tokio::spawn(async move {
            let mut tail = VecDeque::new();
            while let Some(OutputChunk { stream, bytes }) = output.recv().await {
                tail.extend(&bytes);
                let excess = tail.len().saturating_sub(TAIL_BYTES);
                tail.drain(..excess);
                let stream = match stream {
                    Stream::Stdout => OutputStream::Stdout,
                    Stream::Stderr => OutputStream::Stderr,
                };
                events.send(Event::StepOutput { step, stream, bytes: bytes.into() });
            }
            tail
        });
        let sandbox = session.sandbox().await?;
        let command = Step {
            name: step.0.to_string(),
            argv,
            env,
            cwd,
            user,
            hostname: None,
            network: NetworkChoice::Default,
            extra_hosts: Vec::new(),
            mounts: Vec::new(),
        };
        let cancel = session.cancel.clone();
        let exit = sandbox.run(root, &command, sender, async move { cancel.raised().await }).await;
        if let Some(notice) = sandbox.take_notice() {
            session.events.notice(notice);
        }
        let tail = join(forward.await)?;
        Ok((exit?, String::from_utf8_lossy(&Vec::from(tail)).into_owned()))
    }
}

/// The ids behind the text of USER in the image's own passwd and group files; an empty text is root.
pub(crate) fn resolve_user(
    view: &View,
    user: &str,
    location: impl FnOnce() -> Box<Location>,
) -> Result<ResolvedUser, BuildError> {
    if user.is_empty() {
        return Ok(ResolvedUser::root());
    }
    let passwd = read_account_file(view, "/etc/passwd")?;
    let group = read_account_file(view, "/etc/group")?;
    resolve(user, &passwd, &group).map_err(|source: UserError| BuildError::User {
        location: location(),
        user: user.to_owned(),
        source,
    })
}

/// An account file of the image; empty when there is none.
fn read_account_file(view: &View, path: &str) -> Result<Vec<u8>, BuildError> {
    let path = view.resolve(&ImagePath::new(path), true)?;
    if view.lstat(&path)?.is_none() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    view.open(&path)?
        .read_to_end(&mut bytes)
        .map_err(|source| BuildError::ReadInImage { path: path.clone(), source })?;
    Ok(bytes)
}

/// A working directory that the image lacks is made, as BuildKit does, and belongs to the step's user.
fn make_directory(
    root: &overlay::MountedRoot,
    inside: &View,
    path: &ImagePath,
    owner: &ResolvedUser,
) -> Result<(), BuildError> {
    use rustix::fs::{AtFlags, Gid, Mode, Uid};
    let failed =
        |source: rustix::io::Errno| BuildError::MakeInImage { path: path.clone(), source: source.into() };
    let resolved = inside.resolve(path, true)?;
    for directory in resolved.ancestors().into_iter().chain([resolved]) {
        if directory.is_root() || inside.lstat(&directory)?.is_some() {
            continue;
        }
        rustix::fs::mkdirat(root.fd(), directory.relative(), Mode::from_raw_mode(0o755)).map_err(failed)?;
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        rustix::fs::chownat(root.fd(), directory.relative(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed)?;
    }
    Ok(())
}
