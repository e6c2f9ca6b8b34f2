// SPDX-License-Identifier: Apache-2.0
//! The second stage of the parser: one logical line to one typed instruction.
//!
//! This is the one place that refuses what the engine cannot do yet. To support an instruction, give it a variant in
//! [`InstructionKind`] and a parser here; to support a flag, set `supported` in its table and read it.

use std::str::FromStr;

use super::ast::{Alias, ArgDeclaration, Command, Copy, From, Instruction, InstructionKind, Word};
use super::error::{Fault, SyntaxError};
use super::exec_form;
use super::flag::{self, Flag, FlagKind, FlagRule};
use super::lines::Statement;
use super::text::Text;
use super::words;
use crate::diagnostic::closest;

/// A parsed statement: the start of a stage or a part of one.
#[derive(Debug)]
pub(super) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// Every instruction that BuildKit's frontend 1.20 knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    const ALL: [Self; 18] = [
        Self::Add,
        Self::Arg,
        Self::Cmd,
        Self::Copy,
        Self::Entrypoint,
        Self::Env,
        Self::Expose,
        Self::From,
        Self::Healthcheck,
        Self::Label,
        Self::Maintainer,
        Self::Onbuild,
        Self::Run,
        Self::Shell,
        Self::Stopsignal,
        Self::User,
        Self::Volume,
        Self::Workdir,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Arg => "ARG",
            Self::Cmd => "CMD",
            Self::Copy => "COPY",
            Self::Entrypoint => "ENTRYPOINT",
            Self::Env => "ENV",
            Self::Expose => "EXPOSE",
            Self::From => "FROM",
            Self::Healthcheck => "HEALTHCHECK",
            Self::Label => "LABEL",
            Self::Maintainer => "MAINTAINER",
            Self::Onbuild => "ONBUILD",
            Self::Run => "RUN",
            Self::Shell => "SHELL",
            Self::Stopsignal => "STOPSIGNAL",
            Self::User => "USER",
            Self::Volume => "VOLUME",
            Self::Workdir => "WORKDIR",
        }
    }

    /// The flags that it takes, the ones that the engine cannot honour included.
    const fn flags(self) -> &'static [FlagRule] {
        const fn flag(name: &'static str, kind: FlagKind, supported: bool) -> FlagRule {
            FlagRule { name, kind, supported }
        }
        match self {
            Self::From => const { &[flag("platform", FlagKind::Value, false)] },
            Self::Run => {
                const {
                    &[
                        flag("mount", FlagKind::Repeated, false),
                        flag("network", FlagKind::Value, false),
                        flag("security", FlagKind::Value, false),
                        flag("device", FlagKind::Repeated, false),
                    ]
                }
            }
            // `chown` and `chmod` are read below; supporting them takes no more than `true` here.
            Self::Copy => {
                const {
                    &[
                        flag("from", FlagKind::Value, true),
                        flag("chown", FlagKind::Value, false),
                        flag("chmod", FlagKind::Value, false),
                        flag("link", FlagKind::Switch, false),
                        flag("parents", FlagKind::Switch, false),
                        flag("exclude", FlagKind::Repeated, false),
                    ]
                }
            }
            _ => &[],
        }
    }
}

impl FromStr for Keyword {
    type Err = SyntaxError;

    fn from_str(name: &str) -> Result<Self, SyntaxError> {
        Self::ALL.into_iter().find(|keyword| keyword.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            SyntaxError::UnknownInstruction {
                name: name.to_owned(),
                suggestion: closest(name, Self::ALL.map(Self::name)),
            }
        })
    }
}

/// The arguments of one instruction, ready to be read.
struct Arguments<'a> {
    keyword: &'static str,
    /// Flags, already checked.
    flags: Vec<Flag>,
    /// What comes after the flags.
    rest: Text<'a>,
    /// The whole instruction, for complaints about what is missing.
    whole: Text<'a>,
    escape: char,
}

pub(super) fn parse(statement: &Statement, escape: char) -> Result<Parsed, Fault> {
    let whole = statement.text();
    let (name, rest) = whole.split_blank().unwrap_or((whole, whole.from(whole.as_str().len())));
    let keyword: Keyword = name.as_str().parse().map_err(|error| Fault::new(error, name.span()))?;
    // What the engine cannot do is refused by its keyword, before its flags and arguments are looked at.
    let read: fn(&Arguments<'_>) -> Result<InstructionKind, Fault> = match keyword {
        Keyword::From => return from(statement, keyword, rest).map(Parsed::From),
        Keyword::Run => |arguments| Ok(InstructionKind::Run { command: arguments.run()? }),
        Keyword::Copy => |arguments| Ok(InstructionKind::Copy(arguments.copy()?)),
        Keyword::Env => |arguments| Ok(InstructionKind::Env(arguments.pairs()?)),
        Keyword::Label => |arguments| Ok(InstructionKind::Label(arguments.pairs()?)),
        Keyword::Arg => |arguments| Ok(InstructionKind::Arg(arguments.declarations()?)),
        Keyword::Workdir => |arguments| Ok(InstructionKind::Workdir(arguments.single()?)),
        Keyword::User => |arguments| Ok(InstructionKind::User(arguments.single()?)),
        Keyword::Expose => |arguments| Ok(InstructionKind::Expose(arguments.words()?)),
        Keyword::Cmd => |arguments| Ok(InstructionKind::Cmd(arguments.command()?)),
        Keyword::Entrypoint => |arguments| Ok(InstructionKind::Entrypoint(arguments.command()?)),
        Keyword::Add
        | Keyword::Healthcheck
        | Keyword::Maintainer
        | Keyword::Onbuild
        | Keyword::Shell
        | Keyword::Stopsignal
        | Keyword::Volume => return Err(Fault::unsupported(keyword.name(), name.span())),
    };
    let arguments = Arguments::new(statement, keyword, rest, escape)?;
    if let Some(heredoc) = statement.heredocs.first() {
        return Err(Fault::unsupported(format!("{} with a heredoc", keyword.name()), heredoc.marker.clone()));
    }
    let kind = read(&arguments)?;
    Ok(Parsed::Instruction(Instruction { kind, span: whole.span(), original: whole.as_str().to_owned() }))
}

/// `FROM image` or `FROM image AS name`.
fn from(statement: &Statement, keyword: Keyword, rest: Text<'_>) -> Result<From, Fault> {
    let arguments = Arguments::new(statement, keyword, rest, '\\')?;
    let words = words::blank_separated(arguments.rest);
    let (image, alias) = match words[..] {
        [] => return Err(arguments.missing("the name of an image or a stage")),
        [image] => (image, None),
        [image, keyword, name] if keyword.as_str().eq_ignore_ascii_case("as") => {
            (image, Some(stage_name(name)?))
        }
        [_, second, ..] => return Err(Fault::new(SyntaxError::FromArguments, second.span())),
    };
    Ok(From {
        image: image.word(),
        platform: arguments.flag("platform"),
        alias,
        span: statement.text().span(),
        original: statement.text().as_str().to_owned(),
    })
}

impl<'a> Arguments<'a> {
    fn new(statement: &'a Statement, keyword: Keyword, rest: Text<'a>, escape: char) -> Result<Self, Fault> {
        let (flags, rest) = flag::split(rest);
        let flags = flag::check(keyword.name(), &flags, keyword.flags())?;
        Ok(Self { keyword: keyword.name(), flags, rest, whole: statement.text(), escape })
    }

    fn missing(&self, needs: &'static str) -> Fault {
        Fault::new(SyntaxError::MissingArguments { keyword: self.keyword, needs }, self.whole.span())
    }

    fn some(&self) -> Result<(), Fault> {
        if self.rest.is_empty() { Err(self.missing("at least one argument")) } else { Ok(()) }
    }

    fn flag(&self, name: &str) -> Option<Word> {
        self.flags.iter().find(|flag| flag.name == name).map(|flag| flag.value.clone())
    }

    fn command(&self) -> Result<Command, Fault> {
        self.some()?;
        Ok(match exec_form::parse(self.rest)? {
            Some(words) => Command::Exec(words.into_iter().map(|word| word.raw).collect()),
            None => Command::Shell(self.rest.as_str().to_owned()),
        })
    }

    fn run(&self) -> Result<Command, Fault> {
        match self.command()? {
            Command::Exec(words) if words.is_empty() => {
                Err(Fault::new(SyntaxError::EmptyCommand, self.rest.span()))
            }
            command => Ok(command),
        }
    }

    fn copy(&self) -> Result<Copy, Fault> {
        let mut words = match exec_form::parse(self.rest)? {
            Some(words) => words,
            None => words::blank_separated(self.rest).into_iter().map(Text::word).collect(),
        };
        match words.pop() {
            Some(destination) if !words.is_empty() => Ok(Copy {
                from: self.flag("from"),
                chown: self.flag("chown"),
                chmod: self.flag("chmod"),
                sources: words,
                destination,
            }),
            Some(_) => {
                Err(self.missing("at least two arguments, a source and a destination, but has only one"))
            }
            None => Err(self.missing("at least two arguments, a source and a destination")),
        }
    }

    /// `name=value ...` or, when the first word has no `=`, the legacy `name the whole rest`.
    fn pairs(&self) -> Result<Vec<(Word, Word)>, Fault> {
        self.some()?;
        let words = words::quoted(self.rest, self.escape);
        let Some(first) = words.first() else { return Err(self.missing("at least one argument")) };
        if !first.as_str().contains('=') {
            return match self.rest.split_blank() {
                Some((name, value)) if !value.is_empty() => Ok(vec![(name.word(), value.word())]),
                _ => Err(Fault::new(SyntaxError::NoValue { keyword: self.keyword }, first.span())),
            };
        }
        words
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some((name, _)) if name.is_empty() => {
                    Err(Fault::new(SyntaxError::BlankName { keyword: self.keyword }, word.span()))
                }
                Some((name, value)) => Ok((name.word(), value.word())),
                None => {
                    Err(Fault::new(SyntaxError::NotKeyValue { word: word.as_str().to_owned() }, word.span()))
                }
            })
            .collect()
    }

    fn declarations(&self) -> Result<Vec<ArgDeclaration>, Fault> {
        self.some()?;
        words::quoted(self.rest, self.escape)
            .into_iter()
            .map(|word| {
                let (name, default) = match word.split_once('=') {
                    Some((name, default)) => (name, Some(default.word())),
                    None => (word, None),
                };
                if name.is_empty() {
                    return Err(Fault::new(SyntaxError::BlankName { keyword: self.keyword }, word.span()));
                }
                Ok(ArgDeclaration { name: name.as_str().to_owned(), default, span: word.span() })
            })
            .collect()
    }

    fn single(&self) -> Result<Word, Fault> {
        if self.rest.is_empty() { Err(self.missing("exactly one argument")) } else { Ok(self.rest.word()) }
    }

    fn words(&self) -> Result<Vec<Word>, Fault> {
        self.some()?;
        Ok(words::blank_separated(self.rest).into_iter().map(Text::word).collect())
    }
}

fn stage_name(text: Text<'_>) -> Result<Alias, Fault> {
    let name = text.as_str().to_lowercase();
    let fits = name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
        });
    if fits {
        Ok(Alias { name, span: text.span() })
    } else {
        Err(Fault::new(SyntaxError::StageName { name: text.as_str().to_owned() }, text.span()))
    }
}
