// SPDX-License-Identifier: Apache-2.0
//! The entry: text to [`Dockerfile`], and the rules about the order of instructions.

use std::sync::Arc;

use super::ast::{ArgDeclaration, Dockerfile, InstructionKind, Stage};
use super::directive;
use super::error::{Fault, SyntaxError};
use super::instruction::{self, Parsed};
use super::lines;
use crate::diagnostic::{Diagnostic, Location};

/// Parses a Dockerfile. `file_name` is only used to name the place of what is wrong.
///
/// # Errors
///
/// The first mistake, those of whole lines (length, unfinished heredocs) before those of instructions; and the first
/// thing that this builder cannot do yet: it is refused here, never ignored.
pub fn parse(file_name: &str, source: &str) -> Result<Dockerfile, Box<Diagnostic>> {
    let source: Arc<str> = Arc::from(source.strip_prefix('\u{feff}').unwrap_or(source));
    parse_source(file_name, &source).map_err(|fault| Box::new(fault.into_diagnostic(file_name, &source)))
}

fn parse_source(file: &str, source: &Arc<str>) -> Result<Dockerfile, Fault> {
    let directives = directive::directives(source)?;
    let escape = directives.escape;
    let mut global_args: Vec<ArgDeclaration> = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for statement in lines::statements(source, escape)? {
        match (instruction::parse(&statement, escape)?, stages.last_mut()) {
            (Parsed::From(from), _) => {
                let name = from.alias.as_ref().map(|alias| alias.name.clone());
                stages.push(Stage { name, span: from.span.clone(), from, instructions: Vec::new() });
            }
            (Parsed::Instruction(instruction), Some(stage)) => {
                stage.span.end = instruction.span.end;
                stage.instructions.push(instruction);
            }
            (Parsed::Instruction(instruction), None) => match instruction.kind {
                InstructionKind::Arg(declarations) => global_args.extend(declarations),
                kind => {
                    let error = SyntaxError::BeforeFirstStage { keyword: kind.keyword() };
                    return Err(Fault::new(error, instruction.span));
                }
            },
        }
    }
    if stages.is_empty() {
        let error = if global_args.is_empty() { SyntaxError::NoInstructions } else { SyntaxError::NoStage };
        return Err(Fault::new(error, source.len()..source.len()));
    }
    let notices = directives.accepted.into_iter().map(|accepted| {
        Diagnostic::notice(
            "dockerfile/directive-ignored",
            match accepted.key {
                "syntax" => "the syntax directive has no effect: pushless has its own frontend",
                _ => "the check directive has no effect: pushless does not lint yet",
            },
        )
        .at(Location::new(file, source.clone(), accepted.span))
    });
    Ok(Dockerfile {
        global_args,
        stages,
        escape,
        notices: notices.collect(),
        file: file.to_owned(),
        source: source.clone(),
    })
}

#[cfg(test)]
mod tests;
