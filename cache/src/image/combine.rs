//! One index of what several pushes brought to registries: looked up, put together, and copied to where it is wanted. No
//! layer is unpacked, and none passes through here that the registry can mount.

use std::collections::HashSet;
use std::io::Read;

use super::assemble::index_bytes;
use super::resolve::check_against;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::config::MAX_CONFIG;
use crate::oci::descriptor::{DOCKER_INDEX, DOCKER_MANIFEST, MediaType};
use crate::oci::manifest::MAX_INDEX_DEPTH;
use crate::oci::{Descriptor, Document, ImageConfig, Index, Reference};
use crate::registry::{Client, Fetched, subject_of};

/// How many manifests and indexes are copied for one index.
const MAX_COPIES: usize = 1000;

/// A manifest or index in a registry.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its repository, by its digest.
    pub place: Reference,
    /// With the platform of an image and whatever else its source says of it.
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

/// An index, and where that which it names is.
#[derive(Clone, Debug)]
pub struct Combined {
    pub media_type: String,
    pub bytes: Vec<u8>,
    parts: Vec<(Reference, Descriptor)>,
    /// Where it is already, if it is no new index.
    source: Option<Found>,
}

/// What `reference` stands for in its registry.
///
/// # Errors
/// As [`Client::fetch_manifest`], or when it is neither a manifest nor an index.
pub fn look_up(client: &Client, reference: &Reference, cancel: &Cancel) -> Result<Found> {
    let Fetched { bytes, media_type, digest } = client.fetch_manifest(reference, cancel)?;
    let announced = Some(media_type.as_str()).filter(|announced| !announced.is_empty());
    let document = Document::parse(&bytes, announced)?;
    let inner = match &document {
        Document::Manifest(manifest) => manifest.media_type.clone(),
        Document::Index(index) => index.media_type.clone(),
    };
    let media_type = inner.unwrap_or(media_type);
    let mut descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
    if let Document::Manifest(manifest) = &document
        && manifest.config.kind() == MediaType::Config
        && manifest.config.size <= MAX_CONFIG
    {
        let mut config = Vec::new();
        let read = client.open_blob(reference, &manifest.config, cancel)?.read_to_end(&mut config);
        read.map_err(Error::io("fetching the config of", reference.familiar()))?;
        descriptor.platform = ImageConfig::parse(&config)?.platform();
    }
    Ok(Found { place: reference.by_digest(digest), descriptor, bytes })
}

impl Combined {
    /// The index of all that `found` names, each once; of another index its entries. One that is alone stays as it is
    /// if it is an index, or `as_it_is`.
    ///
    /// # Errors
    /// When something is not what its media type says, or nothing was found.
    pub fn of(found: &[Found], as_it_is: bool) -> Result<Combined> {
        if let [only] = found
            && (as_it_is || only.descriptor.kind() == MediaType::Index)
        {
            let Found { place, descriptor, bytes } = only.clone();
            let parts = match Document::parse(&bytes, Some(&descriptor.media_type))? {
                Document::Index(index) => located(&place, index.manifests),
                Document::Manifest(_) => vec![(place, descriptor.clone())],
            };
            let media_type = descriptor.media_type;
            return Ok(Combined { media_type, bytes, parts, source: Some(only.clone()) });
        }
        let mut parts: Vec<(Reference, Descriptor)> = Vec::new();
        for Found { place, descriptor, bytes } in found {
            let new = match Document::parse(bytes, Some(&descriptor.media_type))? {
                Document::Index(index) => located(place, index.manifests),
                Document::Manifest(_) => vec![(place.clone(), descriptor.clone())],
            };
            for (place, descriptor) in new {
                if !parts.iter().any(|(_, known)| known.digest == descriptor.digest) {
                    parts.push((place, descriptor));
                }
            }
        }
        if parts.is_empty() {
            return Err(Error::malformed("index", "there is nothing to put into it"));
        }
        let mut index = Index::oci(parts.iter().map(|(_, descriptor)| descriptor.clone()).collect());
        // Readers of docker's old form get it where everything has it, and nothing says what it has no place for.
        let is_old = |d: &Descriptor| d.media_type == DOCKER_MANIFEST && d.annotations.is_empty();
        if parts.iter().all(|(_, descriptor)| is_old(descriptor)) {
            index.media_type = Some(DOCKER_INDEX.to_owned());
        }
        Ok(Combined {
            media_type: index.media_type.clone().unwrap_or_default(),
            bytes: index_bytes(&index),
            parts,
            source: None,
        })
    }

    /// Lets `change` have its way with the index, also with its media type; true if it is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn edit(&mut self, change: impl FnOnce(&mut Index)) -> Result<bool> {
        let Document::Index(mut index) = Document::parse(&self.bytes, Some(&self.media_type))? else {
            return Ok(false);
        };
        change(&mut index);
        self.source = None;
        self.media_type = index.media_type.clone().unwrap_or_else(|| self.media_type.clone());
        self.bytes = index_bytes(&index);
        Ok(true)
    }

    /// Puts it under the name, after all that it names; with `referrers` also what refers to what is copied.
    ///
    /// # Errors
    /// When something can't be fetched, or the registry refuses it.
    pub fn push(
        &self,
        client: &Client,
        name: &Reference,
        referrers: bool,
        cancel: &Cancel,
    ) -> Result<Descriptor> {
        let mut copies = Copies { client, to: name, referrers, cancel, seen: HashSet::new() };
        for (place, descriptor) in &self.parts {
            copies.copy(place, descriptor, MAX_INDEX_DEPTH)?;
        }
        let digest = client.push_manifest(name, &self.media_type, self.bytes.clone(), cancel)?;
        if let Some(Found { place, descriptor, .. }) = &self.source {
            copies.copy_referrers(place, &descriptor.digest, MAX_INDEX_DEPTH)?;
        }
        Ok(Descriptor::new(&self.media_type, digest, self.bytes.len() as u64))
    }
}

fn located(place: &Reference, manifests: Vec<Descriptor>) -> Vec<(Reference, Descriptor)> {
    manifests.into_iter().map(|descriptor| (place.by_digest(descriptor.digest), descriptor)).collect()
}

/// What is brought to one repository.
struct Copies<'a> {
    client: &'a Client,
    to: &'a Reference,
    referrers: bool,
    cancel: &'a Cancel,
    /// Indexes may name one document a thousand times, and those that do each other.
    seen: HashSet<Digest>,
}

impl Copies<'_> {
    /// Brings a manifest or index with all that it names there, by its digest.
    fn copy(&mut self, from: &Reference, descriptor: &Descriptor, depth: u32) -> Result<()> {
        let Copies { client, to, cancel, .. } = *self;
        if repository(from) == repository(to) || !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        // As the layers that BuildKit's form of a cache names in an index.
        if !matches!(descriptor.kind(), MediaType::Manifest | MediaType::Index | MediaType::Other) {
            return self.copy_blob(from, descriptor);
        }
        if depth == 0 {
            return Err(Error::malformed(from.familiar(), "indexes within indexes within indexes"));
        }
        self.check_number(from)?;
        let fetched = client.fetch_manifest(&from.by_digest(descriptor.digest), cancel)?;
        check_against(descriptor, &fetched)?;
        self.send(from, descriptor, fetched.bytes, depth)
    }

    fn send(&mut self, from: &Reference, descriptor: &Descriptor, bytes: Vec<u8>, depth: u32) -> Result<()> {
        let Copies { client, to, cancel, .. } = *self;
        match Document::parse(&bytes, Some(&descriptor.media_type))? {
            Document::Index(index) => {
                let below = depth.checked_sub(1).ok_or_else(|| {
                    Error::malformed(descriptor.digest.to_string(), "indexes within indexes, and so on")
                })?;
                for entry in &index.manifests {
                    self.copy(from, entry, below)?;
                }
            }
            Document::Manifest(manifest) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    self.copy_blob(from, blob)?;
                }
            }
        }
        client.push_manifest(&to.by_digest(descriptor.digest), &descriptor.media_type, bytes, cancel)?;
        self.copy_referrers(from, &descriptor.digest, depth)
    }

    fn copy_blob(&self, from: &Reference, blob: &Descriptor) -> Result<()> {
        let Copies { client, to, cancel, .. } = *self;
        let mut open = || Ok(Box::new(client.open_blob(from, blob, cancel)?) as Box<dyn Read + Send>);
        client.push_blob(to, blob, Some(&repository(from)), &mut open, cancel).map(drop)
    }

    /// What refers to `subject`, and to that, as far as it is there and does so.
    fn copy_referrers(&mut self, from: &Reference, subject: &Digest, depth: u32) -> Result<()> {
        let Copies { client, to, referrers, cancel, .. } = *self;
        if !referrers || repository(from) == repository(to) {
            return Ok(());
        }
        for entry in client.referrers(from, subject, None, cancel)? {
            if depth == 0 {
                return Err(Error::malformed(from.familiar(), "what refers to it has no end"));
            }
            if !self.seen.insert(entry.digest) {
                continue;
            }
            self.check_number(from)?;
            let fetched = match client.fetch_manifest(&from.by_digest(entry.digest), cancel) {
                Ok(fetched) => fetched,
                // A list under a tag still names what was deleted.
                Err(Error::NotFound { .. }) => continue,
                Err(e) => return Err(e),
            };
            check_against(&entry, &fetched)?;
            // Whoever may write the list could otherwise keep the image from being copied.
            if subject_of(&fetched.bytes).is_none_or(|own| own.digest != *subject) {
                continue;
            }
            self.send(from, &entry, fetched.bytes, depth - 1)?;
        }
        Ok(())
    }

    fn check_number(&self, from: &Reference) -> Result<()> {
        if self.seen.len() <= MAX_COPIES {
            return Ok(());
        }
        let reason = format!("it names more than {MAX_COPIES} images");
        Err(Error::malformed(from.familiar(), reason))
    }
}

fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}
