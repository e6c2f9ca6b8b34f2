// SPDX-License-Identifier: Apache-2.0
//! Decides what the rules of an ignore file hide, walking from the root down.
//!
//! The last rule that matches a path or one of its parents wins. Which rules matched the parent is carried along as an
//! [`IgnoreTrail`], because that is how the reference decides (`MatchesUsingParentResults`), and it shows: a rule that
//! had no say for a directory (a `!docs` while nothing hid `docs`) has none for what lies below, so `docs/*` followed by
//! `!docs` still hides `docs/a`. This module is pure.

use std::os::unix::ffi::OsStrExt;

use crate::image::ImagePath;

use super::super::pattern::{Pattern, PatternError};

/// The rules of one ignore file, in order. The default hides nothing.
#[derive(Debug, Default)]
pub struct IgnoreMatcher {
    rules: Vec<IgnoreRule>,
}

/// One line of an ignore file.
#[derive(Debug)]
pub struct IgnoreRule {
    pattern: Pattern,
    negated: bool,
    line: usize,
    text: String,
}

/// Which rules matched a directory or one above it. The default is that of the root, which no rule can match.
#[derive(Debug, Clone, Default)]
pub struct IgnoreTrail {
    matched: Box<[bool]>,
}

/// What the rules say of one path.
#[derive(Debug, Clone, Default)]
pub struct IgnoreVerdict {
    /// Whether the path is hidden. A hidden directory still exists when something below it is not hidden.
    pub ignored: bool,
    /// The rule that had the last word, as an index for [`IgnoreMatcher::rule`]; `None` when none matched.
    pub decided_by: Option<usize>,
    /// For the entries of this path when it is a directory.
    pub trail: IgnoreTrail,
}

impl IgnoreRule {
    pub(super) fn new(pattern: &[u8], negated: bool, line: usize) -> Result<Self, PatternError> {
        let text = format!("{}{}", if negated { "!" } else { "" }, String::from_utf8_lossy(pattern));
        Ok(Self { pattern: Pattern::ignore(pattern)?, negated, line, text })
    }

    /// Its line, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The line, cleaned, with U+FFFD for what is not UTF-8.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl IgnoreMatcher {
    pub(super) fn new(rules: Vec<IgnoreRule>) -> Self {
        Self { rules }
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules in order.
    pub fn rules(&self) -> impl Iterator<Item = &IgnoreRule> {
        self.rules.iter()
    }

    /// The rule of a verdict.
    pub fn rule(&self, index: usize) -> Option<&IgnoreRule> {
        self.rules.get(index)
    }

    /// What the rules say of `path`, which lies directly below the directory that `parent` belongs to.
    pub fn descend(&self, parent: &IgnoreTrail, path: &ImagePath) -> IgnoreVerdict {
        let bytes = path.relative().as_bytes();
        let mut matched = vec![false; self.rules.len()].into_boxed_slice();
        let mut ignored = false;
        let mut decided_by = None;
        for (index, rule) in self.rules.iter().enumerate() {
            let inherited = parent.matched.get(index).copied().unwrap_or(false);
            // A rule that would change nothing is not asked.
            if !inherited && (rule.negated != ignored || !rule.pattern.matches(bytes)) {
                continue;
            }
            matched[index] = true;
            if ignored == rule.negated {
                decided_by = Some(index);
            }
            ignored = !rule.negated;
        }
        IgnoreVerdict { ignored, decided_by, trail: IgnoreTrail { matched } }
    }

    /// What the rules say of `path`, starting at the root.
    pub fn verdict(&self, path: &ImagePath) -> IgnoreVerdict {
        let mut verdict = IgnoreVerdict::default();
        let mut at = ImagePath::root();
        for name in path.components() {
            at = at.child(name);
            verdict = self.descend(&verdict.trail, &at);
        }
        verdict
    }

    /// Whether `path` is hidden. The rules do not ask whether it is a directory.
    pub fn is_ignored(&self, path: &ImagePath) -> bool {
        self.verdict(path).ignored
    }

    /// Whether nothing below `directory` can be visible, so that it need not be read. `verdict` is that of `directory`.
    ///
    /// A rule that matched the directory goes on matching below it. So once it is hidden, only an exception after the
    /// last such rule can bring something back, and only by matching a path below.
    pub fn may_skip(&self, directory: &ImagePath, verdict: &IgnoreVerdict) -> bool {
        if !verdict.ignored {
            return false;
        }
        let last = verdict.trail.matched.iter().rposition(|matched| *matched).map_or(0, |index| index + 1);
        let bytes = directory.relative().as_bytes();
        !self.rules[last..].iter().any(|rule| rule.negated && rule.pattern.can_match_below(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::IgnoreFile;
    use super::*;

    fn matcher(rules: &[&str]) -> IgnoreMatcher {
        IgnoreFile::parse(rules.join("\n").as_bytes(), PathBuf::new()).expect("well-formed").matcher
    }

    #[test]
    fn what_is_hidden() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&[], "a", false),
            (&["a"], "a", true),
            (&["a"], "a/b/c", true),
            (&["a"], "b/a", false),
            (&["a"], "ab", false),
            (&["/a/"], "a/b", true),
            (&["."], "a", false),
            (&["/"], "a", false),
            (&["../a"], "a", false),
            (&["*"], "a", true),
            (&["*"], "a/b", true),
            (&["*/*"], "a", false),
            (&["*/*"], "a/b", true),
            (&["*/*"], "a/b/c", true),
            (&["*.md"], "README.md", true),
            (&["*.md"], "docs/README.md", false),
            (&["**/*.md"], "docs/README.md", true),
            (&["**/*.md"], "README.md", true),
            (&["**/node_modules"], "a/node_modules/b/c", true),
            (&["a/**"], "a", false),
            (&["a/**"], "a/b", true),
            (&["temp?"], "tempa", true),
            (&["temp?"], "temp", false),
            // The last match wins.
            (&["*.md", "!README.md"], "README.md", false),
            (&["!README.md", "*.md"], "README.md", true),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
            // A child of a hidden directory comes back.
            (&["docs", "!docs/README.md"], "docs/README.md", false),
            (&["docs", "!docs/README.md"], "docs/other", true),
            (&["docs", "!docs/README.md"], "docs", true),
            (&["docs/", "!docs/README.md"], "docs/README.md", false),
            (&["docs/*", "!docs/README.md"], "docs/README.md", false),
            (&["*", "!src"], "src/main.rs", false),
            (&["*", "!src"], "lib/main.rs", true),
            (&["*", "!src/**"], "src/a/b", false),
            (&["**", "!src/**/*.rs"], "src/a/b.rs", false),
            (&["**", "!src/**/*.rs"], "src/a/b.c", true),
            (&["**", "!util/docker/web"], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["**", "!dist/*.whl"], "dist/proxy-2.4.0rc3.dev36+g08acad9-py3.whl", false),
            (&["a", "!a/b", "a/b/c", "!a/b/c/d"], "a/b/c/d", false),
            (&["a", "!a/b", "a/b/c", "!a/b/c/d"], "a/b/c/e", true),
            // An exception that had nothing to bring back at the directory says nothing about what lies below.
            (&["docs/*", "!docs"], "docs/a", true),
            (&["docs/*", "!docs/"], "docs/a/b", true),
            (&["docs", "docs/*", "!docs"], "docs/a", false),
            // An escaped exclamation mark and hash are names.
            (&["\\!a"], "!a", true),
            (&["!!a"], "!a", false),
            (&["\\#a"], "#a", true),
        ];
        for (rules, path, expected) in cases {
            assert_eq!(matcher(rules).is_ignored(&ImagePath::new(path)), *expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn the_deciding_rule_is_told() {
        let rules = matcher(&["# none", "docs", "!docs/keep", "**/*.tmp"]);
        let decided = |path: &str| {
            let index = rules.verdict(&ImagePath::new(path)).decided_by?;
            rules.rule(index).map(|rule| (rule.line(), rule.text().to_owned()))
        };
        assert_eq!(decided("src"), None);
        assert_eq!(decided("docs/x/y"), Some((2, "docs".to_owned())));
        assert_eq!(decided("docs/keep/y"), Some((3, "!docs/keep".to_owned())));
        assert_eq!(decided("docs/keep/y.tmp"), Some((4, "**/*.tmp".to_owned())));
    }

    #[test]
    fn directories_that_need_not_be_read() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["a"], "a", true),
            (&["a"], "b", false),
            (&["*", "!src"], "node_modules", true),
            (&["*", "!src/lib"], "src", false),
            (&["*", "!*.md"], "node_modules", true),
            (&["*", "!*/*.md"], "node_modules", false),
            (&["*", "!*/*.md"], "node_modules/a", true),
            (&["*", "!**/*.md"], "node_modules", false),
            (&["!**/*.md", "*"], "node_modules", true),
            (&["*", "!src/**/x", "node_modules"], "node_modules", true),
        ];
        for (rules, directory, expected) in cases {
            let matcher = matcher(rules);
            let directory = ImagePath::new(directory);
            assert_eq!(
                matcher.may_skip(&directory, &matcher.verdict(&directory)),
                *expected,
                "{rules:?} {directory}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_skipped_directory_never_hides_what_comes_back(
            lines in prop::collection::vec("!?(a|b|\\*|\\*\\*|\\?|\\[\\^a\\])(/(a|b|\\*|\\*\\*|ab)){0,3}", 1..6),
            path in "(a|b|ab)(/(a|b|ab)){1,4}",
        ) {
            let text = lines.join("\n");
            let matcher = IgnoreFile::parse(text.as_bytes(), PathBuf::new()).expect("well-formed").matcher;
            let path = ImagePath::new(path);
            if !matcher.is_ignored(&path) {
                for above in path.ancestors() {
                    prop_assert!(!matcher.may_skip(&above, &matcher.verdict(&above)), "{text:?} {above} {path}");
                }
            }
        }
    }
}
