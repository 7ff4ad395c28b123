//! Finds the images that a Dockerfile names: in the store, in OCI layouts, in registries.

use std::collections::HashMap;
use std::path::Path;

use boxwright_cache as cache;
use boxwright_frontend as frontend;
use boxwright_solver::ir::ImageSource;
use cache::Digest;
use cache::digest::ChainId;
use cache::image::{self, Policy, Pull, Resolved, Sources};
use cache::import::Wanted;
use cache::oci::Platform;
use cache::record::Stored;
use cache::snapshot::Snapshot;
use frontend::{Bases, Diagnostic, Dockerfile, ImageRequest, ResolvedBase};

use super::build::{BuildRequest, failed, step};
use super::failure::{BuildFailure, Source};
use super::{Engine, shortage};
use crate::error::{Error, Result};
use crate::exit;
use crate::progress::Watch;

/// What is known of the images of a build.
#[derive(Debug, Default)]
pub(super) struct KnownBases {
    pub(super) bases: Bases,
    /// The layers of each, by manifest.
    pub(super) images: HashMap<Digest, Snapshot>,
}

pub(super) const LAYOUT: &str = "oci-layout://";
pub(super) const IMAGE: &str = "docker-image://";

impl Engine {
    /// In rounds: the ONBUILD triggers of a base may name further images.
    pub(super) fn resolve_bases(
        &self,
        dockerfile: &Dockerfile,
        request: &BuildRequest,
        options: &frontend::Options,
        source: &Source,
        watch: &dyn Watch,
    ) -> Result<KnownBases> {
        let mut known = KnownBases::default();
        loop {
            let needed = frontend::needed_images(dockerfile, options, &known.bases)
                .map_err(|diagnostics| failed(BuildFailure::of_meaning(&diagnostics, source)))?;
            if needed.is_empty() {
                return Ok(known);
            }
            for wanted in needed {
                let found = self
                    .resolve_base(&wanted, pull(request), watch)
                    .map_err(|e| self.not_found(&wanted, source, e))?;
                known.images.insert(found.image.manifest, Snapshot::of_image(found.image.layers.clone()));
                known.bases.insert(&wanted, as_base(&wanted, found));
            }
            if !known.bases.have_triggers() {
                return Ok(known);
            }
        }
    }

    /// The same for the checks, which can do without: an image that can't be found is unknown. After the first one no
    /// registry is asked any more, so that the wait for a network that is not there is not multiplied.
    pub(super) fn find_bases(
        &self,
        dockerfile: &Dockerfile,
        request: &BuildRequest,
        options: &frontend::Options,
        watch: &dyn Watch,
    ) -> Result<std::result::Result<Bases, frontend::Diagnostics>> {
        let mut bases = Bases::default();
        let mut pull = pull(request);
        loop {
            let needed = match frontend::needed_images(dockerfile, options, &bases) {
                Ok(needed) => needed,
                Err(diagnostics) => return Ok(Err(diagnostics)),
            };
            if needed.is_empty() {
                return Ok(Ok(bases));
            }
            for wanted in needed {
                match self.resolve_base(&wanted, pull, watch) {
                    Ok(found) => bases.insert(&wanted, as_base(&wanted, found)),
                    Err(error) if exit::is_cancelled(&error) => return Err(error),
                    Err(_) => {
                        bases.insert_unknown(&wanted);
                        pull = Pull::Never;
                    }
                }
            }
            if !bases.have_triggers() {
                return Ok(Ok(bases));
            }
        }
    }

    fn resolve_base(&self, wanted: &ImageRequest, pull: Pull, watch: &dyn Watch) -> Result<Resolved> {
        if let Some(layout) = wanted.name.strip_prefix(LAYOUT) {
            return self.resolve_layout(layout, &wanted.platform);
        }
        let name = wanted.name.strip_prefix(IMAGE).unwrap_or(&wanted.name);
        // An id is no name that a registry could know.
        if let Some(found) = self.image_by_id(name, &wanted.platform)? {
            return Ok(found);
        }
        let reference = super::reference(name)?;
        let sources = Sources { store: &self.store, client: &self.client };
        let policy = Policy { pull, keep: true };
        step(watch, &format!("[internal] load metadata for {reference}"), || {
            Ok(image::resolve(sources, &reference, &wanted.platform, policy, &self.cancel)?)
        })
    }

    fn not_found(&self, wanted: &ImageRequest, source: &Source, error: Error) -> Error {
        if exit::is_cancelled(&error) {
            return error;
        }
        let name = super::reference(&wanted.name).map_or_else(|_| wanted.name.clone(), |r| r.to_string());
        let message = format!("{}: failed to resolve source metadata for {name}: {error}", wanted.name);
        let mut diagnostic = Diagnostic::error(message, wanted.span);
        diagnostic.suggestion = wanted.similar.clone();
        if let Error::Cache(error) = &error {
            diagnostic.hints.extend(shortage::help(error, self.store.path()));
        }
        failed(BuildFailure::of_meaning(&[diagnostic], source))
    }

    fn image_by_id(&self, name: &str, platform: &Platform) -> Result<Option<Resolved>> {
        let Ok(id) = name.parse::<Digest>() else { return Ok(None) };
        let Some(found) = self.store.stored(&id)? else { return Ok(None) };
        // An image that is named by its id is taken whatever it is for; an index has to have one.
        let image = match &found {
            Stored::Image(image) => Some(image),
            Stored::Index(_) => found.for_platform(platform),
        };
        let absent = || image::not_for(name, platform, &found.platforms());
        Ok(Some(Resolved { image: image.ok_or_else(absent)?.clone(), digest: None, remote: false }))
    }

    /// `DIR`, `DIR:TAG`, `DIR@DIGEST` or both, where the digest counts.
    fn resolve_layout(&self, text: &str, platform: &Platform) -> Result<Resolved> {
        let (place, digest) = match text.split_once('@') {
            Some((place, digest)) => (place, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (dir, tag) = match place.rsplit_once(':') {
            Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag)),
            _ => (place, None),
        };
        let wanted = match (&digest, tag) {
            (Some(digest), _) => Wanted::Digest(digest),
            (None, Some(tag)) => Wanted::Tag(tag),
            (None, None) => Wanted::Default,
        };
        Ok(image::resolve_layout(&self.store, Path::new(dir), wanted, platform, &self.cancel)?)
    }
}

fn pull(request: &BuildRequest) -> Pull {
    if request.pull { Pull::Always } else { Pull::Missing }
}

fn as_base(wanted: &ImageRequest, found: Resolved) -> ResolvedBase {
    let image = found.image;
    let config = image.config;
    let platform = config.platform().unwrap_or_else(|| wanted.platform.clone());
    let diff_ids: Vec<_> = image.layers.iter().map(cache::snapshot::Layer::diff_id).collect();
    let source = ImageSource {
        name: wanted.name.clone(),
        manifest: image.manifest,
        chain: ChainId::of(&diff_ids),
        platform,
    };
    ResolvedBase { source, config }
}
