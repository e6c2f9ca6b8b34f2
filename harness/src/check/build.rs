// SPDX-License-Identifier: Apache-2.0
//! One build against what a scenario says about it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::config::check_config;
use super::files::{check_file, quote};
use super::{Assertion, CheckError, Finding, ImageRoot};
use crate::adapter::ExitClass;
use crate::scenario::{ExecutionExpect, Expect, FailureExpect, ImageFilePath, Outcome};

/// What was seen of one build.
#[derive(Debug)]
pub struct BuildObservation<'a> {
    /// The builder's exit code; none when a signal ended it.
    pub exit_code: Option<i32>,
    /// What it printed, standard output and error together.
    pub log: &'a str,
    /// What its exit codes stand for, from the adapter.
    pub exit_classes: &'a BTreeMap<i32, BTreeSet<ExitClass>>,
    /// The image that the build's name stands for on the node afterwards; not looked at when the build must fail.
    pub image: Option<ImageObservation<'a>>,
}

/// What was seen of an image.
#[derive(Debug)]
pub struct ImageObservation<'a> {
    /// The digest of its config.
    pub id: &'a str,
    /// Its config.
    pub config: &'a Value,
    /// Its file system.
    pub root: &'a ImageRoot,
}

/// What later builds of a scenario need to know of an earlier successful one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// The name that the scenario gives the build.
    pub name: Option<String>,
    /// The image's id.
    pub image_id: String,
    /// What its stamps held; see [`read_stamps`].
    pub stamps: BTreeMap<ImageFilePath, String>,
}

/// Reads the stamps of an image. One that is not there is left out.
///
/// # Errors
/// When a stamp cannot be read.
pub fn read_stamps<'a>(
    root: &ImageRoot,
    stamps: impl IntoIterator<Item = &'a ImageFilePath>,
) -> Result<BTreeMap<ImageFilePath, String>, CheckError> {
    let mut found = BTreeMap::new();
    for path in stamps {
        let Some(stat) = root.stat(path)? else { continue };
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            let text = String::from_utf8_lossy(&root.read(path)?).trim_end().to_owned();
            found.insert(path.clone(), text);
        }
    }
    Ok(found)
}

/// Compares one build. `earlier` holds the successful builds of the same scenario before it, in order.
///
/// When the build did not end as it should, nothing else is looked at but the log: the rest would only repeat it.
///
/// # Errors
/// When the image's file system cannot be looked into.
pub fn check_build(
    expect: &Expect,
    observed: &BuildObservation<'_>,
    earlier: &[BuildRecord],
) -> Result<Vec<Finding>, CheckError> {
    let mut findings = check_log(expect, observed.log);
    if let Outcome::Failure(failure) = &expect.outcome {
        findings.extend(check_failure(failure, observed));
        return Ok(findings);
    }
    if observed.exit_code != Some(0) {
        findings.push(Finding::new(Assertion::Outcome, "exit code 0", exit(observed.exit_code)));
        return Ok(findings);
    }
    let Some(image) = &observed.image else {
        findings.push(Finding::new(Assertion::ImagePresent, "an image on the node", "none"));
        return Ok(findings);
    };
    findings.extend(check_identity(expect, image.id, earlier));
    findings.extend(expect.image.config.iter().filter_map(|assertion| check_config(assertion, image.config)));
    for file in &expect.files {
        findings.extend(check_file(file, image.root)?);
    }
    let stamps = read_stamps(image.root, expect.executions.iter().map(|execution| &execution.stamp.value))?;
    findings.extend(
        expect.executions.iter().filter_map(|execution| check_execution(execution, &stamps, earlier)),
    );
    Ok(findings)
}

fn check_log(expect: &Expect, log: &str) -> Vec<Finding> {
    let missing = expect.log.contains.iter().filter(|text| !log.contains(text.as_str()));
    let unwanted = expect.log.absent.iter().filter(|text| log.contains(text.as_str()));
    missing
        .map(|text| Finding::new(Assertion::LogContains, quote(text), "a log without it"))
        .chain(unwanted.map(|text| Finding::new(Assertion::LogAbsent, format!("no {}", quote(text)), "it")))
        .collect()
}

fn check_failure(expect: &FailureExpect, observed: &BuildObservation<'_>) -> Vec<Finding> {
    let code = match observed.exit_code {
        Some(code) if code != 0 => code,
        // Death by a signal is a crash, not an answer.
        code => return vec![Finding::new(Assertion::Outcome, "an exit code other than 0", exit(code))],
    };
    let mut findings = Vec::new();
    if let Some(class) = expect.exit_class {
        let classes = observed.exit_classes.get(&code);
        if !classes.is_some_and(|classes| classes.contains(&class)) {
            let words: Vec<&str> = classes.into_iter().flatten().map(|class| class.as_str()).collect();
            let meaning =
                if words.is_empty() { "nothing the adapter declares".to_owned() } else { words.join(" or ") };
            let found = format!("exit code {code}, which stands for {meaning}");
            findings.push(Finding::new(Assertion::ExitClass, class.as_str(), found));
        }
    }
    if !expect.message_regex.regex().is_match(observed.log) {
        let expected = format!("a match of /{}/", expect.message_regex);
        findings.push(Finding::new(
            Assertion::Message,
            expected,
            format!("a log that ends with {}", tail(observed.log)),
        ));
    }
    findings
}

fn check_identity(expect: &Expect, id: &str, earlier: &[BuildRecord]) -> Vec<Finding> {
    let record = |name: &str| earlier.iter().find(|record| record.name.as_deref() == Some(name));
    let mut findings = Vec::new();
    if let Some(name) = &expect.same_image_as_step {
        let other = record(name);
        if other.is_none_or(|other| other.image_id != id) {
            let expected = other
                .map_or_else(|| format!("the image of `{}`", name.value), |other| other.image_id.clone());
            findings.push(Finding::new(Assertion::ImageSame, expected, id));
        }
    }
    if let Some(name) = &expect.different_image_from_step {
        let other = record(name);
        if other.is_none_or(|other| other.image_id == id) {
            let expected = format!("another image than that of `{}`", name.value);
            findings.push(Finding::new(Assertion::ImageDifferent, expected, id));
        }
    }
    findings
}

fn check_execution(
    expect: &ExecutionExpect,
    stamps: &BTreeMap<ImageFilePath, String>,
    earlier: &[BuildRecord],
) -> Option<Finding> {
    let path = &expect.stamp.value;
    let assertion = if expect.fresh { Assertion::ExecutionFresh } else { Assertion::ExecutionCached };
    let finding =
        |expected: &str, found: String| Some(Finding::new(assertion, expected, found).at(path.as_str()));
    let Some(stamp) = stamps.get(path).filter(|stamp| is_uuid(stamp)) else {
        let found = stamps.get(path).map_or_else(|| "none".to_owned(), |text| quote(text));
        return finding("a stamp from /proc/sys/kernel/random/uuid", found);
    };
    let before = |record: &&BuildRecord| record.stamps.get(path) == Some(stamp);
    if expect.fresh {
        let same = earlier.iter().rposition(|record| before(&record))?;
        return finding(
            "a stamp that no earlier build has",
            format!("{stamp}, which is that of build {} of {} before", same + 1, earlier.len()),
        );
    }
    if earlier.last().filter(before).is_some() {
        return None;
    }
    let last = earlier.last().and_then(|record| record.stamps.get(path));
    finding(last.map_or("the stamp of the build before, which has none", String::as_str), stamp.clone())
}

/// 8-4-4-4-12 hex digits, as the kernel writes them.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, letter)| match index {
            8 | 13 | 18 | 23 => letter == b'-',
            _ => letter.is_ascii_hexdigit(),
        })
}

fn exit(code: Option<i32>) -> String {
    code.map_or_else(|| "death by a signal".to_owned(), |code| format!("exit code {code}"))
}

/// The last lines of a log, in quotes.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    quote(&lines[lines.len().saturating_sub(3)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::document;

    const ONE: &str = "11111111-1111-4111-8111-111111111111";
    const TWO: &str = "22222222-2222-4222-8222-222222222222";

    fn expect(text: &str) -> Expect {
        document::parse(Path::new("expect.yaml"), text).unwrap_or_else(|error| panic!("{}", error.render()))
    }

    /// The findings for an image with the id `sha256:now` whose stamp /s holds [`ONE`].
    fn findings(text: &str, exit_code: Option<i32>, image: bool, earlier: &[BuildRecord]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("s"), format!("{ONE}\n")).expect("a stamp");
        std::fs::write(folder.path().join("t"), "no stamp").expect("a file");
        let root = ImageRoot::open(folder.path()).expect("a root");
        let config = json!({ "os": "linux" });
        let image = image.then_some(ImageObservation { id: "sha256:now", config: &config, root: &root });
        let exit_classes = BTreeMap::from([(1, BTreeSet::from([ExitClass::StepFailed]))]);
        let log = "step 1\nerror: exit code 3\n";
        let observed = BuildObservation { exit_code, log, exit_classes: &exit_classes, image };
        let found = check_build(&expect(text), &observed, earlier).expect("readable files");
        found.iter().map(ToString::to_string).collect()
    }

    fn record(name: &str, image_id: &str, stamp: &str) -> BuildRecord {
        let path = ImageFilePath::parse("/s").expect("a path");
        BuildRecord {
            name: Some(name.to_owned()),
            image_id: image_id.to_owned(),
            stamps: BTreeMap::from([(path, stamp.to_owned())]),
        }
    }

    #[test]
    fn the_outcome_is_compared_first() {
        for (text, exit_code, image, expected) in [
            ("{}", Some(0), true, &[][..]),
            ("{}", Some(0), false, &["image.present: expected an image on the node, found none"]),
            ("{}", Some(2), true, &["build.outcome: expected exit code 0, found exit code 2"]),
            ("{}", None, true, &["build.outcome: expected exit code 0, found death by a signal"]),
            ("outcome: {failure: {message_regex: exit code 3}}", Some(1), false, &[]),
            (
                "outcome: {failure: {message_regex: exit code 3}}",
                Some(0),
                true,
                &["build.outcome: expected an exit code other than 0, found exit code 0"],
            ),
            (
                "outcome: {failure: {message_regex: exit code 3}}",
                None,
                false,
                &["build.outcome: expected an exit code other than 0, found death by a signal"],
            ),
            (
                "outcome: {failure: {message_regex: code 4}}",
                Some(1),
                false,
                &[
                    r#"build.message: expected a match of /code 4/, found a log that ends with "step 1\nerror: exit code 3""#,
                ],
            ),
            ("outcome: {failure: {exit_class: step_failed, message_regex: code}}", Some(1), false, &[]),
            (
                "outcome: {failure: {exit_class: usage, message_regex: code}}",
                Some(1),
                false,
                &["build.exit_class: expected usage, found exit code 1, which stands for step_failed"],
            ),
            (
                "outcome: {failure: {exit_class: usage, message_regex: code}}",
                Some(9),
                false,
                &[
                    "build.exit_class: expected usage, found exit code 9, which stands for nothing the adapter declares",
                ],
            ),
        ] {
            assert_eq!(findings(text, exit_code, image, &[]), expected, "{text}");
        }
    }

    #[test]
    fn the_log_is_compared_whatever_the_outcome() {
        let text = "log: {contains: [step 1, step 2], absent: [step 3, error]}";
        let expected = [
            r#"log.contains: expected "step 2", found a log without it"#,
            r#"log.absent: expected no "error", found it"#,
        ];
        assert_eq!(findings(text, Some(0), true, &[]), expected);
        assert_eq!(findings(text, Some(1), true, &[])[..2], expected);
    }

    #[test]
    fn the_config_and_the_files_are_compared() {
        let text = "{image: {config: [{pointer: /os, equals: plan9}]}, files: [{path: /s, absent: true}]}";
        assert_eq!(
            findings(text, Some(0), true, &[]),
            [
                r#"image.config /os: expected "plan9", found "linux""#,
                "file.absent /s: expected nothing, found a regular file"
            ]
        );
    }

    #[test]
    fn image_ids_are_compared_with_those_of_named_builds() {
        let earlier = [record("a", "sha256:old", TWO), record("b", "sha256:now", ONE)];
        for (text, expected) in [
            ("same_image_as_step: b", &[][..]),
            ("same_image_as_step: a", &["image.same: expected sha256:old, found sha256:now"]),
            ("same_image_as_step: c", &["image.same: expected the image of `c`, found sha256:now"]),
            ("different_image_from_step: a", &[]),
            (
                "different_image_from_step: b",
                &["image.different: expected another image than that of `b`, found sha256:now"],
            ),
            (
                "different_image_from_step: c",
                &["image.different: expected another image than that of `c`, found sha256:now"],
            ),
        ] {
            assert_eq!(findings(text, Some(0), true, &earlier), expected, "{text}");
        }
    }

    #[test]
    fn executions_are_counted_by_stamps() {
        let (fresh, cached) =
            ("executions: [{stamp: /s, fresh: true}]", "executions: [{stamp: /s, fresh: false}]");
        let (old, same) = (record("a", "i", TWO), record("b", "i", ONE));
        for (text, earlier, expected) in [
            (fresh, vec![], vec![]),
            (fresh, vec![old.clone()], vec![]),
            (
                fresh,
                vec![same.clone(), old.clone()],
                vec![format!(
                    "execution.fresh /s: expected a stamp that no earlier build has, found {ONE}, which is that of \
                     build 1 of 2 before"
                )],
            ),
            (cached, vec![old.clone(), same.clone()], vec![]),
            (
                cached,
                vec![same, old],
                vec![format!("execution.cached /s: expected {TWO}, found {ONE}")],
            ),
            (
                cached,
                vec![],
                vec![format!(
                    "execution.cached /s: expected the stamp of the build before, which has none, found {ONE}"
                )],
            ),
            (
                "executions: [{stamp: /t, fresh: true}]",
                vec![],
                vec![
                    "execution.fresh /t: expected a stamp from /proc/sys/kernel/random/uuid, found \"no stamp\""
                        .to_owned(),
                ],
            ),
            (
                "executions: [{stamp: /u, fresh: true}]",
                vec![],
                vec!["execution.fresh /u: expected a stamp from /proc/sys/kernel/random/uuid, found none".to_owned()],
            ),
        ] {
            assert_eq!(findings(text, Some(0), true, &earlier), expected, "{text}");
        }
    }
}
