// SPDX-License-Identifier: Apache-2.0
//! Diagnostics as people read them in a terminal or a log: the sentence, the source line, a caret, notes and help.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity};

impl Diagnostic {
    /// The diagnostic over several lines, without a newline at the end. `coloured` adds ANSI escapes; whether the
    /// reader wants them is the caller's to know.
    pub fn render(&self, coloured: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Notice => Level::NOTE,
        };
        let mut group = Group::with_title(level.primary_title(&*self.message).id(self.code));
        if let Some(location) = &self.location {
            group = group.element(
                Snippet::source(&*location.source)
                    .path(&*location.file)
                    .annotation(AnnotationKind::Primary.span(location.span.clone())),
            );
        }
        for note in &self.notes {
            group = group.element(Level::NOTE.message(&**note));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(&**help));
        }
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Location;
    use super::*;

    fn place(source: &str, text: &str) -> Location {
        let start = source.find(text).unwrap();
        Location::new("Dockerfile", Arc::from(source), start..start + text.len())
    }

    #[test]
    fn an_error_with_everything() {
        let error = Diagnostic::error("dockerfile/unsupported", "ADD is not supported yet")
            .at(place("FROM scratch\nADD a.tar /\nCMD x\n", "ADD"))
            .with_note("only plain files are involved here")
            .with_help("use COPY");
        insta::assert_snapshot!(error.render(false), @"
        error[dockerfile/unsupported]: ADD is not supported yet
         --> Dockerfile:2:1
          |
        2 | ADD a.tar /
          | ^^^
          |
          = note: only plain files are involved here
          = help: use COPY
        ");
    }

    #[test]
    fn a_span_over_several_lines() {
        let error = Diagnostic::error("run/failed", "exit code 1")
            .at(place("FROM a\r\nRUN x \\\r\n  y\r\nCMD z", "RUN x \\\r\n  y"));
        insta::assert_snapshot!(error.render(false), @r"
        error[run/failed]: exit code 1
         --> Dockerfile:2:1
          |
        2 | / RUN x \
        3 | |   y
          | |___^
        ");
    }

    #[test]
    fn the_end_of_the_file() {
        let source: Arc<str> = "# nothing\n".into();
        let end = source.len();
        let error = Diagnostic::error("dockerfile/empty", "no instruction").at(Location::new(
            "Dockerfile",
            source,
            end..end,
        ));
        insta::assert_snapshot!(error.render(false), @"
        error[dockerfile/empty]: no instruction
         --> Dockerfile:1:10
          |
        1 | # nothing
          |          ^
        ");
    }

    #[test]
    fn severities_without_a_place() {
        let lines = [
            Diagnostic::error("a/b", "one").render(false),
            Diagnostic::warning("a/b", "two").render(false),
            Diagnostic::notice("a/b", "three").with_help("four").render(false),
        ];
        insta::assert_snapshot!(lines.join("\n---\n"), @"
        error[a/b]: one
        ---
        warning[a/b]: two
        ---
        note[a/b]: three
         |
         = help: four
        ");
    }

    #[test]
    fn colour_is_only_given_when_asked_for() {
        let error = Diagnostic::error("a/b", "one").at(place("FROM a", "a"));
        assert!(error.render(true).contains('\u{1b}'));
        assert!(!error.render(false).contains('\u{1b}'));
    }
}
