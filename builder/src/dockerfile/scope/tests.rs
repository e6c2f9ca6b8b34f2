// SPDX-License-Identifier: Apache-2.0
//! Whole stages, told by what RUN, the image and history see of them.

use super::*;
use crate::dockerfile::{InstructionKind, parse};

/// Runs the ARG and ENV instructions of a one-stage Dockerfile body.
fn scope(body: &str, base_env: &[&str], globals: &[(&str, &str)], build_args: &[(&str, &str)]) -> Scope {
    let file = parse("Dockerfile", &format!("FROM scratch\n{body}")).unwrap();
    let base: Vec<String> = base_env.iter().map(|&line| line.to_owned()).collect();
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut scope = Scope::new(&base, &map(globals), &map(build_args), file.escape);
    for instruction in &file.stages[0].instructions {
        match &instruction.kind {
            InstructionKind::Arg(declarations) => drop(scope.apply_arg(declarations).unwrap()),
            InstructionKind::Env(pairs) => drop(scope.apply_env(pairs).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    scope
}

fn lines(pairs: &[(String, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn one_env_instruction_sees_the_environment_before_it() {
    let scope = scope("ENV a=0\nENV a=1 b=$a c=${a}x", &[], &[], &[]);
    assert_eq!(lines(scope.env()), ["a=1", "b=0", "c=0x"]);
}

#[test]
fn one_arg_instruction_sees_its_earlier_arguments() {
    let scope = scope("ARG a=1 b=$a-2", &[], &[], &[]);
    assert_eq!(scope.lookup("b"), Some("1-2"));
    assert!(scope.env().is_empty());
}

#[test]
fn the_last_writer_wins_in_the_build_and_env_in_the_image() {
    let arg_last = scope("ENV a=env\nARG a=arg", &[], &[], &[]);
    assert_eq!(arg_last.lookup("a"), Some("arg"));
    assert_eq!(lines(arg_last.env()), ["a=env"]);
    let env_last = scope("ARG a=arg\nENV a=env", &[], &[], &[]);
    assert_eq!(env_last.lookup("a"), Some("env"));
    assert_eq!(lines(&env_last.history_args()), ["a=env"]);
}

#[test]
fn where_an_argument_gets_its_value() {
    let globals = [("g", "global")];
    let given = [("x", "given"), ("g2", "given")];
    for (body, name, value) in [
        ("ARG x=default", "x", Some("given")),
        ("ARG x", "x", Some("given")),
        ("ARG y=default", "y", Some("default")),
        ("ARG y=", "y", Some("")),
        ("ARG y", "y", None),
        ("ARG g", "g", Some("global")),
        ("ARG g=default", "g", Some("default")),
        ("ENV z=1", "g", None),
        ("ENV y=1\nARG y", "y", Some("1")),
        ("ARG x=${nothing?fails}", "x", Some("given")),
        ("ARG y=1\nARG y", "y", Some("1")),
    ] {
        assert_eq!(scope(body, &[], &globals, &given).lookup(name), value, "{body}");
    }
}

#[test]
fn a_default_that_fails_says_where() {
    let source = "FROM scratch\nARG x=${y?fails}";
    let file = parse("Dockerfile", source).unwrap();
    let InstructionKind::Arg(declarations) = &file.stages[0].instructions[0].kind else { panic!("no ARG") };
    let mut scope = Scope::new(&[], &BTreeMap::new(), &BTreeMap::new(), file.escape);
    let error = scope.apply_arg(declarations).unwrap_err();
    let diagnostic = error.into_diagnostic(&file.file, &file.source);
    assert_eq!(diagnostic.to_string(), "Dockerfile:2:7: y: fails");
}

#[test]
fn the_base_comes_first_and_keeps_its_positions() {
    let scope = scope("ENV new=1 PATH=/x:$PATH", &["PATH=/bin", "LANG=C", "odd"], &[], &[]);
    assert_eq!(lines(scope.env()), ["PATH=/x:/bin", "LANG=C", "odd=", "new=1"]);
    assert_eq!(scope.run_env(), scope.env());
}

#[test]
fn run_has_a_path_and_its_arguments() {
    let scope = scope("ARG a=1\nENV e=2\nARG unset", &[], &[], &[]);
    let path = format!("PATH={DEFAULT_PATH}");
    assert_eq!(lines(&scope.run_env()), ["a=1", "e=2", &path]);
    assert_eq!(lines(&scope.history_args()), ["a=1", "unset="]);
}

#[test]
fn history_keeps_first_positions_and_last_values() {
    let scope = scope("ARG a=1\nARG b=2\nARG a=3", &[], &[], &[]);
    assert_eq!(lines(&scope.history_args()), ["a=3", "b=2"]);
}

#[test]
fn a_child_stage_continues_with_a_copy() {
    let parent = scope("ARG a=1\nENV e=$a", &[], &[], &[]);
    let mut child = parent.clone();
    child.set_env("e", "2");
    assert_eq!(child.lookup("a"), Some("1"));
    assert_eq!((child.lookup("e"), parent.lookup("e")), (Some("2"), Some("1")));
}

#[test]
fn proxies_need_no_arg_and_stay_out_of_everything_else() {
    let given = [("HTTP_PROXY", "http://p"), ("no_proxy", "local"), ("other", "x")];
    let plain = scope("", &[], &[], &given);
    assert_eq!(
        lines(&plain.proxy_env()),
        ["HTTP_PROXY=http://p", "http_proxy=http://p", "NO_PROXY=local", "no_proxy=local"]
    );
    assert!(plain.history_args().is_empty() && plain.env().is_empty());
    let declared = scope("ARG HTTP_PROXY", &[], &[], &given);
    assert_eq!(lines(&declared.history_args()), ["HTTP_PROXY=http://p"]);
    assert_eq!(lines(&declared.proxy_env())[0], "http_proxy=http://p");
    assert!(is_proxy_arg("all_proxy") && !is_proxy_arg("All_Proxy"));
}

#[test]
fn a_failing_env_changes_nothing() {
    let file = parse("Dockerfile", "FROM scratch\nENV a=1 b=${c?no}").unwrap();
    let InstructionKind::Env(pairs) = &file.stages[0].instructions[0].kind else { panic!("no ENV") };
    let mut scope = Scope::new(&[], &BTreeMap::new(), &BTreeMap::new(), '\\');
    let before = scope.clone();
    assert!(scope.apply_env(pairs).is_err());
    assert_eq!(scope, before);
}
