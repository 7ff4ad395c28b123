//! Caches of other machines that a build may take results from. What is there is read when a build begins; of a layer
//! not a byte moves until something reads it, and nothing of it is believed before its digests were verified.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use super::local::Lookup;
use super::remote::{CACHE_CONFIG, CacheConfig, INLINE_FIELD, RemoteRecord};
use crate::blob::layout::{Layout, REF_NAME};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::resolve::{check_config, manifest_for};
use crate::oci::descriptor::MediaType;
use crate::oci::manifest::MAX_DOCUMENT;
use crate::oci::{Descriptor, Document, ImageConfig, Manifest, Platform, Reference};
use crate::record::{CacheKey, NewRecord, Record};
use crate::registry::Client;
use crate::snapshot::{Layer, LayerBlob, Snapshot};
use crate::store::Store;

/// The largest cache config that is read, in bytes.
const MAX_CACHE_CONFIG: u64 = 64 << 20;

/// What another machine has.
#[derive(Debug)]
pub struct Import {
    /// For people, without credentials: `registry.example/app:cache`, `/tmp/cache`.
    name: String,
    repository: String,
    records: Vec<RemoteRecord>,
    definitions: HashMap<CacheKey, usize>,
    contents: HashMap<CacheKey, usize>,
}

impl Import {
    /// A cache, or an image that carries one in its config, in a registry; of an index, the images for these platforms.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub fn from_registry(
        client: &Client,
        reference: &Reference,
        platforms: &[Platform],
        cancel: &Cancel,
    ) -> Result<Import> {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let top = client.fetch_manifest(reference, cancel)?;
        let announced = Some(top.media_type.as_str()).filter(|announced| !announced.is_empty());
        let blob = |descriptor: &Descriptor| {
            check_size(&reference.familiar(), descriptor)?;
            let mut bytes = Vec::new();
            client
                .open_blob(reference, descriptor, cancel)?
                .read_to_end(&mut bytes)
                .map_err(Error::io("fetching the cache", reference.familiar()))?;
            Ok(bytes)
        };
        let document = Document::parse(&top.bytes, announced)?;
        if let Some((config, layers)) = parts_of_cache(&document) {
            let config = CacheConfig::parse(&blob(config)?)?;
            return Ok(Import::of(reference.familiar(), repository, config.records(&layers)));
        }
        let (mut records, mut absent) = (Vec::new(), None);
        for platform in platforms {
            let found = manifest_for(client, reference, top.clone(), platform, cancel);
            let manifest = match found {
                Err(error @ Error::NotFound { .. }) => {
                    absent = Some(error);
                    continue;
                }
                found => found?.1,
            };
            check_config(&reference.familiar(), &manifest.config)?;
            let config = ImageConfig::parse(&blob(&manifest.config)?)?;
            records.extend(inline_records(&reference.familiar(), &manifest, &config)?);
        }
        match absent {
            Some(error) if records.is_empty() => Err(error),
            _ => Ok(Import::of(reference.familiar(), repository, records)),
        }
    }

    /// A cache in an OCI layout directory: the one with the tag, or with the digest.
    ///
    /// # Errors
    /// As [`Import::from_registry`].
    pub fn from_layout(dir: &Path, tag: &str, digest: Option<&Digest>) -> Result<Import> {
        let dir = std::path::absolute(dir).map_err(Error::io("finding", dir))?;
        let layout = Layout::open(&dir)?;
        let missing = || Error::NotFound { what: "cache in the layout", name: dir.display().to_string() };
        let Document::Index(index) = Document::parse(&layout.index()?, None)? else { return Err(missing()) };
        let tagged = |entry: &&Descriptor| entry.annotations.get(REF_NAME).is_some_and(|name| name == tag);
        let entry = match digest {
            Some(digest) => index.manifests.iter().find(|entry| entry.digest == *digest),
            None => index.manifests.iter().find(tagged),
        };
        let entry = entry.ok_or_else(missing)?;
        let document = Document::parse(&read_blob(&layout, entry, MAX_DOCUMENT)?, Some(&entry.media_type))?;
        let (config, layers) = parts_of_cache(&document).ok_or_else(missing)?;
        let config = CacheConfig::parse(&read_blob(&layout, config, MAX_CACHE_CONFIG)?)?;
        let repository = format!("{}{}", crate::blob::LAYOUT, dir.display());
        Ok(Import::of(dir.display().to_string(), repository, config.records(&layers)))
    }

    fn of(name: String, repository: String, records: Vec<RemoteRecord>) -> Import {
        let (mut definitions, mut contents) = (HashMap::new(), HashMap::new());
        for (i, record) in records.iter().enumerate() {
            definitions.insert(record.definition, i);
            contents.extend(record.content_key.map(|key| (key, i)));
        }
        Import { name, repository, records, definitions, contents }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its layers are fetched from, as [`crate::blob::BlobFetch`] names it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// How many results are there.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether a layer is not here, and nowhere else but there.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn alone_has(&self, layer: &Layer) -> Result<bool> {
        if layer.is_here()? {
            return Ok(false);
        }
        let blobs = layer.blobs()?;
        Ok(blobs.iter().all(|blob| !blob.present && blob.repository.as_ref() == Some(&self.repository)))
    }

    fn find(&self, lookup: Lookup) -> Option<&RemoteRecord> {
        let at = match lookup {
            Lookup::Definition(key) => self.definitions.get(&key),
            Lookup::Contents(key) => self.contents.get(&key),
            Lookup::Result(_) => None,
        };
        at.map(|at| &self.records[*at])
    }
}

impl Store {
    /// The result that one of `imports` has, recorded here under the key `definition` with these fields; its layers
    /// are named, and fetched when something reads them.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn import_record(
        &self,
        imports: &[Import],
        lookup: Lookup,
        definition: CacheKey,
        fields: &str,
    ) -> Result<Option<Record>> {
        let Some((import, found)) = imports.iter().find_map(|import| Some((import, import.find(lookup)?)))
        else {
            return Ok(None);
        };
        let layers = found.layers.iter().map(|(diff_id, descriptor)| {
            let layer = self.foreign_layer(*diff_id, None)?;
            // Where it was known to be before is a better place.
            if !layer.blobs()?.iter().any(|blob| blob.descriptor.digest == descriptor.digest) {
                let repository = Some(import.repository.clone());
                layer.add_blob(&LayerBlob { descriptor: descriptor.clone(), present: false, repository })?;
            }
            Ok(layer)
        });
        let snapshot = Snapshot::recorded(layers.collect::<Result<_>>()?, found.content);
        let (content_key, took, origin) = (found.content_key, found.took, Some(import.name.as_str()));
        self.put_record(&NewRecord { definition, content_key, snapshot: &snapshot, fields, took, origin })?;
        Ok(Some(Record { content_key, snapshot, took, origin: origin.map(str::to_owned) }))
    }
}

/// The cache config and the layers, if it is a cache: as a manifest, or (as older versions of BuildKit wrote it) as an
/// index that names blobs.
fn parts_of_cache(document: &Document) -> Option<(&Descriptor, Vec<Descriptor>)> {
    match document {
        Document::Manifest(manifest) if manifest.config.media_type == CACHE_CONFIG => {
            Some((&manifest.config, manifest.layers.clone()))
        }
        Document::Manifest(_) => None,
        Document::Index(index) => {
            let config = index.manifests.iter().find(|entry| entry.media_type == CACHE_CONFIG)?;
            let layers = index.manifests.iter().filter(|entry| entry.kind().is_layer()).cloned().collect();
            Some((config, layers))
        }
    }
}

/// What an image carries of the steps that made it; nothing if it carries nothing.
fn inline_records(name: &str, manifest: &Manifest, config: &ImageConfig) -> Result<Vec<RemoteRecord>> {
    let Some(field) = config.extra.get(INLINE_FIELD).and_then(|field| field.as_str()) else {
        return Err(Error::NotFound { what: "cache", name: name.to_owned() });
    };
    let layers: Vec<_> =
        config.rootfs.diff_ids.iter().copied().zip(manifest.layers.iter().cloned()).collect();
    Ok(CacheConfig::parse_inline(field, &layers)?.records(&[]))
}

fn check_size(name: &str, descriptor: &Descriptor) -> Result<()> {
    let limit = if descriptor.kind() == MediaType::Config {
        crate::oci::config::MAX_CONFIG
    } else {
        MAX_CACHE_CONFIG
    };
    if descriptor.size > limit {
        return Err(Error::malformed(name, format!("a config of {} bytes", descriptor.size)));
    }
    Ok(())
}

fn read_blob(layout: &Layout, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
    let missing = || Error::NotFound { what: "blob in the layout", name: descriptor.digest.to_string() };
    let file = layout.open_blob(&descriptor.digest)?.ok_or_else(missing)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("reading", layout.name()))?;
    let mut hasher = descriptor.digest.algorithm().hasher();
    hasher.update(&bytes);
    let actual = hasher.finish();
    if bytes.len() as u64 > limit || actual != descriptor.digest {
        return Err(Error::Mismatch {
            what: format!("blob in {}", layout.name()),
            expected: descriptor.digest.to_string(),
            actual: actual.to_string(),
        });
    }
    Ok(bytes)
}
