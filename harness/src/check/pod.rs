// SPDX-License-Identifier: Apache-2.0
//! What became of a pod against what a scenario says.

use super::files::quote;
use super::{Assertion, Finding};
use crate::scenario::{PodExpect, Substitutions};

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodObservation<'a> {
    /// The node does not have the image, and no container was made.
    ImageAbsent,
    /// The image is there, but the container was not made, did not start or did not end in time.
    NotRun {
        /// Why, in the node's words.
        reason: &'a str,
    },
    /// The container ran to its end.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it printed to standard output.
        stdout: &'a str,
        /// What it printed to standard error.
        stderr: &'a str,
    },
}

/// Compares one pod. The placeholders of expected texts are replaced first.
pub fn check_pod(
    expect: &PodExpect,
    observed: &PodObservation<'_>,
    substitutions: &Substitutions,
) -> Vec<Finding> {
    let exit = match (expect, observed) {
        (PodExpect::ImageAbsent, PodObservation::ImageAbsent) => return Vec::new(),
        (PodExpect::ImageAbsent, _) => {
            return vec![Finding::new(
                Assertion::PodImageAbsent,
                "no such image on the node",
                describe(observed),
            )];
        }
        (PodExpect::Exited(exit), _) => exit,
    };
    let PodObservation::Exited { code, stdout, stderr } = observed else {
        return vec![Finding::new(
            Assertion::PodExited,
            "a container that runs to its end",
            describe(observed),
        )];
    };
    let mut findings = Vec::new();
    if exit.code != *code {
        let found = format!("{code} with standard error {}", quote(stderr));
        findings.push(Finding::new(Assertion::PodExitCode, exit.code.to_string(), found));
    }
    for (assertion, expected, found) in
        [(Assertion::PodStdout, &exit.stdout, stdout), (Assertion::PodStderr, &exit.stderr, stderr)]
    {
        if let Some(expected) = expected.as_ref().map(|text| substitutions.apply(text))
            && expected != **found
        {
            findings.push(Finding::new(assertion, quote(&expected), quote(found)));
        }
    }
    if let Some(pattern) = &exit.stdout_regex
        && !pattern.regex().is_match(stdout)
    {
        let expected = format!("a match of /{pattern}/");
        findings.push(Finding::new(Assertion::PodStdout, expected, quote(stdout)));
    }
    findings
}

fn describe(observed: &PodObservation<'_>) -> String {
    match observed {
        PodObservation::ImageAbsent => "no such image on the node".to_owned(),
        PodObservation::NotRun { reason } => format!("a container that was not run: {reason}"),
        PodObservation::Exited { code, .. } => format!("a container that ended with code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Pattern, PodExit};

    fn exited(code: i32, stdout: &'static str, stderr: &'static str) -> PodObservation<'static> {
        PodObservation::Exited { code, stdout, stderr }
    }

    #[test]
    fn every_assertion_holds_and_is_seen_to_fail() {
        let substitutions = Substitutions { nonce: Some("7".to_owned()), ..Substitutions::default() };
        let expect = PodExpect::Exited(PodExit {
            code: 3,
            stdout: Some("v{nonce}\n".to_owned()),
            stdout_regex: Some(Pattern::parse("^v").expect("a pattern")),
            stderr: Some(String::new()),
        });
        for (expect, observed, findings) in [
            (&expect, exited(3, "v7\n", ""), &[][..]),
            (
                &expect,
                exited(1, "w\n", "no"),
                &[
                    r#"pod.exit_code: expected 3, found 1 with standard error "no""#,
                    r#"pod.stdout: expected "v7\n", found "w\n""#,
                    r#"pod.stderr: expected "", found "no""#,
                    r#"pod.stdout: expected a match of /^v/, found "w\n""#,
                ],
            ),
            (
                &expect,
                PodObservation::ImageAbsent,
                &["pod.exited: expected a container that runs to its end, found no such image on the node"],
            ),
            (
                &expect,
                PodObservation::NotRun { reason: "timeout" },
                &[
                    "pod.exited: expected a container that runs to its end, found a container that was not run: timeout",
                ],
            ),
            (&PodExpect::ImageAbsent, PodObservation::ImageAbsent, &[]),
            (
                &PodExpect::ImageAbsent,
                exited(0, "", ""),
                &[
                    "pod.image_absent: expected no such image on the node, found a container that ended with code 0",
                ],
            ),
        ] {
            let found: Vec<String> =
                check_pod(expect, &observed, &substitutions).iter().map(ToString::to_string).collect();
            assert_eq!(found, findings);
        }
    }
}
