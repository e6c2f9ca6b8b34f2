// SPDX-License-Identifier: Apache-2.0
//! Whole Dockerfiles and the plans that come of them.

use proptest::prelude::*;

use super::*;
use crate::dockerfile::parse;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn request(target: Option<&str>, build_args: &[(&str, &str)]) -> PlanRequest {
    PlanRequest {
        target: target.map(str::to_owned),
        build_args: map(build_args),
        platform_args: map(&[("TARGETPLATFORM", "linux/amd64"), ("TARGETARCH", "amd64")]),
    }
}

fn planned(source: &str, request: &PlanRequest) -> Result<Plan, Box<Diagnostic>> {
    let file = parse("Dockerfile", source).unwrap_or_else(|error| panic!("{source}: {error}"));
    plan(&file, request)
}

fn default_plan(source: &str) -> Plan {
    planned(source, &request(None, &[])).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// One line per stage: id, base, sources of COPY.
fn outline(plan: &Plan) -> Vec<String> {
    let source = |source: &CopySource| match source {
        CopySource::Context => "context".to_owned(),
        CopySource::Stage(id) => format!("#{id}"),
        CopySource::Image(image, _) => image.familiar(),
    };
    plan.stages
        .iter()
        .map(|stage| {
            let base = match &stage.base {
                Base::Scratch => "scratch".to_owned(),
                Base::Stage(id) => format!("#{id}"),
                Base::Image(image, _) => image.familiar(),
            };
            let copies = stage.instructions.iter().filter_map(|planned| planned.copy_source.as_ref());
            std::iter::once(format!("#{} {base}", stage.id))
                .chain(copies.map(source))
                .collect::<Vec<_>>()
                .join(" < ")
        })
        .collect()
}

#[test]
fn names_become_stages_and_images() {
    for (source, expected) in [
        ("FROM scratch", &["#0 scratch"][..]),
        ("FROM alpine", &["#0 alpine:latest"]),
        ("FROM a AS b\nFROM b", &["#0 a:latest", "#1 #0"]),
        ("FROM a AS Build\nFROM bUILD AS c\nCOPY --from=BUILD x y", &["#0 a:latest", "#1 #0 < #0"]),
        ("FROM a AS alpine\nFROM alpine", &["#0 a:latest", "#1 #0"]),
        ("FROM alpine AS alpine", &["#0 alpine:latest"]),
        ("FROM a\nFROM 0", &["#1 0:latest"]),
        ("FROM a\nFROM b\nCOPY --from=0 x y", &["#0 a:latest", "#1 b:latest < #0"]),
        ("FROM b\nCOPY x y\nCOPY --from=r.test/i:1 x y", &["#0 b:latest < context < r.test/i:1"]),
        ("FROM a AS x\nFROM b AS x\nFROM x", &["#1 b:latest", "#2 #1"]),
        ("FROM a AS scratch\nFROM scratch", &["#0 a:latest", "#1 #0"]),
        ("FROM later\nFROM x AS later\nFROM later", &["#1 x:latest", "#2 #1"]),
        (
            "FROM a AS x\nFROM b AS y\nFROM x\nCOPY --from=y a b\nCOPY --from=x a b",
            &["#0 a:latest", "#1 b:latest", "#2 #0 < #1 < #0"],
        ),
    ] {
        assert_eq!(outline(&default_plan(source)), expected, "{source}");
    }
}

#[test]
fn only_what_the_target_reaches_is_planned() {
    let source =
        "FROM a AS one\nFROM $nothing AS broken\nCOPY --from=$x a b\nFROM one AS two\nFROM b AS three\n";
    for (target, ids) in [
        (None, &[3][..]),
        (Some("one"), &[0]),
        (Some("TWO"), &[0, 2]),
        (Some("2"), &[0, 2]),
        (Some("3"), &[3]),
    ] {
        let plan = planned(source, &request(target, &[])).unwrap();
        let found: Vec<usize> = plan.stages.iter().map(|stage| stage.id.0).collect();
        assert_eq!(found, ids, "{target:?}");
        assert_eq!(plan.stages.last().map(|stage| stage.id), Some(plan.target));
        assert_eq!(plan.stage(plan.target).map(|stage| stage.id), Some(plan.target));
    }
    assert!(planned(source, &request(Some("broken"), &[])).is_err());
}

#[test]
fn global_arguments() {
    let source = "ARG base=alpine tag=3\nARG image=$base:$tag\nARG TARGETARCH\nARG arch=$TARGETARCH\nARG bare\nFROM $image\n";
    for (build_args, base, globals) in [
        (&[][..], "alpine:3", &[("arch", "amd64"), ("image", "alpine:3"), ("TARGETSTAGE", "default")][..]),
        (&[("tag", "4")], "alpine:4", &[("tag", "4")]),
        (&[("image", "x")], "x:latest", &[("image", "x"), ("base", "alpine")]),
        (&[("TARGETARCH", "arm")], "alpine:3", &[("arch", "arm"), ("TARGETARCH", "arm")]),
        (&[("bare", "")], "alpine:3", &[("bare", "")]),
    ] {
        let plan = planned(source, &request(None, build_args)).unwrap();
        assert_eq!(outline(&plan), [format!("#0 {base}")], "{build_args:?}");
        for (name, value) in globals {
            assert_eq!(
                plan.global_args.get(*name).map(String::as_str),
                Some(*value),
                "{name} {build_args:?}"
            );
        }
    }
    assert!(!default_plan(source).global_args.contains_key("bare"));
    // An overridden default is never looked at.
    let failing = "ARG a=${x?no}\nFROM b$a";
    assert!(planned(failing, &request(None, &[("a", "c")])).is_ok());
    assert_eq!(planned(failing, &request(None, &[])).unwrap_err().to_string(), "Dockerfile:1:7: x: no");
}

#[test]
fn the_name_of_the_target_is_an_argument() {
    let source = "FROM a AS one\nFROM b";
    for (target, name) in
        [(Some("ONE"), "one"), (Some("0"), "one"), (None, "default"), (Some("1"), "default")]
    {
        let plan = planned(source, &request(target, &[])).unwrap();
        assert_eq!(plan.global_args["TARGETSTAGE"], name, "{target:?}");
    }
}

#[test]
fn stage_arguments_do_not_reach_from() {
    let error = planned("FROM a\nARG x=b\nFROM $x", &request(None, &[("x", "c")])).unwrap_err();
    assert_eq!(error.to_string(), "Dockerfile:3:6: the name of the base is empty after expansion: $x");
}

#[test]
fn build_arguments_that_nobody_asks_for() {
    let source = "ARG global\nFROM a AS one\nARG one\nFROM b AS two\nARG two=1\nFROM one\n";
    let given = [
        ("global", ""),
        ("one", ""),
        ("two", ""),
        ("typo", ""),
        ("HTTP_PROXY", ""),
        ("all_proxy", ""),
        ("TARGETARCH", "arm"),
        ("TARGETSTAGE", "x"),
    ];
    let plan = planned(source, &request(None, &given)).unwrap();
    assert_eq!(plan.unused_build_args, ["two", "typo"]);
    let plan = planned(source, &request(Some("two"), &given)).unwrap();
    assert_eq!(plan.unused_build_args, ["one", "typo"]);
}

#[test]
fn whether_the_context_is_needed() {
    for (source, needed) in [
        ("FROM a\nCOPY x y", true),
        ("FROM a\nRUN x", false),
        ("FROM a\nCOPY --from=b x y", false),
        ("FROM a\nCOPY x y\nFROM b", false),
        ("FROM a AS x\nCOPY x y\nFROM x", true),
    ] {
        assert_eq!(default_plan(source).context_paths_needed, needed, "{source}");
    }
}

#[test]
fn mistakes_in_their_exact_words() {
    for (source, message) in [
        ("ARG x\nFROM $x", "Dockerfile:2:6: the name of the base is empty after expansion: $x"),
        ("FROM ${x:?missing}", "Dockerfile:1:6: x: missing"),
        (
            "FROM a:b:c",
            "Dockerfile:1:6: \"a:b:c\" is not an image name: the repository path has a malformed component",
        ),
        (
            "FROM Alpine",
            "Dockerfile:1:6: \"Alpine\" is not an image name: the repository path must be in lower case",
        ),
        ("FROM a\nCOPY --from=$x a b", "Dockerfile:2:13: variables are not expanded in --from: $x"),
        ("FROM a\nCOPY --from= a b", "Dockerfile:2:13: --from names no stage and no image"),
        ("FROM a\nCOPY --from=1 a b", "Dockerfile:2:13: there is no stage with index 1"),
        (
            "FROM a\nCOPY --from=99999999999999999999 a b",
            "Dockerfile:2:13: there is no stage with index 99999999999999999999",
        ),
        ("FROM a\nCOPY --from=0 a b", "Dockerfile:2:13: stage 0 cannot copy from itself"),
        ("FROM a AS x\nCOPY --from=X a b", "Dockerfile:2:13: stage X cannot copy from itself"),
        ("FROM a AS x\nCOPY --from=y a b\nFROM x AS y", "Dockerfile:2:13: stage y is defined further below"),
        ("FROM a AS x\nCOPY --from=1 a b\nFROM x", "Dockerfile:2:13: stage 1 is defined further below"),
        ("FROM a\nCOPY --from=scratch a b", "Dockerfile:2:13: scratch has no files to copy"),
        (
            "FROM a\nCOPY --from=a/B a b",
            "Dockerfile:2:13: \"a/B\" is not an image name: the repository path must be in lower case",
        ),
    ] {
        let found = planned(source, &request(None, &[]));
        assert_eq!(found.map_err(|error| error.to_string()), Err(message.to_owned()), "{source}");
    }
}

#[test]
fn rendered_for_people() {
    let render = |source: &str, target: Option<&str>| {
        planned(source, &request(target, &[])).unwrap_err().render(false)
    };
    insta::assert_snapshot!(render("FROM a AS build\nFROM b\n", Some("biuld")), @r#"
        error[plan/target]: target stage "biuld" could not be found (did you mean build?)
         |
         = help: the stages are build, 1
        "#);
    insta::assert_snapshot!(render("FROM a AS build\nFROM b\nCOPY --from=$stage /x \\\n  /y\n", None), @r"
        error[plan/variable-in-from]: variables are not expanded in --from: $stage
         --> Dockerfile:3:13
          |
        3 | COPY --from=$stage /x \
          |             ^^^^^^
          |
          = help: add a stage FROM $stage AS name, and use COPY --from=name
        ");
    insta::assert_snapshot!(render("ARG base\nFROM $base AS app\n", None), @"
        error[plan/empty-base]: the name of the base is empty after expansion: $base
         --> Dockerfile:2:6
          |
        2 | FROM $base AS app
          |      ^^^^^
          |
          = help: give the ARG a default before the first FROM, or pass it with --build-arg
        ");
}

/// Stages that use any earlier one by name or index, and a target.
fn graphs() -> impl Strategy<Value = (String, usize)> {
    proptest::collection::vec(
        (any::<prop::sample::Index>(), proptest::collection::vec(any::<prop::sample::Index>(), 0..3)),
        1..12,
    )
    .prop_flat_map(|stages| {
        let count = stages.len();
        let mut source = String::new();
        for (id, (base, copies)) in stages.iter().enumerate() {
            let base = base.index(id + 1);
            let base = if base == id { "scratch".to_owned() } else { format!("s{base}") };
            source.push_str(&format!("FROM {base} AS s{id}\n"));
            for (position, copy) in copies.iter().enumerate().filter(|_| id > 0) {
                let prefix = if position == 0 { "s" } else { "" };
                source.push_str(&format!("COPY --from={prefix}{} a b\n", copy.index(id)));
            }
        }
        (Just(source), 0..count)
    })
}

proptest! {
    #[test]
    fn every_stage_comes_after_what_it_needs((source, target) in graphs()) {
        let plan = planned(&source, &request(Some(&target.to_string()), &[])).unwrap();
        let mut built = BTreeSet::new();
        for stage in &plan.stages {
            for needed in &stage.dependencies {
                prop_assert!(built.contains(needed), "{} needs {}", stage.id, needed);
            }
            built.insert(stage.id);
        }
        prop_assert_eq!(plan.stages.last().map(|stage| stage.id), Some(StageId(target)));
        // Nothing is there that nobody needs.
        for stage in &plan.stages[..plan.stages.len() - 1] {
            prop_assert!(plan.stages.iter().any(|other| other.dependencies.contains(&stage.id)));
        }
    }
}
