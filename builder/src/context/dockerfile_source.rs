// SPDX-License-Identifier: Apache-2.0
//! Finds and reads the Dockerfile of a build.
//!
//! `-f FILE` is relative to the current directory, as for the Docker CLI. Without it the context is searched. The
//! Dockerfile may be a link, may lie outside of the context, and is read whether or not an ignore file hides it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::ContextError;

/// The most that is read of a Dockerfile.
pub const DOCKERFILE_LIMIT_BYTES: u64 = 1024 * 1024;

/// What is looked for in a context, in this order. BuildKit knows the first two, Podman and nerdctl the last.
const DEFAULT_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileSource {
    /// Where it is, as it should be shown; an ignore file may lie beside it.
    pub path: PathBuf,
    /// Its text, as it is: a byte order mark is still there.
    pub text: String,
}

impl DockerfileSource {
    /// Reads `file`, or the Dockerfile of the context when there is none.
    ///
    /// # Errors
    /// The variants of [`ContextError`] that speak of a Dockerfile.
    pub fn load(context_root: &Path, file: Option<&Path>) -> Result<Self, ContextError> {
        let candidates = match file {
            // BuildKit takes the lower-case name also for a file that was named (moby/moby#10858).
            Some(file) if file.file_name().is_some_and(|name| name == DEFAULT_NAMES[0]) => {
                vec![file.to_owned(), file.with_file_name(DEFAULT_NAMES[1])]
            }
            Some(file) => vec![file.to_owned()],
            None => DEFAULT_NAMES.iter().map(|name| context_root.join(name)).collect(),
        };
        for path in &candidates {
            let failed = |source| ContextError::ReadDockerfile { path: path.clone(), source };
            // Opened without waiting, should it be a pipe.
            let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
            match opened {
                Ok(file) => return Ok(Self { path: path.clone(), text: read(file, path)? }),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let path = candidates.into_iter().next().unwrap_or_default();
        Err(ContextError::DockerfileMissing { path, similar: similar(context_root) })
    }
}

fn read(file: File, path: &Path) -> Result<String, ContextError> {
    let path = || path.to_owned();
    let failed = |source| ContextError::ReadDockerfile { path: path(), source };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(ContextError::DockerfileIsDirectory { path: path() });
    }
    if !metadata.is_file() {
        return Err(ContextError::DockerfileNotRegular { path: path() });
    }
    let mut bytes = Vec::new();
    file.take(DOCKERFILE_LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        return Err(ContextError::DockerfileTooLarge { path: path(), limit_bytes: DOCKERFILE_LIMIT_BYTES });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        ContextError::DockerfileNotUtf8 { path: path(), line }
    })
}

/// Files in the root of the context that look as if they were Dockerfiles. A context that cannot be read has none: the
/// error that is being reported is another one.
fn similar(context_root: &Path) -> Vec<PathBuf> {
    let looks_alike = |name: &str| {
        let name = name.to_lowercase();
        let is_ignore_file = name.ends_with(".dockerignore");
        !is_ignore_file && (name.contains("dockerfile") || name.contains("containerfile"))
    };
    let mut names: Vec<PathBuf> = std::fs::read_dir(context_root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(looks_alike))
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().into())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("temp dir");
        for (name, contents) in files {
            std::fs::write(directory.path().join(name), contents).expect("write");
        }
        directory
    }

    #[test]
    fn the_defaults_have_an_order() {
        for (files, found) in [
            (&[("Dockerfile", &b"1"[..]), ("dockerfile", b"2"), ("Containerfile", b"3")][..], "1"),
            (&[("dockerfile", b"2"), ("Containerfile", b"3")], "2"),
            (&[("Containerfile", b"3")], "3"),
        ] {
            let context = context(files);
            let source = DockerfileSource::load(context.path(), None).expect("loads");
            assert_eq!(source.text, found);
        }
    }

    #[test]
    fn a_named_file_is_taken_from_anywhere() {
        let (context, elsewhere) = (context(&[("Dockerfile", b"no")]), context(&[("app.df", b"yes")]));
        let named = elsewhere.path().join("app.df");
        let source = DockerfileSource::load(context.path(), Some(&named)).expect("loads");
        assert_eq!(source, DockerfileSource { path: named, text: "yes".to_owned() });
        std::os::unix::fs::symlink("app.df", elsewhere.path().join("link")).expect("symlink");
        let source = DockerfileSource::load(context.path(), Some(&elsewhere.path().join("link")));
        assert_eq!(source.expect("links are followed").text, "yes");
        std::fs::write(elsewhere.path().join("dockerfile"), "lower").expect("write");
        let source = DockerfileSource::load(context.path(), Some(&elsewhere.path().join("Dockerfile")));
        assert_eq!(source.expect("lower case").text, "lower");
    }

    #[test]
    fn a_missing_one_names_its_likes() {
        let context = context(&[
            ("Dockerfile.prod", b""),
            ("dev.dockerfile", b""),
            ("Dockerfile.prod.dockerignore", b""),
            ("main.rs", b""),
        ]);
        std::fs::create_dir(context.path().join("dockerfiles")).expect("mkdir");
        let error = DockerfileSource::load(context.path(), None).expect_err("missing");
        let path = context.path().join("Dockerfile");
        assert_eq!(error.to_string(), format!("read Dockerfile {}: no such file", path.display()));
        assert_eq!(
            error.help().as_deref(),
            Some("The context holds Dockerfile.prod, dev.dockerfile; name one of them with -f.")
        );
        let empty = self::context(&[]);
        let error = DockerfileSource::load(empty.path(), None).expect_err("missing");
        assert!(error.help().is_some_and(|help| help.starts_with("Name the Dockerfile with -f")));
    }

    #[test]
    fn what_cannot_be_a_dockerfile() {
        let context = context(&[("binary", b"FROM a\n\xff\n")]);
        let load = |name: &str| {
            let path = context.path().join(name);
            let error = DockerfileSource::load(context.path(), Some(&path)).expect_err(name).to_string();
            error.replace(path.to_str().expect("UTF-8"), "FILE")
        };
        assert_eq!(load("binary"), "read Dockerfile FILE: line 2 is not UTF-8");
        std::fs::create_dir(context.path().join("directory")).expect("mkdir");
        assert_eq!(load("directory"), "read Dockerfile FILE: it is a directory");
        let fifo = context.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("fifo");
        assert_eq!(load("fifo"), "read Dockerfile FILE: it is not a regular file");
        let large = vec![b'\n'; DOCKERFILE_LIMIT_BYTES as usize];
        std::fs::write(context.path().join("large"), &large).expect("write");
        let fits = DockerfileSource::load(context.path(), Some(&context.path().join("large")));
        assert_eq!(fits.expect("exactly the limit").text.len(), large.len());
        std::fs::write(context.path().join("large"), [large.as_slice(), b"x"].concat()).expect("write");
        assert_eq!(load("large"), "read Dockerfile FILE: it has more than 1048576 bytes");
        let absent = context.path().join("binary/x");
        assert!(matches!(
            DockerfileSource::load(context.path(), Some(&absent)),
            Err(ContextError::DockerfileMissing { .. })
        ));
    }
}
