//! The mounts of RUN: where each goes, and what of stages, images, the build context or the caller it shows.

use std::borrow::Cow;

use boxwright_solver::ir::{
    self, About, BindMount, CacheMount, CopyAction, FileAction, FileOp, FileOwner, Guarded, LocalSource,
    MountSource, Op, SecretEnv, SourceOp,
};

use super::instructions::{Build, Result, StageRun};
use super::origin::Files;
use super::paths;
use super::scope::Env;
use super::stages::Command;
use super::state::State;
use crate::ast::{MountFlag, Run};
use crate::diagnostic::Diagnostic;
use crate::ignore::clean_path;
use crate::notation::quote;
use crate::syntax::mount::{self, Mount, MountType, Sharing};

/// Where a part of the build context is in the vertex that holds it.
const PART: &str = "/part";
/// The build argument that keeps the caches of some builds apart from those of others.
pub const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
const SECRETS: &str = "/run/secrets/";
const AGENT: &str = "/run/buildkit/ssh_agent.";
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// What progress shows of a secret.
const HIDDEN: &str = "****";

#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) list: Vec<ir::Mount>,
    pub(super) secret_env: Vec<SecretEnv>,
    /// Where the first agent is.
    agent: Option<String>,
    agents: usize,
}

impl Mounts {
    pub(super) fn lower(
        build: &mut Build<'_>,
        stage: &StageRun<'_>,
        command: &Command<'_>,
        run: &Run,
    ) -> Result<Mounts> {
        let mut mounts = Mounts::default();
        for (flag, source) in run.mounts.iter().zip(&command.sources) {
            let mount = mount::read(flag, &mut |word| build.lexer.word(word, &stage.state.env))?;
            mounts.add(build, &stage.state, flag, mount, *source)?;
        }
        Ok(mounts)
    }

    /// The variable that tells programs of the agent, unless the Dockerfile says something else.
    pub(super) fn agent(&self, env: &Env) -> Option<String> {
        let agent = self.agent.as_ref().filter(|_| env.value(AGENT_VARIABLE).is_none())?;
        Some(format!("{AGENT_VARIABLE}={agent}"))
    }

    /// The environment as progress may show it.
    pub(super) fn shown_env<'s>(&self, state: &'s State) -> Cow<'s, Env> {
        let mut env = Cow::Borrowed(&state.env);
        for secret in &self.secret_env {
            env.to_mut().set(&secret.name, HIDDEN);
        }
        env
    }

    fn add(
        &mut self,
        build: &mut Build<'_>,
        state: &State,
        flag: &MountFlag,
        mount: Mount,
        from: Option<usize>,
    ) -> Result<()> {
        match mount.kind {
            MountType::Secret => self.secret(state, &mount, flag),
            MountType::Ssh => self.ssh(state, &mount, flag),
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                let source = source(build, flag, &mount, from)?;
                self.push(target(state, &mount.target, flag)?, source, mount.read_only);
                Ok(())
            }
        }
    }

    fn push(&mut self, target: String, source: MountSource, read_only: bool) {
        self.list.push(ir::Mount { target, source, read_only });
    }

    fn secret(&mut self, state: &State, mount: &Mount, flag: &MountFlag) -> Result<()> {
        let id = mount.secret_id().to_owned();
        if let Some(name) = &mount.env {
            let required = mount.required;
            self.secret_env.push(SecretEnv { name: name.clone(), id: id.clone(), required });
        }
        let path = match (mount.target.as_str(), &mount.env) {
            ("", Some(_)) => return Ok(()),
            ("", None) => format!("{SECRETS}{}", mount::base(&id)),
            (path, _) => path.to_owned(),
        };
        let secret = Guarded { id, required: mount.required, owner: owner(mount) };
        self.push(target(state, &path, flag)?, MountSource::Secret(secret), true);
        Ok(())
    }

    fn ssh(&mut self, state: &State, mount: &Mount, flag: &MountFlag) -> Result<()> {
        if !mount.source.is_empty() {
            return Err(Box::new(Diagnostic::error("ssh does not support source", flag.span)));
        }
        let path = match mount.target.as_str() {
            "" => format!("{AGENT}{}", self.agents),
            path => target(state, path, flag)?,
        };
        self.agents += 1;
        self.agent.get_or_insert_with(|| path.clone());
        let id = mount.ssh_id().to_owned();
        let agent = Guarded { id, required: mount.required, owner: owner(mount) };
        self.push(path, MountSource::Ssh(agent), true);
        Ok(())
    }
}

fn owner(mount: &Mount) -> FileOwner {
    FileOwner { mode: mount.mode, uid: mount.uid, gid: mount.gid }
}

/// A relative target is one below the working directory.
fn target(state: &State, path: &str, flag: &MountFlag) -> Result<String> {
    let target = paths::source(&paths::absolute(&state.dir, path));
    if target != "/" {
        return Ok(target);
    }
    Err(Box::new(Diagnostic::error(format!("invalid mount target {}", quote(&target)), flag.span)))
}

fn source(
    build: &mut Build<'_>,
    flag: &MountFlag,
    mount: &Mount,
    from: Option<usize>,
) -> Result<MountSource> {
    let from = match from {
        Some(stage) => Some(build.mounted_state(stage, flag, &mount.target)?),
        None => None,
    };
    let files = match (mount.kind, from) {
        (MountType::Bind, None) => Some(build.options.context.files(&mut build.definition, flag.span)),
        (_, from) => from,
    };
    let selector = clean_path(&format!("/{}", mount.source));
    let bind = match files {
        None => BindMount { from: None, selector },
        Some(Files::Root(from)) => BindMount { from, selector },
        Some(Files::Local(name)) => context_part(build, name, &selector, flag),
    };
    Ok(match mount.kind {
        MountType::Tmpfs => MountSource::Tmpfs { size: mount.size.filter(|size| *size > 0) },
        MountType::Cache => MountSource::Cache(CacheMount {
            id: own_cache_id(build, mount),
            sharing: match mount.sharing {
                None | Some(Sharing::Shared) => ir::Sharing::Shared,
                Some(Sharing::Private) => ir::Sharing::Private,
                Some(Sharing::Locked) => ir::Sharing::Locked,
            },
            from: bind.from,
            selector: bind.selector,
            owner: owner(mount),
        }),
        _ => MountSource::Bind(bind),
    })
}

/// The cache that is meant.
pub(super) fn cache_id(mount: &Mount) -> String {
    if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() }
}

/// The same among the caches that the build has for itself, if it asks for that.
fn own_cache_id(build: &Build<'_>, mount: &Mount) -> String {
    let id = cache_id(mount);
    match build.options.build_args.get(NAMESPACE).map(String::as_str) {
        None | Some("") => id,
        Some(namespace) => format!("{namespace}/{id}"),
    }
}

/// Go's `path.Clean`: what is relative stays relative.
fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return clean_path(path);
    }
    let rooted = clean_path(&format!("/{path}"));
    match rooted.trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    }
}

/// A copy of what is mounted of the build context, as COPY would have it: nothing else of it is read, and what an
/// ignore file leaves out is not there.
fn context_part(build: &mut Build<'_>, name: String, selector: &str, flag: &MountFlag) -> BindMount {
    let select = match selector.trim_start_matches('/') {
        "" => ".".to_owned(),
        path => paths::literal(path),
    };
    let local = LocalSource { name, select: vec![select], ..LocalSource::default() };
    let about = |name: String| About { name, span: Some(flag.span), no_cache: false };
    let shown = build.options.context.loading(&local.name);
    let local = Op::Source(SourceOp::Local(local));
    let from = build.definition.add(local, about(shown));
    let copy = CopyAction {
        from: Some(from),
        sources: vec![paths::literal(selector)],
        dest: PART.to_owned(),
        ..CopyAction::default()
    };
    let op = FileOp { base: None, actions: vec![FileAction::Copy(copy)] };
    let text = "[internal] take the part of the build context that RUN mounts";
    let part = build.definition.add(Op::File(op), about(text.to_owned()));
    BindMount { from: Some(part), selector: PART.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_caches_are_cleaned_targets() {
        for (target, id) in [("/a//b/", "/a/b"), ("cache", "cache"), ("./x/../y", "y"), ("", ".")] {
            assert_eq!(clean(target), id, "{target}");
        }
    }
}
