//! Images in registries, looked at and put together there: nothing comes into the store.

use std::collections::HashSet;

use boxwright_cache::image::Annotations;
use boxwright_cache::image::combine::{self, Combined, Found};
use boxwright_cache::oci::config::MAX_CONFIG;
use boxwright_cache::oci::{Descriptor, Document, Reference};
use serde_json::{Map, Value, json};

use super::Engine;
use super::build::step;
use crate::error::{Error, Result};
use crate::progress::Watch;

/// Of how many images the configs are read to be shown: an index may name any number, and one many times.
const MAX_ENTRIES: usize = 1000;

/// An index to make of what registries have.
#[derive(Clone, Debug, Default)]
pub struct CombineRequest {
    pub sources: Vec<CombineSource>,
    /// Where the index goes.
    pub names: Vec<Reference>,
    /// What the first of the names stands for comes first.
    pub append: bool,
    /// A single image becomes an index, too.
    pub prefer_index: bool,
    /// What refers to the images is copied with them.
    pub referrers: bool,
    pub annotations: Annotations,
}

/// Something that a registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CombineSource {
    Name(Reference),
    /// In the repository of the first of the names; with what is to be said of it.
    Descriptor(Box<Descriptor>),
    Digest(boxwright_cache::Digest),
}

impl Engine {
    /// Makes an index of what registries have. Nothing is sent yet.
    ///
    /// # Errors
    /// When something is not there, or can't be part of an index.
    pub fn combine(&self, request: &CombineRequest) -> Result<Combined> {
        let mut found: Vec<Found> = Vec::new();
        if request.append {
            let name =
                request.names.first().ok_or_else(|| Error::invalid("--append needs a --tag to append to"))?;
            found.push(self.in_registry(name)?);
        }
        for source in &request.sources {
            found.push(match source {
                CombineSource::Name(name) => self.in_registry(name)?,
                CombineSource::Digest(digest) => {
                    self.in_registry(&repository_of(request)?.by_digest(*digest))?
                }
                CombineSource::Descriptor(given) => {
                    let place = repository_of(request)?.by_digest(given.digest);
                    let mut known = self.in_registry(&place)?;
                    known.descriptor.annotations.extend(given.annotations.clone());
                    known.descriptor.platform = given.platform.clone().or(known.descriptor.platform);
                    known
                }
            });
        }
        let as_it_is = !request.prefer_index && request.annotations.is_empty();
        let mut combined = Combined::of(&found, as_it_is)?;
        if !request.annotations.is_empty() {
            combined.edit(|index| request.annotations.add_to(index))?;
        }
        Ok(combined)
    }

    /// Sends an index, and what is missing of that which it names, to all the names of the request.
    ///
    /// # Errors
    /// When a registry refuses something.
    pub fn push_combined(
        &self,
        combined: &Combined,
        request: &CombineRequest,
        watch: &dyn Watch,
    ) -> Result<()> {
        for name in &request.names {
            step(watch, &format!("[internal] pushing {name}"), || {
                Ok(combined.push(&self.client, name, request.referrers, &self.cancel)?)
            })?;
        }
        Ok(())
    }

    /// What a registry has under this name.
    ///
    /// # Errors
    /// When it has nothing, or no image.
    pub fn in_registry(&self, name: &Reference) -> Result<Found> {
        Ok(combine::look_up(&self.client, name, &self.cancel)?)
    }

    /// What refers to it in its repository, of the kind `artifact_type` if there is one.
    ///
    /// # Errors
    /// When the registry's list can't be had or read.
    pub fn referrers_in_registry(
        &self,
        found: &Found,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        Ok(self.client.referrers(&found.place, &found.descriptor.digest, artifact_type, &self.cancel)?)
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// When there is no such repository, or the registry's list can't be had or read.
    pub fn tags_in_registry(&self, repository: &Reference) -> Result<Vec<String>> {
        Ok(self.client.tags(repository, &self.cancel)?)
    }

    /// The configs of an image, or of an index by platform.
    ///
    /// # Errors
    /// As [`Engine::in_registry`].
    pub fn configs_in_registry(&self, found: &Found) -> Result<Value> {
        let mut left = MAX_CONFIG;
        let mut config = |found: &Found| -> Result<Value> {
            match Document::parse(&found.bytes, Some(&found.descriptor.media_type))? {
                Document::Manifest(manifest) => {
                    left = left.checked_sub(manifest.config.size).ok_or_else(|| {
                        Error::invalid(format!("{}: configs of more than {MAX_CONFIG} bytes", found.place))
                    })?;
                    let mut text = String::new();
                    let mut blob = self.client.open_blob(&found.place, &manifest.config, &self.cancel)?;
                    std::io::Read::read_to_string(&mut blob, &mut text)
                        .map_err(Error::io("fetching the config of", found.place.to_string()))?;
                    serde_json::from_str(&text).map_err(|e| Error::invalid(format!("{}: {e}", found.place)))
                }
                Document::Index(_) => Ok(Value::Null),
            }
        };
        match Document::parse(&found.bytes, Some(&found.descriptor.media_type))? {
            Document::Manifest(_) => config(found),
            Document::Index(index) => {
                let (mut all, mut seen) = (Map::new(), HashSet::new());
                for entry in index.manifests.iter().filter(|entry| entry.is_for_a_platform()) {
                    if !seen.insert(entry.digest) {
                        continue;
                    }
                    if seen.len() > MAX_ENTRIES {
                        return Err(Error::invalid(format!(
                            "{}: more than {MAX_ENTRIES} images",
                            found.place
                        )));
                    }
                    let image = self.in_registry(&found.place.by_digest(entry.digest))?;
                    let platform = entry.platform.clone().or(image.descriptor.platform.clone());
                    all.insert(platform.map_or(entry.digest.to_string(), |p| p.to_string()), config(&image)?);
                }
                Ok(json!(all))
            }
        }
    }
}

fn repository_of(request: &CombineRequest) -> Result<&Reference> {
    let named = request.sources.iter().find_map(|source| match source {
        CombineSource::Name(name) => Some(name),
        _ => None,
    });
    let missing = "no repositories specified, please set a reference in tag or source";
    request.names.first().or(named).ok_or_else(|| Error::invalid(missing))
}
