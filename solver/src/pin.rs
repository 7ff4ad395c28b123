//! First pass: every source gets a fixed identity. Images have theirs already; a local source is told by the content
//! of what it selects, a repository by its commit, a URL by what its server says of it, or else by its bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::scope;
use std::time::{Instant, SystemTime};

use boxwright_cache::digest::ContentDigest;
use boxwright_cache::record::Compared;
use boxwright_cache::snapshot::Snapshot;

use crate::error::{SolveError, VertexError};
use crate::event::Event;
use crate::ir::{
    Definition, GitSource, HttpSource, ImageSource, LocalSource, Op, SourceOp, VertexId, redacted,
};
use crate::key::KeyFields;
use crate::ops::file::{self, Looked};
use crate::{Env, How, Material};

/// A source whose identity is settled.
#[derive(Clone, Debug)]
pub(crate) enum Pin {
    Image(Snapshot),
    Local(ContentDigest, Option<Arc<Compared>>),
    /// Without a snapshot it is still to be fetched.
    Http {
        fields: KeyFields,
        snapshot: Option<Snapshot>,
    },
    Git {
        fields: KeyFields,
        commit: String,
    },
}

impl Pin {
    /// Whether nothing is left to be done for it.
    pub(crate) fn is_here(&self) -> bool {
        !matches!(self, Pin::Http { snapshot: None, .. } | Pin::Git { .. })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pins {
    pub(crate) of: HashMap<VertexId, Pin>,
    pub(crate) materials: Vec<Material>,
}

type Pinned = Result<(Pin, Material), VertexError>;

/// What is on this machine is read one after the other, by all processors; servers are asked all at once.
pub(crate) fn pin(definition: &Definition, needed: &[VertexId], env: &Env<'_>) -> Result<Pins, SolveError> {
    let source = |id: &VertexId| match &definition.vertex(*id).op {
        Op::Source(source) => Some((*id, source)),
        _ => None,
    };
    let mut here: Vec<(VertexId, Pinned)> = Vec::new();
    scope(|scope| {
        let mut there = Vec::new();
        for (id, source) in needed.iter().filter_map(source) {
            match source {
                SourceOp::Image(image) => here.push((id, pin_image(image, env))),
                SourceOp::Http(http) => there.push((id, scope.spawn(move || pin_http(id, http, env)))),
                SourceOp::Git(git) => there.push((id, scope.spawn(move || pin_git(id, git, env)))),
                SourceOp::Local(_) => {}
            }
        }
        for (id, source) in needed.iter().filter_map(source) {
            if let SourceOp::Local(local) = source {
                here.push((id, observed(id, env, || pin_local(id, local, env))));
            }
        }
        let joined = there
            .into_iter()
            .map(|(id, asked)| (id, asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        here.extend(joined);
    });
    here.sort_by_key(|(id, _)| *id);
    let mut pins = Pins::default();
    for (vertex, pinned) in here {
        let (pin, material) = match pinned {
            Ok(pinned) => pinned,
            Err(error) if error.is_cancelled() => return Err(SolveError::Cancelled),
            Err(error) => return Err(SolveError::of(vertex, error)),
        };
        pins.of.insert(vertex, pin);
        if !pins.materials.contains(&material) {
            pins.materials.push(material);
        }
    }
    Ok(pins)
}

fn pin_image(image: &ImageSource, env: &Env<'_>) -> Pinned {
    let unknown = || VertexError::Unknown { what: "image", name: image.name.clone() };
    let snapshot = env.images.get(&image.manifest).ok_or_else(unknown)?.clone();
    let material = Material::Image {
        name: image.name.clone(),
        manifest: image.manifest,
        platform: image.platform.clone(),
    };
    Ok((Pin::Image(snapshot), material))
}

fn pin_local(id: VertexId, local: &LocalSource, env: &Env<'_>) -> Pinned {
    let Looked { content, compared, ballast } = file::look_at(local, env)?;
    if let Some(ballast) = ballast {
        env.events.send(Event::Ballast { vertex: id, ballast });
    }
    Ok((Pin::Local(content, compared.map(Arc::new)), Material::Local { name: local.name.clone(), content }))
}

/// With a checksum nobody is asked, and there is nothing to be seen until it is fetched.
fn pin_http(id: VertexId, http: &HttpSource, env: &Env<'_>) -> Pinned {
    let pin = || {
        let found = env.remote.pin_http(http, &env.cancel)?;
        let fields = KeyFields::of_download(http, &found.digest, found.modified);
        let material = Material::Http { url: redacted(&http.url), digest: found.digest };
        Ok((Pin::Http { fields, snapshot: found.snapshot }, material))
    };
    if http.checksum.is_some() { pin() } else { observed(id, env, pin) }
}

/// Says something only if it fails: what is shown of it is its fetching.
fn pin_git(id: VertexId, git: &GitSource, env: &Env<'_>) -> Pinned {
    match env.remote.pin_git(git, &env.cancel) {
        Ok(commit) => {
            let material = Material::Git { remote: redacted(&git.remote), commit: commit.clone() };
            Ok((Pin::Git { fields: KeyFields::of_commit(git, &commit), commit }, material))
        }
        Err(error) => observed(id, env, || Err(error.into())),
    }
}

/// Tells of the pinning of a vertex that shows no other work.
fn observed(id: VertexId, env: &Env<'_>, pin: impl FnOnce() -> Pinned) -> Pinned {
    let (at, started) = (SystemTime::now(), Instant::now());
    env.events.send(Event::Started { vertex: id, at });
    let pinned = pin();
    let took = started.elapsed();
    env.events.send(match &pinned {
        Ok(_) => Event::Finished { vertex: id, took, how: How::Free },
        Err(error) if error.is_cancelled() => Event::Canceled { vertex: id },
        Err(error) => Event::Failed { vertex: id, took, message: error.to_string() },
    });
    pinned
}
