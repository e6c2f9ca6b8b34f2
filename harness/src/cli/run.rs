// SPDX-License-Identifier: Apache-2.0
//! `shakedown run`: from the arguments to the files, the tables and the outcome.

use std::fs;
use std::path::Path;

use confine::Confinement;
use sha2::{Digest, Sha256};
use shakedown_report::{Ending, Outcome, Report, text};
use tokio::signal::unix::{SignalKind, signal};

use super::doctor::find_containerd;
use super::{Places, RunArguments, Selection};
use crate::adapter::Environment;
use crate::cluster::runs_dir;
use crate::trial::{Cancellation, Candidate, Conclusion, Journal, Request, chain, conduct};

/// Runs what was asked for. Must be called while the process has one thread.
pub fn run(arguments: &RunArguments) -> Outcome {
    let request = match prepare(arguments) {
        Ok(request) => request,
        Err(Refusal { text, outcome }) => {
            eprint!("{text}");
            return outcome;
        }
    };
    // Everything that is started from here on dies with this process, however that ends.
    if let Err(error) = confine::enter(Confinement { network: true, reap_orphans: true }) {
        let help = if error.is_permission() { "help: a run needs root; try sudo\n" } else { "" };
        eprint!("error: {}\n{help}", chain(&error));
        return Outcome::HarnessFailed;
    }
    let mut journal = match Journal::create(&request.out.join("events.jsonl")) {
        Ok(journal) => journal,
        Err(error) => return failed(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let conclusion = runtime.block_on(async {
        let cancellation = Cancellation::default();
        listen(&cancellation).map_err(|error| error.to_string())?;
        conduct(&request, &mut journal, &cancellation, |line| println!("{line}"))
            .await
            .map_err(|error| chain(&error))
    });
    match conclusion {
        Ok(conclusion) => conclude(arguments, &conclusion),
        Err(reason) => {
            eprintln!("error: {reason}");
            Outcome::HarnessFailed
        }
    }
}

/// Why nothing was started.
struct Refusal {
    text: String,
    outcome: Outcome,
}

fn refuse(outcome: Outcome) -> impl Fn(&dyn std::error::Error) -> Refusal {
    move |error| Refusal { text: format!("error: {}\n", chain(error)), outcome }
}

fn prepare(arguments: &RunArguments) -> Result<Request, Refusal> {
    let usage = refuse(Outcome::Usage);
    let harness = refuse(Outcome::HarnessFailed);
    let places = Places::find(&arguments.documents)
        .map_err(|error| Refusal { text: error.render(), outcome: Outcome::Usage })?;
    let (scenarios, adapters) =
        places.load().map_err(|error| Refusal { text: error.render(), outcome: Outcome::Usage })?;
    let selection =
        Selection::of(scenarios, adapters, &arguments.selection).map_err(|error| usage(&error))?;
    if selection.scenarios.is_empty() {
        let text = "error: the selection is empty\nhelp: `shakedown list` shows what there is\n".to_owned();
        return Err(Refusal { text, outcome: Outcome::NothingRan });
    }
    let suite_sha256 = suite_sha256(&places, &selection).map_err(|error| harness(&error))?;
    let environment = Environment::of_this_process();
    let candidates: Vec<_> =
        selection.adapters.into_iter().map(|adapter| Candidate::look_for(adapter, &environment)).collect();
    for name in &arguments.gate_latency {
        if !candidates.iter().any(|candidate| candidate.name() == name) {
            let text = format!("error: --gate-latency {name}: this builder is not part of the run\n");
            return Err(Refusal { text, outcome: Outcome::Usage });
        }
    }
    let binaries = find_containerd(arguments.containerd.as_deref()).map_err(|error| {
        let refusal = harness(&error);
        Refusal { text: refusal.text + "help: `shakedown doctor` shows what is missing\n", ..refusal }
    })?;
    let out = fresh_folder(&arguments.out).map_err(|error| Refusal {
        text: format!("error: make the folder {}: {error}\n", arguments.out.display()),
        outcome: Outcome::HarnessFailed,
    })?;
    Ok(Request {
        scenarios: selection.scenarios,
        scenarios_folder: places.scenarios,
        candidates,
        suite_sha256,
        binaries,
        parent_dir: runs_dir(),
        out,
        rounds: (!arguments.no_bench).then_some(arguments.rounds),
        retries: arguments.retries,
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        argv: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        keep: arguments.keep,
    })
}

/// Makes the report's folder, without what an earlier run left of its own there, and gives its absolute path.
fn fresh_folder(path: &Path) -> std::io::Result<std::path::PathBuf> {
    fs::create_dir_all(path)?;
    let path = path.canonicalize()?;
    for stale in ["report.json", "events.jsonl"] {
        ignore_absent(fs::remove_file(path.join(stale)))?;
    }
    ignore_absent(fs::remove_dir_all(path.join("logs")))?;
    fs::create_dir(path.join("logs"))?;
    Ok(path)
}

fn ignore_absent(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Over the documents as they are on disk, each with its name, so that reports are compared only when alike.
fn suite_sha256(places: &Places, selection: &Selection) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let scenarios = selection.scenarios.iter().map(|one| (&places.scenarios, one.id.value.as_str()));
    let adapters = selection.adapters.iter().map(|one| (&places.adapters, one.id.value.as_str()));
    for (folder, name) in scenarios.chain(adapters) {
        let text = fs::read(folder.join(format!("{name}.yaml")))?;
        hash.update(format!("{name} {}\n", text.len()));
        hash.update(text);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Turns Ctrl-C and SIGTERM into a cancellation; a second one changes nothing, for the end is under way.
fn listen(cancellation: &Cancellation) -> std::io::Result<()> {
    for (kind, ending) in [
        (SignalKind::interrupt(), Ending::Interrupted),
        (SignalKind::terminate(), Ending::Terminated),
        (SignalKind::hangup(), Ending::Terminated),
    ] {
        let mut signals = signal(kind)?;
        let cancellation = cancellation.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if cancellation.get().is_none() {
                    eprintln!("stopping: the rest is reported as not run");
                }
                cancellation.cancel(ending);
            }
        });
    }
    Ok(())
}

fn conclude(arguments: &RunArguments, conclusion: &Conclusion) -> Outcome {
    let Conclusion { report, trouble } = conclusion;
    print!("\n{}", text::matrix(report));
    let findings = text::findings(report);
    if !findings.is_empty() {
        print!("\n{findings}");
    }
    let latency = text::latency(report);
    if !latency.is_empty() {
        print!("\n{latency}");
    }
    let path = arguments.out.join("report.json");
    let written = write_report(&path, report);
    for line in
        trouble.iter().chain(written.err().map(|error| format!("write {}: {error}", path.display())).iter())
    {
        eprintln!("error: {line}");
    }
    let outcome = Outcome::of(report, &arguments.gate_latency);
    if outcome == Outcome::Holds && (!trouble.is_empty() || !path.exists()) {
        return Outcome::HarnessFailed;
    }
    println!("\nreport: {}", path.display());
    outcome
}

/// Written beside and renamed: a report is whole or absent.
fn write_report(path: &Path, report: &Report) -> std::io::Result<()> {
    let partial = path.with_extension("json.partial");
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    fs::write(&partial, text)?;
    fs::rename(&partial, path)
}

fn failed(error: &dyn std::error::Error) -> Outcome {
    eprintln!("error: {}", chain(error));
    Outcome::HarnessFailed
}
