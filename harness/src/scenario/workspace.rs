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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::document;

    fn scenario(context: &str) -> Scenario {
        let text = format!(
            "{{api_version: shakedown/v1, kind: Scenario, id: a/b, title: t, spec: s, level: must, \
             dockerfile: {{text: \"FROM {{base}}\"}}, steps: [{{build: {{}}}}], context: {context}}}"
        );
        document::parse(Path::new("a/b.yaml"), &text).unwrap_or_else(|error| panic!("{}", error.render()))
    }

    fn mutations(text: &str) -> Vec<Mutation> {
        document::parse(Path::new("m.yaml"), text).unwrap_or_else(|error| panic!("{}", error.render()))
    }

    #[test]
    fn a_context_is_laid_out_over_a_folder_and_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let scenarios = folder.path().join("scenarios");
        fs::create_dir_all(scenarios.join("contexts/app/sub")).expect("folders");
        fs::write(scenarios.join("contexts/app/sub/kept"), "kept").expect("a file");
        fs::write(scenarios.join("contexts/app/replaced"), "old").expect("a file");
        set_mode(&scenarios.join("contexts/app/sub/kept"), 0o750).expect("a mode");
        symlink("sub/kept", scenarios.join("contexts/app/link")).expect("a link");
        let scenario = scenario(
            "{directory: contexts/app, files: [{path: replaced, text: \"{nonce} {base}\"}, \
             {path: deep/er/file, base64: AP8=, mode: \"4711\", mtime_s: 7}, {path: empty, directory: true}, \
             {path: dangling, symlink: no/where}, {path: noise, random_bytes: {size_bytes: 9, seed: 1}}]}",
        );
        let work = folder.path().join("work");
        fs::create_dir(&work).expect("a folder");
        let substitutions = Substitutions { base: "b:1".to_owned(), ..Substitutions::default() };
        let mut workspace =
            Workspace::lay_out(&scenario, &scenarios, &work, substitutions).expect("a context");
        let at = |path: &str| work.join("context").join(path);
        assert_eq!(fs::read_to_string(at("replaced")).expect("a file"), "{nonce} b:1");
        assert_eq!(fs::read(at("deep/er/file")).expect("a file"), [0, 255]);
        let file = at("deep/er/file").metadata().expect("a file");
        assert_eq!((file.mode() & 0o7777, file.mtime()), (0o4711, 7));
        assert_eq!(at("deep").metadata().expect("a folder").mode() & 0o7777, 0o755);
        assert_eq!(at("sub/kept").metadata().expect("a file").mode() & 0o7777, 0o750);
        assert_eq!(fs::read_link(at("link")).expect("a link"), Path::new("sub/kept"));
        assert_eq!(fs::read_link(at("dangling")).expect("a link"), Path::new("no/where"));
        assert_eq!(at("noise").metadata().expect("a file").len(), 9);
        let build = scenario.builds().next().expect("a build");
        let dockerfile = workspace.dockerfile(&scenario, build).expect("a Dockerfile");
        assert_eq!(dockerfile, work.join("Dockerfile"));
        assert_eq!(fs::read_to_string(dockerfile).expect("a Dockerfile"), "FROM b:1");

        workspace.set_nonce("42");
        workspace
            .mutate(&mutations(
                "[{write: {path: link, text: \"{nonce}\"}}, {delete: {path: deep}}, \
                 {touch: {path: dangling, mtime_s: 5}}, {chmod: {path: replaced, mode: \"600\"}}]",
            ))
            .expect("changes");
        // The link was replaced, not written through.
        assert_eq!(fs::read_to_string(at("link")).expect("a file"), "42");
        assert_eq!(fs::read_to_string(at("sub/kept")).expect("a file"), "kept");
        assert!(!at("deep").exists());
        assert_eq!(at("dangling").symlink_metadata().expect("a link").mtime(), 5);
        assert_eq!(at("replaced").metadata().expect("a file").mode() & 0o7777, 0o600);
        let error = workspace.mutate(&mutations("[{delete: {path: deep}}]")).expect_err("it is gone");
        assert_eq!(error.to_string(), format!("remove {} in the build context", at("deep").display()));
    }
}
