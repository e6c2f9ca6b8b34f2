// SPDX-License-Identifier: Apache-2.0

use super::*;

fn glob(pattern: &str, path: &str) -> bool {
    Pattern::glob(pattern.as_bytes()).expect(pattern).matches(path.as_bytes())
}

fn ignore(pattern: &str, path: &str) -> bool {
    Pattern::ignore(pattern.as_bytes()).expect(pattern).matches(path.as_bytes())
}

/// What both dialects agree on.
#[test]
fn wildcards_within_a_component() {
    for (pattern, path, expected) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("abc", "ABC", false),
        ("*", "abc", true),
        ("*", "", true),
        ("*", "a/b", false),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("*/*", "a/b", true),
        ("*/*", "a", false),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("?", "a", true),
        ("?", "/", false),
        ("?", "", false),
        ("a?b", "a\u{263a}b", true),
        ("a???b", "a\u{263a}b", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a[^a]b", "a\u{263a}b", true),
        ("[a-\u{3b6}]*", "\u{3b1}", true),
        ("*[a-\u{3b6}]", "A", false),
        // `!` does not negate, and further members of a class are unions, never set operations.
        ("[!a]", "!", true),
        ("[!a]", "b", false),
        ("[a&&b]", "&", true),
        ("[[]", "[", true),
        ("[a[]", "[", true),
        // A class may match a slash: filepath.Match only stops * and ? there.
        ("a[^b]c", "a/c", true),
        ("a[.-0]c", "a/c", true),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "-", true),
        ("[x\\-]", "z", false),
        ("[\\-x]", "x", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a\\b", "ab", true),
        ("\\[a", "[a", true),
        ("a\\\\", "a\\", true),
        ("\\d", "d", true),
        ("\\d", "1", false),
        // What means something in a regular expression means itself here.
        ("a.c", "abc", false),
        ("a(b)|c{2}$^+", "a(b)|c{2}$^+", true),
        ("^*", "^a", true),
        ("]", "]", true),
        ("a]*", "a]b", true),
        ("{a,b}", "a", false),
        ("*", "a\nb", true),
    ] {
        assert_eq!(glob(pattern, path), expected, "glob {pattern:?} {path:?}");
        assert_eq!(ignore(pattern, path), expected, "ignore {pattern:?} {path:?}");
    }
}

#[test]
fn two_stars_in_an_ignore_file() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dirx/file", false),
        ("**/dir", "dir", true),
        ("**/dir", "a/b/dir", true),
        ("**/dir", "a/xdir", false),
        ("**/.foo", "bar.foo", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("**/foo/bar", "dir/xfoo/bar", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/sub/file", false),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "a/b/file.txt", true),
        ("**/**/*.txt2", "a/b/file.txt", false),
        ("**/file*txt", "a/b/file.txt", true),
        // Two stars directly before literal text: whatever ends in it ...
        ("**file", "file", true),
        ("**file", "xfile", true),
        ("**file", "dir/xfile", true),
        // ... unless another wildcard follows; then the text begins a component.
        ("**file*", "dir/file1", true),
        ("**file*", "dir/xfile1", false),
        // Inside of a component they reach over whole components only.
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/b/c/file.txt", true),
        ("a**/*.txt", "ab/file.txt", true),
        ("a**/*.txt", "afile.txt", true),
        ("a**b", "ab", true),
        ("a**b", "ax/y/b", true),
        ("a**b", "axb", false),
        ("a**", "abc/def", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt.d/x", true),
        ("a***b", "axb", true),
        ("a***b", "ax/y/xb", true),
        ("***", "a", true),
        ("***/b", "a/b", true),
    ] {
        assert_eq!(ignore(pattern, path), expected, "{pattern:?} {path:?}");
    }
}

#[test]
fn two_stars_of_a_copy_source_are_one() {
    assert!(glob("**", "a"));
    assert!(!glob("**", "a/b"));
    assert!(glob("**/x", "a/x"));
    assert!(!glob("**/x", "a/b/x"));
}

#[test]
fn malformed_patterns() {
    use PatternProblem::*;
    for (pattern, problem) in [
        ("[]a]", MissingCharacter),
        ("[-]", MissingCharacter),
        ("[x-]", MissingCharacter),
        ("[-x]", MissingCharacter),
        ("[+--]", MissingCharacter),
        ("[a-b-c]", MissingCharacter),
        ("[]", MissingCharacter),
        ("[^]", MissingCharacter),
        ("[", UnclosedClass),
        ("[^", UnclosedClass),
        ("[^bc", UnclosedClass),
        ("a[", UnclosedClass),
        ("[a-", UnclosedClass),
        ("[a\\", UnclosedClass),
        ("x*[a", UnclosedClass),
        ("\\", TrailingBackslash),
        ("*.txt\\", TrailingBackslash),
    ] {
        let error = PatternError { pattern: pattern.to_owned(), problem };
        assert_eq!(Pattern::glob(pattern.as_bytes()).err(), Some(error.clone()), "{pattern}");
        assert_eq!(Pattern::ignore(pattern.as_bytes()).err(), Some(error), "{pattern}");
    }
    assert_eq!(
        Pattern::glob(b"a[").expect_err("must fail").to_string(),
        "parse pattern \"a[\": the character class is not closed by ]"
    );
    assert_eq!(Pattern::glob(b"[\xff]").err().map(|error| error.problem), Some(ClassNotUtf8));
}

#[test]
fn a_reversed_range_is_empty_in_a_source_and_wrong_in_an_ignore_file() {
    assert!(!glob("[b-a]", "a"));
    assert!(glob("[^b-a]", "a"));
    assert!(glob("[b-ac]", "c"));
    assert_eq!(
        Pattern::ignore(b"[b-a]").err().map(|error| error.problem),
        Some(PatternProblem::ReversedRange)
    );
}

#[test]
fn names_that_are_not_utf8() {
    for (pattern, path, expected) in [
        (&b"a\xff"[..], &b"a\xff"[..], true),
        (b"a\xff", b"a\xfe", false),
        (b"a?", b"a\xff", true),
        (b"a?", b"a\xff\xff", false),
        (b"a??", b"a\xe2\x98", true),
        (b"*.txt", b"\xff\xfe.txt", true),
        (b"**/b\xff", b"a/b\xff", true),
        (b"\xff*", b"\xffx", true),
    ] {
        let pattern = Pattern::ignore(pattern).expect("well-formed");
        assert_eq!(pattern.matches(path), expected, "{pattern:?} {path:?}");
    }
}

#[test]
fn what_counts_as_a_wildcard() {
    for (text, expected) in [
        ("a", false),
        ("a*", true),
        ("?", true),
        ("[", true),
        ("]", false),
        ("a\\*", false),
        ("\\\\*", true),
        ("a\\", false),
    ] {
        assert_eq!(Pattern::is_wildcard(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn directories_that_cannot_hold_a_match() {
    for (pattern, directory, expected) in [
        ("docs/README.md", "docs", true),
        ("docs/README.md", "src", false),
        ("docs/README.md", "docs/README.md", false),
        ("docs/README.md", "docs/sub", false),
        ("*.md", "docs", false),
        ("*/x", "docs", true),
        ("*/x", "docs/sub", false),
        ("d*/a/x", "docs/a", true),
        ("d*/a/x", "docs/b", false),
        ("**/x", "anything/at/all", true),
        ("docs/**/x", "docs", true),
        ("docs/**/x", "docs/a/b", true),
        ("docs/**/x", "src/a/b", false),
        ("docs/**", "src", false),
        ("docs/**", "docs", true),
        ("a[^b]c/d", "a", true),
        ("a[^b]c/d", "x", true),
        ("x/a[^b]c", "y", false),
        ("a[x]c/d", "axc", true),
        ("a[x]c/d", "ayc", false),
    ] {
        let compiled = Pattern::ignore(pattern.as_bytes()).expect(pattern);
        assert_eq!(compiled.can_match_below(directory.as_bytes()), expected, "{pattern:?} {directory:?}");
    }
}

proptest::proptest! {
    #[test]
    fn a_match_below_a_directory_is_always_foreseen(
        pattern in "[ab*/?\\[\\]^]{1,8}",
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        for pattern in [Pattern::glob(pattern.as_bytes()), Pattern::ignore(pattern.as_bytes())].into_iter().flatten() {
            if !pattern.matches(path.as_bytes()) {
                continue;
            }
            for (end, _) in path.match_indices('/') {
                proptest::prop_assert!(pattern.can_match_below(&path.as_bytes()[..end]), "{pattern:?} {path}");
            }
        }
    }
}
