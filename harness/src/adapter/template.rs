// SPDX-License-Identifier: Apache-2.0
//! One element of a command line with placeholders.
//!
//! The placeholders are a closed set; an unknown one is an error where it is written. `{{` and `}}` stand for the
//! braces themselves. There is no shell anywhere: an element stays one element whatever is put into it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::document::Located;

/// A template with its place in the adapter, so that a placeholder in the wrong command can be pointed at.
pub type Argument = Located<Template>;

/// What can stand in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// `{ref}`: the image's name.
    Reference,
    /// `{dockerfile}`: the path of the Dockerfile.
    Dockerfile,
    /// `{context}`: the folder of the build context.
    Context,
    /// `{options}`: the options of this build; must be an element by itself, and becomes none, one or many.
    Options,
    /// `{key}`: the name of a build argument.
    Key,
    /// `{value}`: the value of an option.
    Value,
    /// `{archive}`: a docker archive (the format of `docker save`) with the base images.
    Archive,
    /// `{state}`: a folder that belongs to this builder for the whole run.
    State,
    /// `{tmp}`: a folder for files that nobody needs after the command.
    Scratch,
    /// `{containerd}`: the path of the node's containerd socket.
    Containerd,
    /// `{namespace}`: the containerd namespace that pods read.
    Namespace,
    /// `{cgroup}`: the cgroup below which the builder's processes belong, as an absolute path in the hierarchy.
    Cgroup,
    /// `{candidate}`: the program being looked at during discovery.
    Candidate,
    /// `{beside}`: the folder of the harness's own program.
    Beside,
    /// `{program.NAME}`: a program that discovery found.
    Program(String),
}

impl Placeholder {
    const PLAIN: [(&'static str, Self); 14] = [
        ("ref", Self::Reference),
        ("dockerfile", Self::Dockerfile),
        ("context", Self::Context),
        ("options", Self::Options),
        ("key", Self::Key),
        ("value", Self::Value),
        ("archive", Self::Archive),
        ("state", Self::State),
        ("tmp", Self::Scratch),
        ("containerd", Self::Containerd),
        ("namespace", Self::Namespace),
        ("cgroup", Self::Cgroup),
        ("candidate", Self::Candidate),
        ("beside", Self::Beside),
    ];

    fn parse(word: &str) -> Result<Self, String> {
        if let Some(name) = word.strip_prefix("program.") {
            return Ok(Self::Program(name.to_owned()));
        }
        Self::PLAIN
            .into_iter()
            .find(|(plain, _)| *plain == word)
            .map(|(_, placeholder)| placeholder)
            .ok_or_else(|| {
                let known: Vec<String> =
                    Self::PLAIN.iter().map(|(plain, _)| format!("{{{plain}}}")).collect();
                format!("unknown placeholder `{{{word}}}`; there are {}, {{program.NAME}}", known.join(", "))
            })
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Self::PLAIN.iter().find(|(_, placeholder)| placeholder == self);
        match (self, plain) {
            (Self::Program(name), _) => write!(out, "{{program.{name}}}"),
            (_, Some((word, _))) => write!(out, "{{{word}}}"),
            (_, None) => Err(fmt::Error),
        }
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(String),
    Placeholder(Placeholder),
}

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// An unknown placeholder or a brace without its partner, as a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                literal.push_str(&rest[..1]);
                rest = after;
                continue;
            }
            let Some((word, after)) = rest.strip_prefix('{').and_then(|body| body.split_once('}')) else {
                return Err(format!(
                    "a brace without its partner in `{text}`; write it twice to mean the letter"
                ));
            };
            if !literal.is_empty() {
                segments.push(Segment::Literal(std::mem::take(&mut literal)));
            }
            segments.push(Segment::Placeholder(Placeholder::parse(word)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        if segments.len() > 1 && segments.contains(&Segment::Placeholder(Placeholder::Options)) {
            return Err("`{options}` must be an element by itself".to_owned());
        }
        Ok(Self { segments })
    }

    /// The placeholders in it.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Placeholder(placeholder) => Some(placeholder),
            Segment::Literal(_) => None,
        })
    }

    /// Whether this is the element that becomes the build's options.
    pub fn is_options(&self) -> bool {
        self.segments == [Segment::Placeholder(Placeholder::Options)]
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<String> = Placeholder::PLAIN.iter().map(|(word, _)| format!("{{{word}}}")).collect();
        json_schema!({
            "type": "string",
            "description": format!("text with placeholders: {}, {{program.NAME}}", words.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_split_at_placeholders() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        let template = Template::parse("unix://{state}/d.sock").expect("a template");
        assert_eq!(
            template.segments(),
            [literal("unix://"), Segment::Placeholder(Placeholder::State), literal("/d.sock")]
        );
        let braces = Template::parse("{{{{.Server}}}}").expect("a template");
        assert_eq!(braces.segments(), [literal("{{.Server}}")]);
        assert!(Template::parse("{options}").expect("a template").is_options());
        let program = Template::parse("{program.docker}").expect("a template");
        assert_eq!(program.placeholders().map(ToString::to_string).collect::<Vec<_>>(), ["{program.docker}"]);
    }

    #[test]
    fn malformed_templates_say_why() {
        for (text, message) in [
            (
                "{rev}",
                "unknown placeholder `{rev}`; there are {ref}, {dockerfile}, {context}, {options}, {key}, {value}, \
                 {archive}, {state}, {tmp}, {containerd}, {namespace}, {cgroup}, {candidate}, {beside}, {program.NAME}",
            ),
            ("a{b", "a brace without its partner in `a{b`; write it twice to mean the letter"),
            ("a}b", "a brace without its partner in `a}b`; write it twice to mean the letter"),
            ("--x={options}", "`{options}` must be an element by itself"),
        ] {
            assert_eq!(Template::parse(text), Err(message.to_owned()));
        }
    }
}
