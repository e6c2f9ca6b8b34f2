// SPDX-License-Identifier: Apache-2.0
//! One table of words and what becomes of them, one of mistakes and their places.

use proptest::prelude::*;

use super::*;

fn word(raw: &str) -> Word {
    Word { raw: raw.to_owned(), span: 0..raw.len() }
}

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "word" => "hello",
        "empty" => "",
        "path" => "/usr/local/bin",
        "file" => "app.tar.gz",
        "spaced" => "a  b c",
        "dollar" => "$word",
        "quoted" => "\"q\" 'r'",
        "star" => "a*b?c",
        "slashes" => "a/b/c",
        "lines" => "one\ntwo",
        "äöü" => "umlaut",
        "_x1" => "under",
        "1" => "one",
        "brace" => "a}b",
        "back" => "a\\b",
        "repeat" => "ababab",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words_and_what_becomes_of_them() {
    let table: &[(&str, &str)] = &[
        // Plain text.
        ("", ""),
        ("a", "a"),
        ("a b  c", "a b  c"),
        ("é ß 漢", "é ß 漢"),
        // Escapes outside quotes.
        (r"a\b", "ab"),
        (r"a\\b", r"a\b"),
        (r"a\ b", "a b"),
        (r"\$word", "$word"),
        (r"\${word}", "${word}"),
        (r"\\$word", r"\hello"),
        (r"\\\$word", r"\$word"),
        (r#"\"a\""#, r#""a""#),
        (r"\'a\'", "'a'"),
        (r"a\", "a"),
        (r"\é", "é"),
        // Single quotes.
        ("'a'", "a"),
        ("''", ""),
        ("'$word'", "$word"),
        ("'${word}'", "${word}"),
        (r"'a\b'", r"a\b"),
        (r"'a\'b", r"a\b"),
        (r#"'a"b'"#, r#"a"b"#),
        ("x'y z'w", "xy zw"),
        // Double quotes.
        (r#""a""#, "a"),
        (r#""""#, ""),
        (r#""$word""#, "hello"),
        (r#""${word}""#, "hello"),
        (r#""a'b""#, "a'b"),
        (r#""'$word'""#, "'hello'"),
        (r#""\$word""#, "$word"),
        (r#""a\"b""#, r#"a"b"#),
        (r#""a\\b""#, r"a\b"),
        (r#""a\b""#, r"a\b"),
        (r#""a\'b""#, r"a\'b"),
        (r#""$spaced""#, "a  b c"),
        (r#""a"'b'c"#, "abc"),
        (r#""$""#, "$"),
        // Names.
        ("$word", "hello"),
        ("${word}", "hello"),
        ("$word$word", "hellohello"),
        ("${word}s", "hellos"),
        ("$words", ""),
        ("$word-x", "hello-x"),
        ("$word.x", "hello.x"),
        ("a${word}b", "ahellob"),
        ("$_x1", "under"),
        ("$äöü", "umlaut"),
        ("$unset", ""),
        ("[$unset]", "[]"),
        ("$empty", ""),
        ("$1", "one"),
        ("$1word", "oneword"),
        ("$12", ""),
        ("${1}", "one"),
        ("$dollar", "$word"),
        ("$quoted", "\"q\" 'r'"),
        ("$Word", ""),
        // A dollar sign that starts nothing, and special parameters, which are unset.
        ("$", "$"),
        ("a$", "a$"),
        ("$ a", "$ a"),
        ("$.a", "$.a"),
        ("$(a)", "$(a)"),
        ("$'a'", "$a"),
        (r#"$"a""#, "$a"),
        ("$/a", "$/a"),
        ("$$", ""),
        ("$$word", "word"),
        ("$@a", "a"),
        ("$?", ""),
        ("$!", ""),
        ("$#", ""),
        ("$*", ""),
        ("$-", ""),
        ("${#}", ""),
        ("${@}", ""),
        // Default: `-` and `:-`.
        ("${word:-x}", "hello"),
        ("${word-x}", "hello"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${unset:-x}", "x"),
        ("${unset-x}", "x"),
        ("${unset:-}", ""),
        ("${unset-}", ""),
        ("${unset:-$word}", "hello"),
        ("${unset:-${word}}", "hello"),
        ("${unset:-${also:-deep}}", "deep"),
        ("${unset:-a b}", "a b"),
        ("${unset:-'$word'}", "$word"),
        (r#"${unset:-"$word }"}"#, "hello }"),
        (r"${unset:-a\}b}", "a}b"),
        (r"${unset:-\$word}", "$word"),
        ("${unset:--}", "-"),
        ("${unset:-:-}", ":-"),
        ("${unset:-/a}", "/a"),
        // Alternative: `+` and `:+`.
        ("${word:+x}", "x"),
        ("${word+x}", "x"),
        ("${empty:+x}", ""),
        ("${empty+x}", "x"),
        ("${unset:+x}", ""),
        ("${unset+x}", ""),
        ("${word:+$path}", "/usr/local/bin"),
        ("${word:+}", ""),
        ("${word:+a'b c'}", "ab c"),
        // Required: `?` and `:?`.
        ("${word:?x}", "hello"),
        ("${word?x}", "hello"),
        ("${empty?x}", ""),
        ("${word?}", "hello"),
        // Prefix: `#` and `##`.
        ("${path#/}", "usr/local/bin"),
        ("${path#/usr}", "/local/bin"),
        ("${path#usr}", "/usr/local/bin"),
        ("${path#*/}", "usr/local/bin"),
        ("${path##*/}", "bin"),
        ("${path#/*/}", "local/bin"),
        ("${path##/*/}", "bin"),
        ("${word#?}", "ello"),
        ("${word#??}", "llo"),
        ("${word##?????}", ""),
        ("${word#??????}", "hello"),
        ("${word#}", "hello"),
        ("${word##}", "hello"),
        ("${word##*}", ""),
        ("${word#*}", "hello"),
        ("${unset#x}", ""),
        ("${empty#x}", ""),
        (r"${star#a\*}", "b?c"),
        (r"${star##*\?}", "c"),
        (r"${back#a\\}", "b"),
        (r"${brace#a\}}", "b"),
        ("${file#app.}", "tar.gz"),
        ("${file#$unset}", "app.tar.gz"),
        ("${path#${unset:-/usr}}", "/local/bin"),
        ("${word#[h]}", "hello"),
        ("${word#'he'}", "llo"),
        ("${lines#*}", "one\ntwo"),
        ("${lines##*}", "\ntwo"),
        ("${äöü#um}", "laut"),
        // Suffix: `%` and `%%`.
        ("${file%.gz}", "app.tar"),
        ("${file%.*}", "app.tar"),
        ("${file%%.*}", "app"),
        ("${file%.zip}", "app.tar.gz"),
        ("${word%?}", "hell"),
        ("${word%%*}", ""),
        ("${word%*}", "hello"),
        ("${word%}", "hello"),
        ("${path%/*}", "/usr/local"),
        ("${path%%/*}", ""),
        ("${slashes%/?}", "a/b"),
        ("${slashes%%/*c}", "a"),
        (r"${star%\?c}", "a*b"),
        ("${unset%x}", ""),
        ("${repeat%ab}", "abab"),
        ("${repeat%%a*b}", ""),
        ("${repeat%a*b}", "abab"),
        // Replacement: `/` and `//`.
        ("${word/l/L}", "heLlo"),
        ("${word//l/L}", "heLLo"),
        ("${word/l/}", "helo"),
        ("${word//l/}", "heo"),
        ("${word/x/y}", "hello"),
        ("${word/l*/p}", "hep"),
        ("${word/?l/_}", "h_lo"),
        (r"${slashes/\//-}", "a-b/c"),
        (r"${slashes//\//-}", "a-b-c"),
        (r"${slashes//\//\/}", r"a\/b\/c"),
        (r"${brace/\}/-}", "a-b"),
        ("${word/$unset/x}", "xhello"),
        ("${word/l/$1}", "heonelo"),
        ("${word//l/${unset:-L}}", "heLLo"),
        ("${unset/a/b}", ""),
        ("${file/.tar.gz/.zip}", "app.zip"),
        ("${file//./_}", "app_tar_gz"),
        ("${file/a?p/x}", "x.tar.gz"),
        ("${star/\\*/+}", "a+b?c"),
        ("${repeat//ab/a}", "aaa"),
        ("${repeat/b*/}", "a"),
        // A name may be empty in braces.
        ("${/a/b}", ""),
        ("${+x}", ""),
        // In and around quotes.
        (r#""${unset:-"a"}b""#, "ab"),
        (r#""${unset:-'a'}""#, "a"),
        (r#"pre"$word"'$word'$word"#, "prehello$wordhello"),
        (r#""a${word:+" b "}c""#, "a b c"),
    ];
    assert!(table.len() >= 120, "{} rows", table.len());
    for (raw, expected) in table {
        assert_eq!(expand(&word(raw), '\\', &lookup).as_deref(), Ok(*expected), "{raw}");
    }
}

#[test]
fn the_backtick_takes_the_place_of_the_backslash() {
    for (raw, expected) in [
        ("`$word", "$word"),
        (r"c:\$word", r"c:\hello"),
        ("a``b", "a`b"),
        ("\"`$word`\"\"", "$word\""),
        (r#""\$word""#, r"\hello"),
        ("a`", "a"),
        // In patterns the backslash escapes all the same.
        (r"${star#a\*}", "b?c"),
    ] {
        assert_eq!(expand(&word(raw), '`', &lookup).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn mistakes_and_their_places() {
    for (raw, message, place) in [
        ("a'b", "unfinished single quote", "'b"),
        ("a\"b", "unfinished double quote", "\"b"),
        ("a\"b\\\"", "unfinished double quote", "\"b\\\""),
        ("${unset:-'a}", "unfinished single quote", "'a}"),
        ("a${", "missing '}' in substitution", "${"),
        ("a${word", "missing '}' in substitution", "${word"),
        ("${word:", "missing '}' in substitution", "${word:"),
        ("${word:-a", "missing '}' in substitution", "${word:-a"),
        ("${word#a", "missing '}' in substitution", "${word#a"),
        ("${word/a/b", "missing '}' in substitution", "${word/a/b"),
        ("${word/a}", "missing '/' in substitution", "${word/a}"),
        ("${word//a}", "missing '/' in substitution", "${word//a}"),
        ("x${}", "bad substitution", "${}"),
        ("${{word}}", "bad substitution", "${{"),
        ("${:-a}", "bad substitution", "${:"),
        ("${word&a}", "unsupported modifier (&) in substitution", "${word&"),
        ("${word a}", "unsupported modifier ( ) in substitution", "${word "),
        ("${word:a}", "unsupported modifier (:a) in substitution", "${word:a"),
        ("${word:}", "unsupported modifier (:}) in substitution", "${word:}"),
        ("${word:#a}", "unsupported modifier (:#) in substitution", "${word:#"),
        ("${word:%a}", "unsupported modifier (:%) in substitution", "${word:%"),
        ("${word:/a/b}", "unsupported modifier (:/) in substitution", "${word:/"),
        ("${word^^}", "unsupported modifier (^) in substitution", "${word^"),
        ("${#word}", "unsupported modifier (w) in substitution", "${#w"),
        ("${!word}", "unsupported modifier (w) in substitution", "${!w"),
        ("a${unset?}", "unset: is not allowed to be unset", "${unset?}"),
        ("a${unset:?}", "unset: is not allowed to be unset", "${unset:?}"),
        // The word of a modifier is read even when it is not used.
        ("${word:-${unset?never}}", "unset: never", "${unset?never}"),
        ("${unset?give one}", "unset: give one", "${unset?give one}"),
        ("${empty:?}", "empty: is not allowed to be empty", "${empty:?}"),
        ("${empty:?$word}", "empty: hello", "${empty:?$word}"),
        (r"${word#\x}", r"invalid pattern (\x) in substitution: invalid escape \x", r"${word#\x}"),
        (r"${word/\h/x}", r"invalid pattern (\h) in substitution: invalid escape \h", r"${word/\h/x}"),
    ] {
        let error = expand(&word(raw), '\\', &lookup).expect_err(raw);
        assert_eq!((error.to_string().as_str(), &raw[error.span]), (message, place), "{raw}");
    }
}

#[test]
fn places_in_a_word_that_was_continued_are_the_whole_word() {
    let continued = Word { raw: "ab${".to_owned(), span: 10..20 };
    assert_eq!(expand(&continued, '\\', &lookup).unwrap_err().span, 10..20);
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| format!("{}x{}", "${a:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expand(&word(&nested(100)), '\\', &lookup).as_deref(), Ok("x"));
    let error = expand(&word(&nested(101)), '\\', &lookup).unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooDeep);
    assert!(expand(&word(&nested(10_000)), '\\', &lookup).is_err());
}

#[test]
fn splitting_into_words() {
    for (raw, expected) in [
        ("", &[][..]),
        ("80", &["80"]),
        ("80 443", &["80", "443"]),
        ("$spaced", &["a", "b", "c"]),
        ("x$spaced", &["xa", "b", "c"]),
        ("\"$spaced\"", &["a  b c"]),
        ("'a b' c", &["a b", "c"]),
        ("a\\ b", &["a b"]),
        ("$unset", &[]),
        ("\"\"", &[]),
        ("$unset 1", &["1"]),
        ("${unset:-1 2}/udp", &["1", "2/udp"]),
        ("a\tb\nc", &["a", "b", "c"]),
    ] {
        let words = expand_words(&word(raw), '\\', &lookup).unwrap();
        assert_eq!(words, expected, "{raw}");
    }
}

#[test]
fn the_variables_of_a_word() {
    for (raw, expected) in [
        ("", &[][..]),
        ("a", &[]),
        ("$a ${b} '$c' \\$d \"$e\"", &["a", "b", "e"]),
        ("$a$a$b", &["a", "b"]),
        ("${a:-$b}", &["b", "a"]),
        ("${a:?$b}${c#$d}${e/$f/$g}", &["b", "a", "d", "c", "f", "g", "e"]),
        ("${a#\\x}$b", &["a", "b"]),
        ("$a${", &["a"]),
        ("$", &[]),
    ] {
        assert_eq!(variables(&word(raw), '\\'), expected, "{raw}");
    }
}

proptest! {
    #[test]
    fn any_text_expands_or_says_where_it_is_wrong(raw in r#"[ab1 '"\\`/$\{\}:?#%*é+-]{0,40}"#) {
        for escape in ['\\', '`'] {
            if let Err(error) = expand(&word(&raw), escape, &lookup) {
                prop_assert!(raw.get(error.span.clone()).is_some(), "{:?}", error);
            }
            variables(&word(&raw), escape);
        }
    }

    #[test]
    fn quoting_brings_any_text_through(text in any::<String>()) {
        let quoted = format!("'{}'", text.replace('\'', r"'\''"));
        prop_assert_eq!(expand(&word(&quoted), '\\', &lookup), Ok(text));
    }

    #[test]
    fn every_variable_that_is_asked_for_is_named(raw in r#"[ab '"\\/$\{\}:?#%+-]{0,30}"#) {
        let asked = std::cell::RefCell::new(Vec::new());
        let _ = expand(&word(&raw), '\\', &|name| {
            asked.borrow_mut().push(name.to_owned());
            Some("v".to_owned())
        });
        let named = variables(&word(&raw), '\\');
        for name in asked.into_inner() {
            prop_assert!(named.contains(&name), "{} in {:?}", name, named);
        }
    }
}
