// SPDX-License-Identifier: Apache-2.0
//! Which of the adapters' builders are on this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::adapter::{Absence, Adapter, Environment, Surroundings, detect_version, discover, plan_version};

/// An adapter and what was found of its builder.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The adapter.
    pub adapter: Adapter,
    /// The programs by name, or what is missing.
    pub programs: Result<BTreeMap<String, PathBuf>, Absence>,
}

impl Candidate {
    /// Looks for the programs of an adapter.
    pub fn look_for(adapter: Adapter, environment: &Environment) -> Self {
        let programs = discover(&adapter, environment);
        Self { adapter, programs }
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.adapter.id.value
    }

    /// The program that builds: the first of the build command, else the first by name.
    pub fn main_program(&self) -> Option<&Path> {
        let programs = self.programs.as_ref().ok()?;
        let main = programs.get(self.name()).or_else(|| programs.values().next());
        main.map(PathBuf::as_path)
    }
}

/// An absence as one sentence: what is missing, and what was found and not taken.
pub fn describe(absence: &Absence) -> String {
    let mut text = format!("no program `{}` was found", absence.program);
    for rejected in &absence.rejected {
        text.push_str(&format!("; {} was not taken: {}", rejected.path.display(), rejected.reason));
    }
    text
}

/// The version of a builder, when it tells it without its daemon.
pub fn version_without_daemon(candidate: &Candidate) -> Option<String> {
    let surroundings = Surroundings {
        programs: candidate.programs.clone().ok()?,
        state: "/nonexistent".into(),
        scratch: "/".into(),
        ..Surroundings::default()
    };
    let invocation = plan_version(&candidate.adapter, &surroundings).ok()?;
    detect_version(&candidate.adapter, &invocation).ok()
}

/// sha256 (hex) of a file's bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hash = HashWriter(Sha256::new());
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex(&hash.0.finalize()))
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_the_digest_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        // FIPS 180-4, example of SHA-256.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(file.path()).unwrap(), digest);
    }
}
