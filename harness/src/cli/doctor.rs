// SPDX-License-Identifier: Apache-2.0
//! `shakedown doctor`: what is here, what is missing, and how to get it. Starts no daemon and changes nothing.

use std::fmt::Write;
use std::path::Path;

use shakedown_node::{BaseImage, ContainerdBinaries};

use super::{DoctorArguments, Places};
use crate::adapter::Environment;
use crate::trial::{self, Candidate};

/// The environment variable that names another containerd.
pub(super) const CONTAINERD_VARIABLE: &str = "SHAKEDOWN_CONTAINERD";

/// What is known about one need.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// There, with details.
    Here(String),
    /// Not there, but a run goes without.
    Without {
        /// What is the matter.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// Not there, and a run cannot start.
    Missing {
        /// What is the matter.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Looks at everything; returns the text and whether `run` can start.
pub fn doctor(arguments: &DoctorArguments) -> (String, bool) {
    let mut rows = vec![("root".to_owned(), root())];
    let binaries = find_containerd(arguments.containerd.as_deref());
    match &binaries {
        Ok(binaries) => {
            let path = binaries.containerd().display();
            rows.push(("containerd".to_owned(), State::Here(format!("{} {path}", binaries.version().text))));
            rows.push(("runc".to_owned(), runc(binaries)));
            rows.push(("CNI plugins".to_owned(), cni(binaries)));
        }
        Err(error) => rows.push(("containerd".to_owned(), missing(error, "apt-get install containerd"))),
    }
    rows.push(("busybox".to_owned(), busybox()));
    match Places::find(&arguments.documents).and_then(|places| Ok((places.load()?, places))) {
        Ok(((scenarios, adapters), places)) => {
            let found = format!("{} in {}", scenarios.len(), places.scenarios.display());
            rows.push(("scenarios".to_owned(), State::Here(found)));
            let environment = Environment::of_this_process();
            for adapter in adapters {
                let candidate = Candidate::look_for(adapter, &environment);
                rows.push((format!("builder {}", candidate.name()), builder(&candidate)));
            }
        }
        Err(error) => {
            let remedy = "name the folders with --scenarios DIR and --adapters DIR, or mend the documents";
            rows.push(("documents".to_owned(), missing(&error, remedy)));
        }
    }
    render(&rows)
}

/// The containerd that a run takes.
pub(super) fn find_containerd(
    path: Option<&Path>,
) -> Result<ContainerdBinaries, shakedown_node::BinariesError> {
    path.map_or_else(|| ContainerdBinaries::find(CONTAINERD_VARIABLE), ContainerdBinaries::at)
}

fn root() -> State {
    if rustix::process::geteuid().is_root() {
        return State::Here("yes".to_owned());
    }
    State::Missing {
        reason: "this is a plain user, who may not make namespaces and mounts".to_owned(),
        remedy: "run with sudo".to_owned(),
    }
}

fn runc(binaries: &ContainerdBinaries) -> State {
    match trial::runc_version(binaries) {
        Some(version) => State::Here(version),
        None => {
            State::Missing { reason: "not in PATH".to_owned(), remedy: "apt-get install runc".to_owned() }
        }
    }
}

fn cni(binaries: &ContainerdBinaries) -> State {
    match binaries.cni_dir() {
        Some(folder) => State::Here(folder.display().to_string()),
        None => State::Missing {
            reason: "not in /opt/cni/bin, /usr/lib/cni or $CNI_PATH".to_owned(),
            remedy: "apt-get install containernetworking-plugins".to_owned(),
        },
    }
}

fn busybox() -> State {
    match BaseImage::busybox() {
        Ok(image) => State::Here(format!("static; makes the base image {}", image.reference())),
        Err(error) => missing(&error, "apt-get install busybox-static"),
    }
}

/// A builder that is not installed keeps no run from starting: its trials are reported as absent.
fn builder(candidate: &Candidate) -> State {
    match &candidate.programs {
        Ok(programs) => {
            let version = trial::version_without_daemon(candidate)
                .unwrap_or_else(|| "installed; its daemon will tell the version".to_owned());
            let paths: Vec<_> = programs.values().map(|path| path.display().to_string()).collect();
            State::Here(format!("{version} {}", paths.join(" ")))
        }
        Err(absence) => State::Without {
            reason: trial::describe(absence),
            remedy: format!("{}, or set ${}", absence.install_hint, absence.environment_override),
        },
    }
}

fn missing(error: &dyn std::error::Error, remedy: &str) -> State {
    State::Missing { reason: trial::chain(error), remedy: remedy.to_owned() }
}

fn render(rows: &[(String, State)]) -> (String, bool) {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut ready = true;
    for (name, state) in rows {
        let (mark, detail, remedy) = match state {
            State::Here(detail) => ("ok     ", detail, None),
            State::Without { reason, remedy } => ("absent ", reason, Some(remedy)),
            State::Missing { reason, remedy } => {
                ready = false;
                ("MISSING", reason, Some(remedy))
            }
        };
        let _ = writeln!(text, "{mark}  {name:<width$}  {detail}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "         {:<width$}  help: {remedy}", "");
        }
    }
    text.push_str(if ready { "\n`shakedown run` can start.\n" } else { "\n`shakedown run` cannot start.\n" });
    (text, ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_builder_is_no_obstacle_and_a_missing_program_is() {
        let here = ("root".to_owned(), State::Here("yes".to_owned()));
        let remedy = "apt-get install x".to_owned();
        let without = State::Without { reason: "none".to_owned(), remedy: remedy.clone() };
        let (text, ready) = render(&[here.clone(), ("builder x".to_owned(), without)]);
        assert!(ready);
        assert_eq!(
            text,
            "ok       root       yes\nabsent   builder x  none\n                    help: apt-get install x\n\n\
             `shakedown run` can start.\n"
        );
        let missing = State::Missing { reason: "none".to_owned(), remedy };
        let (text, ready) = render(&[here, ("runc".to_owned(), missing)]);
        assert!(!ready);
        assert!(text.contains("MISSING  runc  none\n               help: apt-get install x\n"), "{text}");
    }
}
