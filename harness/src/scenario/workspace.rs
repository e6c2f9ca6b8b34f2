// SPDX-License-Identifier: Apache-2.0
//! Lays out a scenario's build context on disk and changes it between builds.
//!
//! The folder belongs to the harness alone, and its paths come from [`ContextPath`]s, which cannot leave it. Symbolic
//! links in the context are made, never followed.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::{
    BuildStep, Context, ContextFile, ContextPath, Dockerfile, FileContent, Mutation, Scenario, Substitutions,
};

/// Why a build context could not be laid out or changed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path} in the build context", path = path.display())]
pub struct WorkspaceError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// What it was tried on.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// The folder in which one scenario's builds take place: `context/` and, beside it, the Dockerfiles.
#[derive(Debug)]
pub struct Workspace {
    folder: PathBuf,
    substitutions: Substitutions,
}

impl Workspace {
    /// Lays the scenario's context out below `folder`, which must exist and be empty. `scenarios` is the folder that
    /// holds `contexts/`.
    ///
    /// # Errors
    /// The first operation that the system refused.
    pub fn lay_out(
        scenario: &Scenario,
        scenarios: &Path,
        folder: &Path,
        substitutions: Substitutions,
    ) -> Result<Self, WorkspaceError> {
        let workspace = Self { folder: folder.to_owned(), substitutions };
        let context = workspace.context();
        fs::create_dir(&context).map_err(failed("make", &context))?;
        set_mode(&context, 0o755)?;
        let Context { directory, files } = &scenario.context;
        if let Some(directory) = directory {
            copy_tree(&scenarios.join(directory.as_str()), &context)?;
        }
        for file in files {
            workspace.write(file)?;
        }
        Ok(workspace)
    }

    /// The build context's folder.
    pub fn context(&self) -> PathBuf {
        self.folder.join("context")
    }

    /// What stands for the placeholders.
    pub fn substitutions(&self) -> &Substitutions {
        &self.substitutions
    }

    /// From now on `{nonce}` stands for this.
    pub fn set_nonce(&mut self, nonce: impl Into<String>) {
        self.substitutions.nonce = Some(nonce.into());
    }

    /// The path of the Dockerfile of one build; a text is written out first.
    ///
    /// # Errors
    /// When the text cannot be written.
    pub fn dockerfile(&self, scenario: &Scenario, build: &BuildStep) -> Result<PathBuf, WorkspaceError> {
        match build.dockerfile.as_ref().unwrap_or(&scenario.dockerfile) {
            Dockerfile::Path(path) => Ok(self.context().join(path.as_str())),
            Dockerfile::Text(text) => {
                let path = self.folder.join("Dockerfile");
                fs::write(&path, self.substitutions.apply(text)).map_err(failed("write", &path))?;
                Ok(path)
            }
        }
    }

    /// Carries out changes of the context, in order.
    ///
    /// # Errors
    /// The first operation that the system refused, such as removing what is not there.
    pub fn mutate(&self, mutations: &[Mutation]) -> Result<(), WorkspaceError> {
        for mutation in mutations {
            match mutation {
                Mutation::Write(file) => {
                    let path = self.path(&file.path);
                    if path.symlink_metadata().is_ok() {
                        remove(&path)?;
                    }
                    self.write(file)?;
                }
                Mutation::Delete { path } => remove(&self.path(path))?,
                Mutation::Touch { path, mtime_s } => set_mtime(&self.path(path), *mtime_s)?,
                Mutation::Chmod { path, mode } => set_mode(&self.path(path), mode.bits())?,
            }
        }
        Ok(())
    }

    fn path(&self, path: &ContextPath) -> PathBuf {
        self.context().join(path.as_str())
    }

    fn write(&self, file: &ContextFile) -> Result<(), WorkspaceError> {
        let path = self.path(&file.path);
        self.make_parents(&path)?;
        let mode = match &file.content {
            FileContent::Bytes(bytes) => {
                let bytes = match std::str::from_utf8(bytes) {
                    Ok(text) => self.substitutions.apply(text).into_bytes(),
                    Err(_) => bytes.clone(),
                };
                fs::write(&path, bytes).map_err(failed("write", &path))?;
                Some(0o644)
            }
            FileContent::Random(random) => {
                fs::write(&path, random.bytes()).map_err(failed("write", &path))?;
                Some(0o644)
            }
            FileContent::Symlink(target) => {
                symlink(target, &path).map_err(failed("link", &path))?;
                None
            }
            FileContent::Directory => {
                if !path.is_dir() {
                    fs::create_dir(&path).map_err(failed("make", &path))?;
                }
                Some(0o755)
            }
        };
        if file.uid.is_some() || file.gid.is_some() {
            lchown(&path, file.uid, file.gid).map_err(failed("change the owner of", &path))?;
        }
        // After the owner, because the kernel drops setuid and setgid when the owner changes.
        if let Some(default) = mode {
            set_mode(&path, file.mode.map_or(default, super::Mode::bits))?;
        }
        match file.mtime_s {
            Some(seconds) => set_mtime(&path, seconds),
            None => Ok(()),
        }
    }

    /// Makes missing parents with mode 0755, whatever the umask is.
    fn make_parents(&self, path: &Path) -> Result<(), WorkspaceError> {
        let context = self.context();
        let missing: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| *parent != context && parent.symlink_metadata().is_err())
            .collect();
        for parent in missing.into_iter().rev() {
            fs::create_dir(parent).map_err(failed("make", parent))?;
            set_mode(parent, 0o755)?;
        }
        Ok(())
    }
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> WorkspaceError + use<'a> {
    move |source| WorkspaceError { operation, path: path.to_owned(), source }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), WorkspaceError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("change the mode of", path))
}

fn set_mtime(path: &Path, seconds: i64) -> Result<(), WorkspaceError> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("change the time of", path)(errno.into()))
}

fn remove(path: &Path) -> Result<(), WorkspaceError> {
    let kind = path.symlink_metadata().map_err(failed("remove", path))?.file_type();
    if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .map_err(failed("remove", path))
}

/// Copies the entries of one folder into another that exists: files with their modes, links as links.
fn copy_tree(from: &Path, to: &Path) -> Result<(), WorkspaceError> {
    for entry in fs::read_dir(from).map_err(failed("list", from))? {
        let entry = entry.map_err(failed("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("copy", &source))?;
        if kind.is_dir() {
            fs::create_dir(&target).map_err(failed("make", &target))?;
            copy_tree(&source, &target)?;
            let mode = entry.metadata().map_err(failed("copy", &source))?.permissions().mode();
            set_mode(&target, mode & 0o7777)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(failed("copy", &source))?;
            symlink(link, &target).map_err(failed("link", &target))?;
        } else {
            fs::copy(&source, &target).map_err(failed("copy", &source))?;
        }
    }
    Ok(())
}
