// SPDX-License-Identifier: Apache-2.0
//! An adapter's templates to commands. Pure: nothing is started and no file is looked at.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::template::Segment;
use super::{Adapter, Argument, BuildOptions, Capability, Invocation, Placeholder, Readiness, Template};

/// The arguments of one build, as `docker_build` names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildArguments {
    /// The image's name.
    pub reference: String,
    /// The path of the Dockerfile.
    pub dockerfile: PathBuf,
    /// The folder of the build context.
    pub context: PathBuf,
    /// Build arguments; given to the builder sorted by name.
    pub args: BTreeMap<String, String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Take nothing from the cache.
    pub no_cache: bool,
    /// More names for the image.
    pub tags: Vec<String>,
}

/// Where a builder works: what the general placeholders stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The programs that discovery found, by name.
    pub programs: BTreeMap<String, PathBuf>,
    /// For `{state}`.
    pub state: PathBuf,
    /// For `{tmp}`, and the working folder of all commands.
    pub scratch: PathBuf,
    /// For `{containerd}`.
    pub containerd: PathBuf,
    /// For `{namespace}`.
    pub namespace: String,
    /// For `{cgroup}`.
    pub cgroup: String,
    /// The harness's environment, of which the adapter may inherit.
    pub environment: BTreeMap<String, OsString>,
}

/// Why there is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The build needs what the adapter does not claim.
    #[error("plan a build that needs `{capability}`, which `{adapter}` does not claim")]
    Unsupported {
        /// The adapter's id.
        adapter: String,
        /// What is missing.
        capability: Capability,
    },
    /// The surroundings lack a program that the adapter names.
    #[error("plan a command of `{adapter}`: nothing stands for `{placeholder}`")]
    Unknown {
        /// The adapter's id.
        adapter: String,
        /// What has no value.
        placeholder: String,
    },
}

/// A daemon to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonPlan {
    /// The command.
    pub invocation: Invocation,
    /// When it is ready.
    pub ready: PlannedReadiness,
    /// How long that may take, in seconds.
    pub limit_s: u64,
}

/// When a daemon is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedReadiness {
    /// A connection to this unix socket is accepted.
    Socket(PathBuf),
    /// This command ends with exit code 0.
    Command(Invocation),
}

/// The command of one build.
///
/// # Errors
/// [`PlanError::Unsupported`] for the first argument that the adapter has no option for.
pub fn plan_build(
    adapter: &Adapter,
    arguments: &BuildArguments,
    surroundings: &Surroundings,
) -> Result<Invocation, PlanError> {
    let expansion = Expansion { adapter, surroundings, own: &[] };
    let options = build_options(adapter, arguments, &expansion)?;
    let own = [
        (Placeholder::Reference, arguments.reference.as_ref()),
        (Placeholder::Dockerfile, arguments.dockerfile.as_os_str()),
        (Placeholder::Context, arguments.context.as_os_str()),
    ];
    let expansion = Expansion { own: &own, ..expansion };
    let mut argv = Vec::new();
    for argument in &adapter.build.argv {
        if argument.is_options() {
            argv.extend_from_slice(&options);
        } else {
            argv.push(expansion.expand(argument)?);
        }
    }
    expansion.with_environment(argv)
}

fn build_options(
    adapter: &Adapter,
    arguments: &BuildArguments,
    expansion: &Expansion<'_>,
) -> Result<Vec<OsString>, PlanError> {
    let BuildOptions { build_arg, target, no_cache, tag } = &adapter.build.options;
    let mut options = Vec::new();
    let mut add = |option: &Option<Vec<Argument>>, capability, own: &[(Placeholder, &OsStr)]| {
        let Some(templates) = option else {
            return Err(PlanError::Unsupported { adapter: adapter.id.value.clone(), capability });
        };
        let expansion = Expansion { own, ..*expansion };
        for template in templates {
            options.push(expansion.expand(template)?);
        }
        Ok(())
    };
    for (key, value) in &arguments.args {
        let own = [(Placeholder::Key, key.as_ref()), (Placeholder::Value, value.as_ref())];
        add(build_arg, Capability::BuildArgs, &own)?;
    }
    if let Some(stage) = &arguments.target {
        add(target, Capability::BuildTarget, &[(Placeholder::Value, stage.as_ref())])?;
    }
    if arguments.no_cache {
        add(no_cache, Capability::BuildNoCache, &[])?;
    }
    for name in &arguments.tags {
        add(tag, Capability::BuildTags, &[(Placeholder::Value, name.as_ref())])?;
    }
    Ok(options)
}

/// The commands that bring one image from the builder to the node; none when it is there already.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_deliver(
    adapter: &Adapter,
    reference: &str,
    surroundings: &Surroundings,
) -> Result<Vec<Invocation>, PlanError> {
    commands(adapter, surroundings, &adapter.deliver, &[(Placeholder::Reference, reference.as_ref())])
}

/// The commands that bring the base images into the builder's own store; none when it has none.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_seed(
    adapter: &Adapter,
    archive: &std::path::Path,
    surroundings: &Surroundings,
) -> Result<Vec<Invocation>, PlanError> {
    commands(adapter, surroundings, &adapter.seed, &[(Placeholder::Archive, archive.as_os_str())])
}

/// The commands that leave nothing cached.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_prune(adapter: &Adapter, surroundings: &Surroundings) -> Result<Vec<Invocation>, PlanError> {
    commands(adapter, surroundings, &adapter.lifecycle.prune, &[])
}

/// The commands before the daemons are ended.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_down(adapter: &Adapter, surroundings: &Surroundings) -> Result<Vec<Invocation>, PlanError> {
    commands(adapter, surroundings, &adapter.lifecycle.down, &[])
}

/// The daemons, in the order in which they are started.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_up(adapter: &Adapter, surroundings: &Surroundings) -> Result<Vec<DaemonPlan>, PlanError> {
    let expansion = Expansion { adapter, surroundings, own: &[] };
    let plan = |daemon: &super::DaemonStep| {
        let ready = match &daemon.ready {
            Readiness::Socket(path) => PlannedReadiness::Socket(expansion.expand(path)?.into()),
            Readiness::Command(command) => PlannedReadiness::Command(expansion.command(command)?),
        };
        Ok(DaemonPlan { invocation: expansion.command(&daemon.argv)?, ready, limit_s: daemon.limit_s })
    };
    adapter.lifecycle.up.iter().map(plan).collect()
}

/// The command that tells the version.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_version(adapter: &Adapter, surroundings: &Surroundings) -> Result<Invocation, PlanError> {
    Expansion { adapter, surroundings, own: &[] }.command(&adapter.version.argv)
}

/// The folders that the adapter declares as cache.
///
/// # Errors
/// [`PlanError::Unknown`] when a program is missing.
pub fn plan_cache_paths(adapter: &Adapter, surroundings: &Surroundings) -> Result<Vec<PathBuf>, PlanError> {
    let expansion = Expansion { adapter, surroundings, own: &[] };
    adapter.cache.paths.iter().map(|path| expansion.expand(path).map(PathBuf::from)).collect()
}

fn commands(
    adapter: &Adapter,
    surroundings: &Surroundings,
    templates: &[Vec<Argument>],
    own: &[(Placeholder, &OsStr)],
) -> Result<Vec<Invocation>, PlanError> {
    let expansion = Expansion { adapter, surroundings, own };
    templates.iter().map(|command| expansion.command(command)).collect()
}

/// What placeholders stand for in one command.
#[derive(Clone, Copy)]
struct Expansion<'a> {
    adapter: &'a Adapter,
    surroundings: &'a Surroundings,
    own: &'a [(Placeholder, &'a OsStr)],
}

impl<'a> Expansion<'a> {
    fn command(&self, templates: &[Argument]) -> Result<Invocation, PlanError> {
        let argv = templates.iter().map(|argument| self.expand(argument)).collect::<Result<_, _>>()?;
        self.with_environment(argv)
    }

    fn with_environment(&self, argv: Vec<OsString>) -> Result<Invocation, PlanError> {
        let rule = &self.adapter.environment;
        let inherited =
            |name: &String| Some((name.clone(), self.surroundings.environment.get(name)?.clone()));
        let mut env: BTreeMap<String, OsString> = rule.inherit.iter().filter_map(inherited).collect();
        for (name, value) in &rule.set {
            env.insert(name.clone(), self.expand(value)?);
        }
        Ok(Invocation { argv, env, cwd: self.surroundings.scratch.clone() })
    }

    fn expand(&self, template: &Template) -> Result<OsString, PlanError> {
        let mut out = OsString::new();
        for segment in template.segments() {
            match segment {
                Segment::Literal(text) => out.push(text),
                Segment::Placeholder(placeholder) => out.push(self.value(placeholder)?),
            }
        }
        Ok(out)
    }

    fn value(&self, placeholder: &Placeholder) -> Result<&'a OsStr, PlanError> {
        let general = match placeholder {
            Placeholder::State => Some(self.surroundings.state.as_os_str()),
            Placeholder::Scratch => Some(self.surroundings.scratch.as_os_str()),
            Placeholder::Containerd => Some(self.surroundings.containerd.as_os_str()),
            Placeholder::Namespace => Some(self.surroundings.namespace.as_ref()),
            Placeholder::Cgroup => Some(self.surroundings.cgroup.as_ref()),
            Placeholder::Program(name) => self.surroundings.programs.get(name).map(|path| path.as_os_str()),
            _ => self.own.iter().find(|(own, _)| own == placeholder).map(|&(_, value)| value),
        };
        general.ok_or_else(|| PlanError::Unknown {
            adapter: self.adapter.id.value.clone(),
            placeholder: placeholder.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn adapter(id: &str) -> Adapter {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapters");
        super::super::load(&folder.join(format!("{id}.yaml")))
            .unwrap_or_else(|error| panic!("{}", error.render()))
    }

    fn surroundings() -> Surroundings {
        let program = |name: &str| (name.to_owned(), PathBuf::from(format!("/p/{name}")));
        Surroundings {
            programs: ["pushless", "docker", "dockerd", "ctr"].map(program).into(),
            state: "/state".into(),
            scratch: "/tmp/x".into(),
            containerd: "/c.sock".into(),
            namespace: "k8s.io".to_owned(),
            cgroup: "/shakedown/1".to_owned(),
            environment: [("PATH", "/bin"), ("SECRET", "s")].map(|(k, v)| (k.to_owned(), v.into())).into(),
        }
    }

    fn plain() -> BuildArguments {
        BuildArguments {
            reference: "shakedown.test/x:1".to_owned(),
            dockerfile: "/w/Dockerfile".into(),
            context: "/w/a context".into(),
            ..BuildArguments::default()
        }
    }

    fn lines(invocations: &[Invocation]) -> Vec<String> {
        invocations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn builds_become_command_lines() {
        let full = BuildArguments {
            args: [("B", "two words; $x"), ("A", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            target: Some("release".to_owned()),
            no_cache: true,
            ..plain()
        };
        let tagged = BuildArguments { tags: vec!["a:1".to_owned(), "a:2".to_owned()], ..plain() };
        let pushless = "/p/pushless build -t shakedown.test/x:1 -f /w/Dockerfile";
        let docker = "/p/docker build --network host --progress plain -t shakedown.test/x:1 -f /w/Dockerfile";
        let options = "--build-arg A= --build-arg 'B=two words; $x' --target release --no-cache";
        for (id, arguments, expected) in [
            ("pushless", &plain(), format!("{pushless} --progress plain '/w/a context'")),
            ("pushless", &full, format!("{pushless} {options} --progress plain '/w/a context'")),
            ("docker", &plain(), format!("{docker} '/w/a context'")),
            ("docker", &full, format!("{docker} {options} '/w/a context'")),
            ("docker", &tagged, format!("{docker} -t a:1 -t a:2 '/w/a context'")),
        ] {
            let planned = plan_build(&adapter(id), arguments, &surroundings());
            assert_eq!(planned.map(|invocation| invocation.to_string()), Ok(expected));
        }
    }

    #[test]
    fn a_command_sees_only_the_declared_environment() {
        let invocation = plan_build(&adapter("pushless"), &plain(), &surroundings()).expect("a plan");
        let env: Vec<(&str, &str)> = invocation
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        assert_eq!(
            env,
            [
                ("CONTAINERD_ADDRESS", "/c.sock"),
                ("CONTAINERD_NAMESPACE", "k8s.io"),
                ("PATH", "/bin"),
                ("PUSHLESS_CGROUP_PARENT", "/shakedown/1"),
                ("PUSHLESS_RUN_DIR", "/state/run"),
                ("PUSHLESS_STATE_DIR", "/state"),
            ]
        );
        assert_eq!(invocation.cwd, Path::new("/tmp/x"));
    }

    #[test]
    fn an_argument_without_an_option_is_unsupported() {
        let mut bare = adapter("docker");
        bare.build.options = BuildOptions::default();
        let with = |change: fn(&mut BuildArguments)| {
            let mut arguments = plain();
            change(&mut arguments);
            arguments
        };
        for (arguments, capability) in [
            (with(|build| drop(build.args.insert("A".to_owned(), String::new()))), Capability::BuildArgs),
            (with(|build| build.target = Some("x".to_owned())), Capability::BuildTarget),
            (with(|build| build.no_cache = true), Capability::BuildNoCache),
            (with(|build| build.tags.push("a:1".to_owned())), Capability::BuildTags),
        ] {
            let unsupported = PlanError::Unsupported { adapter: "docker".to_owned(), capability };
            assert_eq!(plan_build(&bare, &arguments, &surroundings()), Err(unsupported));
        }
        assert!(plan_build(&bare, &plain(), &surroundings()).is_ok());
    }

    #[test]
    fn the_other_commands_are_planned_too() {
        let (docker, pushless, around) = (adapter("docker"), adapter("pushless"), surroundings());
        let deliver = plan_deliver(&docker, "a:1", &around).expect("a plan");
        assert_eq!(
            lines(&deliver),
            [
                "/p/docker save -o /tmp/x/image.tar a:1",
                "/p/ctr -a /c.sock -n k8s.io images import /tmp/x/image.tar",
            ]
        );
        assert_eq!(plan_deliver(&pushless, "a:1", &around), Ok(Vec::new()));
        let seed = plan_seed(&docker, Path::new("/base.tar"), &around).expect("a plan");
        assert_eq!(lines(&seed), ["/p/docker load -i /base.tar"]);
        let prune = plan_prune(&pushless, &around).expect("a plan");
        assert_eq!(lines(&prune), ["/p/pushless prune --all"]);
        assert_eq!(plan_down(&docker, &around), Ok(Vec::new()));
        let version = plan_version(&docker, &around).expect("a plan");
        assert_eq!(version.to_string(), "/p/docker version --format '{{.Server.Version}}'");
        let cached = ["/state/data", "/shakedown/1/buildkit"].map(PathBuf::from);
        assert_eq!(plan_cache_paths(&docker, &around), Ok(cached.into()));
        let daemons = plan_up(&docker, &around).expect("a plan");
        let [daemon] = daemons.as_slice() else { panic!("one daemon") };
        assert_eq!(
            daemon.invocation.to_string(),
            "/p/dockerd --bridge none --iptables=false --ip6tables=false -H unix:///state/docker.sock --data-root \
             /state/data --exec-root /state/exec -p /state/docker.pid --cgroup-parent /shakedown/1"
        );
        let PlannedReadiness::Command(ready) = &daemon.ready else { panic!("a command") };
        assert_eq!((ready.to_string().as_str(), daemon.limit_s), ("/p/docker version", 60));
    }

    #[test]
    fn a_missing_program_is_named() {
        let missing = PlanError::Unknown {
            adapter: "pushless".to_owned(),
            placeholder: "{program.pushless}".to_owned(),
        };
        assert_eq!(plan_build(&adapter("pushless"), &plain(), &Surroundings::default()), Err(missing));
    }
}
