// SPDX-License-Identifier: Apache-2.0
//! Global arguments, names and reachability.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::error::PlanError;
use super::graph::{Base, CopySource, Plan, PlanRequest, PlannedInstruction, PlannedStage, StageId};
use crate::diagnostic::{Diagnostic, closest};
use crate::dockerfile::{Dockerfile, InstructionKind, Stage, Word, expand, scope};
use crate::image::ImageReference;

/// Plans the build of the requested target.
///
/// # Errors
///
/// An unknown target, a global ARG that cannot be expanded, and names in reachable stages that lead nowhere.
pub fn plan(dockerfile: &Dockerfile, request: &PlanRequest) -> Result<Plan, Box<Diagnostic>> {
    Resolver::new(dockerfile, request)?.plan()
}

struct Resolver<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a PlanRequest,
    target: StageId,
    global_args: BTreeMap<String, String>,
}

impl<'a> Resolver<'a> {
    fn new(dockerfile: &'a Dockerfile, request: &'a PlanRequest) -> Result<Self, Box<Diagnostic>> {
        let target = target(dockerfile, request.target.as_deref())
            .map_err(|error| Box::new(error.into_diagnostic(dockerfile, None)))?;
        let mut resolver = Self { dockerfile, request, target, global_args: BTreeMap::new() };
        resolver.resolve_global_args()?;
        Ok(resolver)
    }

    /// Platform arguments, then the ARGs before the first FROM in order. A build argument overrides any of them, and
    /// then the default is not even looked at.
    fn resolve_global_args(&mut self) -> Result<(), Box<Diagnostic>> {
        let stage_name = self.dockerfile.stages[self.target.0].name.clone();
        self.global_args = self.request.platform_args.clone();
        self.global_args.insert("TARGETSTAGE".to_owned(), stage_name.unwrap_or_else(|| "default".to_owned()));
        for (name, value) in &mut self.global_args {
            if let Some(given) = self.request.build_args.get(name) {
                value.clone_from(given);
            }
        }
        for declaration in &self.dockerfile.global_args {
            let value = match (self.request.build_args.get(&declaration.name), &declaration.default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => self.expand(default)?,
                (None, None) => continue,
            };
            self.global_args.insert(declaration.name.clone(), value);
        }
        Ok(())
    }

    fn expand(&self, word: &Word) -> Result<String, Box<Diagnostic>> {
        expand(word, self.dockerfile.escape, &|name| self.global_args.get(name).cloned())
            .map_err(|error| Box::new(error.into_diagnostic(&self.dockerfile.file, &self.dockerfile.source)))
    }

    fn fail<T>(&self, error: PlanError, span: &Range<usize>) -> Result<T, Box<Diagnostic>> {
        Err(Box::new(error.into_diagnostic(self.dockerfile, Some(span.clone()))))
    }

    fn plan(self) -> Result<Plan, Box<Diagnostic>> {
        let mut planned: BTreeMap<StageId, PlannedStage> = BTreeMap::new();
        let mut open = vec![self.target];
        while let Some(id) = open.pop() {
            if planned.contains_key(&id) {
                continue;
            }
            let stage = self.stage(id)?;
            open.extend(&stage.dependencies);
            planned.insert(id, stage);
        }
        let stages: Vec<PlannedStage> = planned.into_values().collect();
        let context_paths_needed = stages
            .iter()
            .flat_map(|stage| &stage.instructions)
            .any(|planned| planned.copy_source == Some(CopySource::Context));
        let unused_build_args = self.unused_build_args(&stages);
        Ok(Plan {
            stages,
            target: self.target,
            global_args: self.global_args,
            context_paths_needed,
            unused_build_args,
        })
    }

    fn stage(&self, id: StageId) -> Result<PlannedStage, Box<Diagnostic>> {
        let stage = &self.dockerfile.stages[id.0];
        let base = self.base(id, stage)?;
        let instructions = stage
            .instructions
            .iter()
            .map(|instruction| {
                let copy_source = match &instruction.kind {
                    InstructionKind::Copy(copy) => Some(self.copy_source(id, copy.from.as_ref())?),
                    _ => None,
                };
                Ok(PlannedInstruction { instruction: instruction.clone(), copy_source })
            })
            .collect::<Result<Vec<_>, Box<Diagnostic>>>()?;
        let base_stage = match base {
            Base::Stage(id) => Some(id),
            Base::Scratch | Base::Image(..) => None,
        };
        let dependencies: BTreeSet<StageId> = instructions
            .iter()
            .filter_map(|planned| match planned.copy_source {
                Some(CopySource::Stage(id)) => Some(id),
                Some(CopySource::Context | CopySource::Image(..)) | None => None,
            })
            .chain(base_stage)
            .collect();
        Ok(PlannedStage {
            id,
            name: stage.name.clone(),
            base,
            instructions,
            dependencies: dependencies.into_iter().collect(),
            from_span: stage.from.span.clone(),
        })
    }

    fn base(&self, id: StageId, stage: &Stage) -> Result<Base, Box<Diagnostic>> {
        let word = &stage.from.image;
        let name = self.expand(word)?;
        if name.is_empty() {
            return self.fail(PlanError::EmptyBase { word: word.raw.clone() }, &word.span);
        }
        // An earlier stage shadows an image, and even scratch.
        if let Some(stage) = self.stage_before(id, &name) {
            return Ok(Base::Stage(stage));
        }
        if name == "scratch" {
            return Ok(Base::Scratch);
        }
        Ok(Base::Image(self.image(&name, &word.span)?, word.span.clone()))
    }

    fn copy_source(&self, id: StageId, from: Option<&Word>) -> Result<CopySource, Box<Diagnostic>> {
        let Some(word) = from else { return Ok(CopySource::Context) };
        let name = &word.raw;
        if name.is_empty() {
            return self.fail(PlanError::EmptyCopyFrom, &word.span);
        }
        if name.contains('$') {
            return self.fail(PlanError::VariableInFrom { word: name.clone() }, &word.span);
        }
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return match name.parse().ok().filter(|index| *index < self.dockerfile.stages.len()) {
                None => self.fail(PlanError::StageIndex { index: name.clone() }, &word.span),
                Some(index) if index < id.0 => Ok(CopySource::Stage(StageId(index))),
                Some(index) if index == id.0 => {
                    self.fail(PlanError::SelfReference { name: name.clone() }, &word.span)
                }
                Some(_) => self.fail(PlanError::ForwardReference { name: name.clone() }, &word.span),
            };
        }
        if let Some(stage) = self.stage_before(id, name) {
            return Ok(CopySource::Stage(stage));
        }
        if is_named(&self.dockerfile.stages[id.0], name) {
            return self.fail(PlanError::SelfReference { name: name.clone() }, &word.span);
        }
        if self.dockerfile.stages[id.0..].iter().any(|stage| is_named(stage, name)) {
            return self.fail(PlanError::ForwardReference { name: name.clone() }, &word.span);
        }
        if name == "scratch" {
            return self.fail(PlanError::CopyFromScratch, &word.span);
        }
        Ok(CopySource::Image(self.image(name, &word.span)?, word.span.clone()))
    }

    /// The last stage of that name above `id`.
    fn stage_before(&self, id: StageId, name: &str) -> Option<StageId> {
        self.dockerfile.stages[..id.0].iter().rposition(|stage| is_named(stage, name)).map(StageId)
    }

    fn image(&self, name: &str, span: &Range<usize>) -> Result<ImageReference, Box<Diagnostic>> {
        name.parse().or_else(|error: crate::image::ReferenceError| {
            self.fail(PlanError::ImageName { name: name.to_owned(), reason: error.reason }, span)
        })
    }

    fn unused_build_args(&self, stages: &[PlannedStage]) -> Vec<String> {
        let in_stages =
            stages.iter().flat_map(|stage| &stage.instructions).flat_map(|planned| {
                match &planned.instruction.kind {
                    InstructionKind::Arg(declarations) => declarations.as_slice(),
                    _ => &[],
                }
            });
        let declared: BTreeSet<&str> = in_stages
            .chain(&self.dockerfile.global_args)
            .map(|declaration| declaration.name.as_str())
            .chain(self.request.platform_args.keys().map(String::as_str))
            .chain(["TARGETSTAGE"])
            .collect();
        let names = self.request.build_args.keys();
        names
            .filter(|name| !declared.contains(name.as_str()) && !scope::is_proxy_arg(name))
            .cloned()
            .collect()
    }
}

fn is_named(stage: &Stage, name: &str) -> bool {
    stage.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name))
}

/// The stage to build: the last one of that name, else the one with that index, else the last of all.
fn target(dockerfile: &Dockerfile, wanted: Option<&str>) -> Result<StageId, PlanError> {
    let stages = &dockerfile.stages;
    let Some(wanted) = wanted else { return Ok(StageId(stages.len() - 1)) };
    let by_name = stages.iter().rposition(|stage| is_named(stage, wanted));
    let by_index = || wanted.parse().ok().filter(|index| *index < stages.len());
    by_name.or_else(by_index).map(StageId).ok_or_else(|| PlanError::UnknownTarget {
        target: wanted.to_owned(),
        suggestion: closest(wanted, stages.iter().filter_map(|stage| stage.name.as_deref()))
            .map(str::to_owned),
        stages: stages
            .iter()
            .enumerate()
            .map(|(index, stage)| stage.name.clone().unwrap_or_else(|| index.to_string()))
            .collect(),
    })
}

#[cfg(test)]
mod tests;
