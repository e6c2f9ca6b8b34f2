// SPDX-License-Identifier: Apache-2.0
//! Whole files: what they become, and every mistake with its exact words and place.

use proptest::prelude::*;

use super::super::ast::{Command, Copy, Instruction, Word};
use super::super::words;
use super::*;

/// The instructions of a stage `FROM scratch` with `body` below it.
fn body(body: &str) -> Vec<Instruction> {
    let source = format!("FROM scratch\n{body}");
    let mut file = parse("Dockerfile", &source).unwrap_or_else(|error| panic!("{body}: {error}"));
    file.stages.remove(0).instructions
}

fn kind(text: &str) -> InstructionKind {
    let mut instructions = body(text);
    assert_eq!(instructions.len(), 1, "{text}");
    instructions.remove(0).kind
}

fn raw(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.raw.as_str()).collect()
}

#[test]
fn mistakes_in_their_exact_words() {
    for (source, message) in [
        ("", "1:1: the Dockerfile has no instructions"),
        ("\n  \n# only a comment\n", "3:17: the Dockerfile has no instructions"),
        ("ARG a=1\n", "1:8: the Dockerfile has no FROM instruction"),
        ("RUN x\nFROM a", "1:1: RUN before the first FROM: only ARG may stand there"),
        ("ARG a\nENV a=1\nFROM a", "2:1: ENV before the first FROM: only ARG may stand there"),
        ("FORM a", "1:1: unknown instruction: FORM (did you mean FROM?)"),
        ("FROM a\n  coppy a b", "2:3: unknown instruction: coppy (did you mean COPY?)"),
        ("FROM a\nINCLUDE x", "2:1: unknown instruction: INCLUDE"),
        ("FROM a\nRUN a\n&& b", "3:1: unknown instruction: &&"),
        ("FROM", "1:1: FROM requires the name of an image or a stage"),
        ("FROM a b", "1:8: FROM requires either one or three arguments (FROM image [AS name])"),
        ("FROM a AS", "1:8: FROM requires either one or three arguments (FROM image [AS name])"),
        ("FROM a IS b", "1:8: FROM requires either one or three arguments (FROM image [AS name])"),
        ("FROM a AS b c", "1:8: FROM requires either one or three arguments (FROM image [AS name])"),
        ("FROM a AS 1b", "1:11: invalid name for a build stage: \"1b\""),
        ("FROM a AS b:c", "1:11: invalid name for a build stage: \"b:c\""),
        ("FROM a AS ünd", "1:11: invalid name for a build stage: \"ünd\""),
        ("# escape=x\nFROM a", "1:10: the escape directive must be \\ or `, not \"x\""),
        ("# escape=`\n# ESCAPE=`\nFROM a", "2:1: only one escape parser directive can be used"),
        ("# syntax=a\n#syntax=b\nFROM a", "2:1: only one syntax parser directive can be used"),
        ("FROM a\nRUN", "2:1: RUN requires at least one argument"),
        ("FROM a\nRUN []", "2:5: RUN has no command to run"),
        ("FROM a\nRUN [\"a\", 1]", "2:5: the exec form is a JSON array of strings only"),
        ("FROM a\nCMD", "2:1: CMD requires at least one argument"),
        ("FROM a\nENTRYPOINT", "2:1: ENTRYPOINT requires at least one argument"),
        ("FROM a\nENV", "2:1: ENV requires at least one argument"),
        ("FROM a\nENV a", "2:5: ENV must have two arguments: name=value"),
        ("FROM a\nENV a=1 b", "2:9: can't find = in \"b\": must be of the form name=value"),
        ("FROM a\nENV a=1 =b", "2:9: ENV names can not be blank"),
        ("FROM a\nLABEL", "2:1: LABEL requires at least one argument"),
        ("FROM a\nLABEL x", "2:7: LABEL must have two arguments: name=value"),
        ("FROM a\nARG", "2:1: ARG requires at least one argument"),
        ("ARG\nFROM a", "1:1: ARG requires at least one argument"),
        ("FROM a\nARG =1", "2:5: ARG names can not be blank"),
        ("FROM a\nWORKDIR", "2:1: WORKDIR requires exactly one argument"),
        ("FROM a\nUSER", "2:1: USER requires exactly one argument"),
        ("FROM a\nEXPOSE", "2:1: EXPOSE requires at least one argument"),
        ("FROM a\nCOPY", "2:1: COPY requires at least two arguments, a source and a destination"),
        (
            "FROM a\nCOPY x",
            "2:1: COPY requires at least two arguments, a source and a destination, but has only one",
        ),
        (
            "FROM a\nCOPY [\"x\"]",
            "2:1: COPY requires at least two arguments, a source and a destination, but has only one",
        ),
        ("FROM a\nCOPY --form=x a b", "2:6: unknown flag for COPY: --form (did you mean --from?)"),
        ("FROM a\nCOPY --from=x --from=y a b", "2:15: duplicate flag: --from"),
        ("FROM a\nCOPY --from a b", "2:6: missing value: --from=…"),
        ("FROM a\nRUN --mounts=x a", "2:5: unknown flag for RUN: --mounts (did you mean --mount?)"),
        ("FROM a\nENV --x a=1", "2:5: unknown flag for ENV: --x"),
        ("FROM a\nRUN <<EOF\nx\n", "2:5: unterminated heredoc: no line is \"EOF\""),
        ("FROM a\nRUN cat <<A 'x\nA\n", "2:13: unfinished ' in a line with a heredoc"),
        ("FROM a\nRUN 99999999999<<A\nA\n", "2:5: 99999999999 is not a file descriptor"),
    ] {
        let error = parse("Dockerfile", source).expect_err(source);
        assert_eq!(error.to_string(), format!("Dockerfile:{message}"), "{source:?}");
    }
}

#[test]
fn what_is_not_there_yet_is_refused_at_the_thing_itself() {
    for (text, feature, place) in [
        ("ADD --chown=1 a b", "ADD", "ADD"),
        ("add a b", "ADD", "add"),
        ("VOLUME /x", "VOLUME", "VOLUME"),
        ("STOPSIGNAL 9", "STOPSIGNAL", "STOPSIGNAL"),
        ("SHELL [\"a\"]", "SHELL", "SHELL"),
        ("HEALTHCHECK --interval=1s CMD x", "HEALTHCHECK", "HEALTHCHECK"),
        ("ONBUILD RUN x", "ONBUILD", "ONBUILD"),
        ("ONBUILD RUN <<EOF\nEOF", "ONBUILD", "ONBUILD"),
        ("MAINTAINER me", "MAINTAINER", "MAINTAINER"),
        ("RUN --mount=type=cache,target=/x make", "RUN --mount", "--mount=type=cache,target=/x"),
        ("RUN --network=none make", "RUN --network", "--network=none"),
        ("RUN --security=insecure make", "RUN --security", "--security=insecure"),
        ("RUN --device=gpu make", "RUN --device", "--device=gpu"),
        ("RUN cat <<EOF\nx\nEOF", "RUN with a heredoc", "<<EOF"),
        ("COPY <<EOF /x\nx\nEOF", "COPY with a heredoc", "<<EOF"),
        ("COPY --chown=1:1 a b", "COPY --chown", "--chown=1:1"),
        ("COPY --from=x --chmod=755 a b", "COPY --chmod", "--chmod=755"),
        ("COPY --link a b", "COPY --link", "--link"),
        ("COPY --parents a b", "COPY --parents", "--parents"),
        ("COPY --exclude=x a b", "COPY --exclude", "--exclude=x"),
        ("FROM --platform=linux/arm64 a", "FROM --platform", "--platform=linux/arm64"),
    ] {
        let source = format!("FROM scratch\n{text}\n");
        let error = parse("Dockerfile", &source).expect_err(text);
        assert_eq!(error.code, "dockerfile/unsupported", "{text}");
        assert_eq!(error.message, format!("{feature} is not supported yet"), "{text}");
        assert_eq!(error.location.unwrap().text(), place, "{text}");
    }
}

#[test]
fn stages_and_their_names() {
    let file = parse(
        "Dockerfile",
        "ARG a=1 b\nARG c='x y'\nFROM golang:$a AS Build\nRUN make\nfrom scratch\nCOPY --from=build /a /a\n",
    )
    .unwrap();
    let globals: Vec<_> = file
        .global_args
        .iter()
        .map(|arg| (arg.name.as_str(), arg.default.as_ref().map(|word| word.raw.as_str())))
        .collect();
    assert_eq!(globals, [("a", Some("1")), ("b", None), ("c", Some("'x y'"))]);
    assert_eq!(file.stages.len(), 2);
    assert_eq!(file.stages[0].name.as_deref(), Some("build"));
    assert_eq!(file.stages[0].from.image.raw, "golang:$a");
    assert_eq!(&file.source[file.stages[0].span.clone()], "FROM golang:$a AS Build\nRUN make");
    assert_eq!(file.stages[1].name, None);
    assert_eq!(&file.source[file.stages[1].from.span.clone()], "from scratch");
}

#[test]
fn commands_in_both_forms() {
    let shell = |text: &str| Command::Shell(text.to_owned());
    let exec = |words: &[&str]| Command::Exec(words.iter().map(|&word| word.to_owned()).collect());
    for (text, command) in [
        ("RUN echo  \"$a\"   b ", shell("echo  \"$a\"   b")),
        ("RUN a && \\\n  b", shell("a &&   b")),
        ("RUN [\"a\", \"$b\"]", exec(&["a", "$b"])),
        ("RUN ['a']", shell("['a']")),
        ("RUN [ -e x ] && y", shell("[ -e x ] && y")),
        ("RUN -- --strange", shell("--strange")),
        ("RUN\ta", shell("a")),
        ("run [\"a\"] b", shell("[\"a\"] b")),
        ("RUN [\"a\", \\\n  \"b\"]", exec(&["a", "b"])),
        ("RUN echo '<<EOF'", shell("echo '<<EOF'")),
        ("RUN cat <<< word", shell("cat <<< word")),
    ] {
        assert_eq!(kind(text), InstructionKind::Run { command }, "{text}");
    }
    assert_eq!(kind("CMD []"), InstructionKind::Cmd(exec(&[])));
    assert_eq!(kind("CMD a b"), InstructionKind::Cmd(shell("a b")));
    assert_eq!(kind("ENTRYPOINT [\"a\"]"), InstructionKind::Entrypoint(exec(&["a"])));
}

#[test]
fn copies() {
    for (text, from, sources, destination) in [
        ("COPY a b", None, &["a"][..], "b"),
        ("COPY a b c/", None, &["a", "b"], "c/"),
        ("COPY --from=build /a /b", Some("build"), &["/a"], "/b"),
        ("COPY --from=0 $a ${b}", Some("0"), &["$a"], "${b}"),
        ("COPY [\"a b\", \"c d\"]", None, &["a b"], "c d"),
        ("COPY --from=x [\"a\", \"b\", \"c\"]", Some("x"), &["a", "b"], "c"),
        ("COPY 'a b' c", None, &["'a", "b'"], "c"),
        ("COPY -- --odd b", None, &["--odd"], "b"),
        ("COPY a \\\n # c\n b", None, &["a"], "b"),
    ] {
        let InstructionKind::Copy(Copy { from: copy_from, sources: words, destination: to, .. }) = kind(text)
        else {
            panic!("{text}")
        };
        assert_eq!(copy_from.as_ref().map(|word| word.raw.as_str()), from, "{text}");
        assert_eq!((raw(&words), to.raw.as_str()), (sources.to_vec(), destination), "{text}");
    }
}

#[test]
fn names_and_values() {
    for (text, pairs) in [
        ("ENV a=1", &[("a", "1")][..]),
        ("ENV a=1 b='x y' c=\"$a\"", &[("a", "1"), ("b", "'x y'"), ("c", "\"$a\"")]),
        ("ENV a=", &[("a", "")]),
        ("ENV a=b=c", &[("a", "b=c")]),
        ("ENV a b c=d", &[("a", "b c=d")]),
        ("ENV a   b", &[("a", "b")]),
        ("ENV a=1 \\\n  b=2", &[("a", "1"), ("b", "2")]),
        ("ENV a=x\\ y b=1", &[("a", "x\\ y"), ("b", "1")]),
        ("LABEL \"a b\"=c", &[("\"a b\"", "c")]),
        ("LABEL a.b-c/d=\"x\" e=f", &[("a.b-c/d", "\"x\""), ("e", "f")]),
        ("LABEL a  the rest", &[("a", "the rest")]),
    ] {
        let (InstructionKind::Env(found) | InstructionKind::Label(found)) = kind(text) else {
            panic!("{text}")
        };
        let found: Vec<_> =
            found.iter().map(|(name, value)| (name.raw.as_str(), value.raw.as_str())).collect();
        assert_eq!(found, pairs, "{text}");
    }
}

#[test]
fn single_words_and_lists() {
    assert!(matches!(kind("WORKDIR /a b"), InstructionKind::Workdir(word) if word.raw == "/a b"));
    assert!(matches!(kind("USER $u:$g"), InstructionKind::User(word) if word.raw == "$u:$g"));
    assert!(matches!(kind("EXPOSE 80  $p 90-99/udp"),
        InstructionKind::Expose(words) if raw(&words) == ["80", "$p", "90-99/udp"]));
}

#[test]
fn the_original_is_the_logical_text() {
    let instructions = body("  RUN a \\\n# no\n\n   b   \r\nenv x=1\r\n");
    assert_eq!(instructions[0].original, "RUN a    b");
    assert_eq!(instructions[1].original, "env x=1");
}

#[test]
fn directives_take_effect_and_are_told() {
    let file = parse("Dockerfile", "\u{feff}# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN b `\n c\\")
        .unwrap();
    assert_eq!(file.escape, '`');
    assert!(!file.source.starts_with('\u{feff}'));
    assert_eq!(file.stages[0].instructions[0].original, "RUN b  c\\");
    let notices: Vec<String> = file.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        notices,
        ["Dockerfile:1:10: the syntax directive has no effect: pushless has its own frontend"]
    );
}

#[test]
fn rendered_for_people() {
    let render = |source: &str| parse("build/Dockerfile", source).unwrap_err().render(false);
    insta::assert_snapshot!(render("FROM a\n\nRUN --mount=type=cache,target=/c \\\n  make\n"), @r"
        error[dockerfile/unsupported]: RUN --mount is not supported yet
         --> build/Dockerfile:3:5
          |
        3 | RUN --mount=type=cache,target=/c \
          |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        ");
    insta::assert_snapshot!(render("FROM alpine AS 2nd\n"), @r#"
        error[dockerfile/stage-name]: invalid name for a build stage: "2nd"
         --> build/Dockerfile:1:16
          |
        1 | FROM alpine AS 2nd
          |                ^^^
          |
          = help: a stage name starts with a letter, then come letters, digits, '-', '_' and '.'
        "#);
    insta::assert_snapshot!(render("FROM a\nENV a=1 \\\n    # why\n    b\n"), @r#"
        error[dockerfile/arguments]: can't find = in "b": must be of the form name=value
         --> build/Dockerfile:4:5
          |
        4 |     b
          |     ^
        "#);
    insta::assert_snapshot!(render("# nothing here\n"), @"
        error[dockerfile/structure]: the Dockerfile has no instructions
         --> build/Dockerfile:1:15
          |
        1 | # nothing here
          |               ^
          |
          = help: start with FROM, e.g. FROM scratch
        ");
}

/// Every span that a file holds.
fn spans(file: &Dockerfile) -> Vec<std::ops::Range<usize>> {
    let mut spans: Vec<_> =
        file.notices.iter().filter_map(|notice| notice.location.clone()).map(|at| at.span).collect();
    let mut word = |word: &Word| spans.push(word.span.clone());
    for stage in &file.stages {
        word(&stage.from.image);
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Copy(copy) => {
                    copy.from.iter().chain(&copy.sources).chain([&copy.destination]).for_each(&mut word);
                }
                InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                    pairs.iter().flat_map(|(name, value)| [name, value]).for_each(&mut word);
                }
                InstructionKind::Arg(args) => {
                    args.iter().filter_map(|arg| arg.default.as_ref()).for_each(&mut word);
                }
                InstructionKind::Workdir(text) | InstructionKind::User(text) => word(text),
                InstructionKind::Expose(words) => words.iter().for_each(&mut word),
                InstructionKind::Run { .. } | InstructionKind::Cmd(_) | InstructionKind::Entrypoint(_) => {}
            }
        }
    }
    for stage in &file.stages {
        spans.extend([stage.span.clone(), stage.from.span.clone()]);
        spans.extend(stage.from.alias.iter().map(|alias| alias.span.clone()));
        spans.extend(stage.instructions.iter().map(|instruction| instruction.span.clone()));
    }
    spans.extend(file.global_args.iter().map(|arg| arg.span.clone()));
    spans
}

fn check_spans(source: &str) {
    match parse("Dockerfile", source) {
        Ok(file) => {
            for span in spans(&file) {
                assert!(file.source.get(span.clone()).is_some(), "{span:?} in {source:?}");
            }
            for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                assert!(instruction.original.starts_with(&file.source[instruction.span.start..][..1]));
            }
        }
        Err(error) => {
            let location = error.location.as_ref().expect("every mistake has a place");
            assert!(location.source.get(location.span.clone()).is_some(), "{error:?} in {source:?}");
            error.render(false);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(source in any::<String>()) {
        check_spans(&source);
    }

    #[test]
    fn arbitrary_lines_of_the_language_never_panic(source in language()) {
        check_spans(&source);
    }

    #[test]
    fn words_that_stand_in_one_line_are_where_their_span_says(text in "[a-z$'\" \\\\é=]{1,30}") {
        let source = format!("FROM scratch\nWORKDIR x{text}x\n");
        if let Ok(file) = parse("Dockerfile", &source)
            && let InstructionKind::Workdir(word) = &file.stages[0].instructions[0].kind
        {
            prop_assert_eq!(&file.source[word.span.clone()], &word.raw);
        }
    }

    #[test]
    fn quoted_words_cover_all_that_is_not_blank(text in "[ab='\" \\\\é]{0,30}") {
        let mut line = super::super::text::LogicalLine::default();
        line.push(&text, 0);
        let words = words::quoted(line.trimmed(), '\\');
        let kept: usize = words.iter().map(|word| word.as_str().trim().len()).sum();
        let dropped = usize::from(text.trim_end().ends_with('\\'));
        let letters = text.chars().filter(|letter| !letter.is_whitespace()).map(char::len_utf8).sum::<usize>();
        prop_assert!(kept + dropped >= letters, "{:?}", words);
    }
}

/// Files made of pieces that mean something, so that most get past the first line.
fn language() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("FROM a"),
        Just("FROM a AS b"),
        Just("RUN "),
        Just("COPY --from=b "),
        Just("ENV "),
        Just("ARG "),
        Just("LABEL "),
        Just("EXPOSE "),
        Just("WORKDIR "),
        Just("# escape=`"),
        Just("#"),
        Just("\\\n"),
        Just("`\n"),
        Just("\n"),
        Just("\r\n"),
        Just(" "),
        Just("\t"),
        Just("a=1 "),
        Just("'"),
        Just("\""),
        Just("é"),
        Just("\\"),
        Just("[\"a\","),
        Just("\"b\"]"),
        Just("<<EOF"),
        Just("EOF\n"),
        Just("--"),
        Just("\u{feff}"),
        Just("\u{a0}"),
        Just("$x"),
        Just("${x:-"),
        Just("}"),
        Just("CMD "),
        Just("\u{b}"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| format!("FROM a\n{}", pieces.concat()))
}
