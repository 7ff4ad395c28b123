//! What an archive brought becomes part of the store: layers are verified and unpacked, in parallel, and only when all
//! are good the images and their names are recorded.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::sync::Arc;

use super::Loaded;
use crate::blob::local::SealedBlob;
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};
use crate::image::assemble::{manifest_bytes, stored_form};
use crate::layer::Compression;
use crate::oci::descriptor::{OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD};
use crate::oci::{Document, ImageConfig, Reference};
use crate::parallel::each;
use crate::record::NewImage;
use crate::snapshot::Layer;
use crate::store::Store;

/// An image of an archive, or an index with those of its images that are there.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The index with its digest, if it is one.
    pub(super) index: Option<(Digest, Vec<u8>)>,
    /// Without an index, one.
    pub(super) parts: Vec<Part>,
    pub(super) names: Vec<Reference>,
}

/// One image.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: Digest,
    pub(super) config: Vec<u8>,
    /// If the archive has one, with the digest by which it is named there.
    pub(super) manifest: Option<(Digest, Vec<u8>)>,
    /// None for a layer that the archive leaves out, because whoever loads it has it already.
    pub(super) layers: Vec<Option<Arc<SealedBlob>>>,
}

pub(super) fn adopt(store: &Store, images: Vec<Incoming>, cancel: &Cancel) -> Result<Vec<Loaded>> {
    let mut known = HashSet::new();
    let mut wanted: Vec<(DiffId, Option<Arc<SealedBlob>>)> = Vec::new();
    for part in images.iter().flat_map(|image| &image.parts) {
        let diff_ids = ImageConfig::parse(&part.config)?.rootfs.diff_ids;
        if diff_ids.len() != part.layers.len() {
            let reason =
                format!("image {} has {} layers, its config {}", part.id, part.layers.len(), diff_ids.len());
            return Err(Error::malformed("image archive", reason));
        }
        for (diff_id, blob) in diff_ids.iter().zip(&part.layers) {
            if known.insert((*diff_id, blob.as_ref().map(|b| b.digest()))) {
                wanted.push((*diff_id, blob.clone()));
            }
        }
    }
    let layers = adopt_layers(store, &wanted, cancel)?;
    images.into_iter().map(|image| record(store, image, &layers)).collect()
}

fn adopt_layers(
    store: &Store,
    wanted: &[(DiffId, Option<Arc<SealedBlob>>)],
    cancel: &Cancel,
) -> Result<HashMap<DiffId, Layer>> {
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for (diff_id, blob) in wanted {
        match blob {
            Some(blob) => present.push((*diff_id, blob)),
            None => absent.push(*diff_id),
        }
    }
    // A large one that is begun last would have only one processor.
    present.sort_by_key(|(_, blob)| std::cmp::Reverse(blob.size()));
    let adopted = each(&present, cancel, |(diff_id, blob), stop| {
        Ok((*diff_id, adopt_layer(store, *diff_id, blob, stop)?))
    })?;
    let mut layers: HashMap<_, _> = adopted.into_iter().collect();
    for diff_id in absent {
        if let Entry::Vacant(slot) = layers.entry(diff_id) {
            slot.insert(known_layer(store, diff_id)?);
        }
    }
    Ok(layers)
}

/// A layer that the archive leaves out must be in the store.
fn known_layer(store: &Store, diff_id: DiffId) -> Result<Layer> {
    let layer = store.foreign_layer(diff_id, None)?;
    if layer.unpacked()?.is_none() && layer.blobs()?.is_empty() {
        let reason = format!("layer {diff_id} is missing, and the store does not have it");
        return Err(Error::malformed("image archive", reason));
    }
    Ok(layer)
}

fn adopt_layer(store: &Store, diff_id: DiffId, blob: &SealedBlob, cancel: &Cancel) -> Result<Layer> {
    let layer = store.foreign_layer(diff_id, None)?;
    let known = layer.blobs()?.iter().any(|b| b.present && b.descriptor.digest == blob.digest());
    if known && layer.unpacked()?.is_some() {
        return Ok(layer);
    }
    let media_type = layer_media_type(blob)?;
    layer.unpack_from(blob.open()?, cancel)?;
    layer.keep_blob(blob, media_type)?;
    Ok(layer)
}

fn layer_media_type(blob: &SealedBlob) -> Result<&'static str> {
    let mut start = Vec::new();
    blob.open()?
        .take(16)
        .read_to_end(&mut start)
        .map_err(Error::io("reading layer", blob.digest().to_string()))?;
    match Compression::detect(&start) {
        Compression::None => Ok(OCI_LAYER),
        Compression::Gzip => Ok(OCI_LAYER_GZIP),
        Compression::Zstd => Ok(OCI_LAYER_ZSTD),
        other => Err(Error::malformed("image archive", format!("a layer compressed with {other:?}"))),
    }
}

/// An image that is ready to be recorded.
struct Whole {
    part: Part,
    manifest: (Digest, Vec<u8>),
    layers: Vec<Layer>,
}

fn record(store: &Store, image: Incoming, known: &HashMap<DiffId, Layer>) -> Result<Loaded> {
    let Incoming { index, parts, names } = image;
    let wholes = parts.into_iter().map(|part| whole(part, known)).collect::<Result<Vec<_>>>()?;
    let new: Vec<NewImage<'_>> = wholes
        .iter()
        .map(|Whole { part, manifest, layers }| NewImage {
            config: (&part.id, &part.config),
            manifest: (&manifest.0, &manifest.1),
            layers,
        })
        .collect();
    let given: Vec<_> = names.iter().map(|name| (name.clone(), name.digest().copied())).collect();
    let id = match (&index, &new[..]) {
        (Some((id, bytes)), new) => {
            store.put_index((id, bytes), new, &[], &given)?;
            *id
        }
        (None, [NewImage { config, manifest, layers }, ..]) => {
            store.put_image(*config, *manifest, layers, &given)?.id
        }
        (None, []) => return Err(Error::malformed("image archive", "an image of nothing")),
    };
    Ok(Loaded { id, names })
}

fn whole(part: Part, known: &HashMap<DiffId, Layer>) -> Result<Whole> {
    let stack = ImageConfig::parse(&part.config)?.rootfs.diff_ids;
    let layers: Vec<Layer> = stack.iter().map(|d| known[d].clone()).collect();
    let own = part.manifest.as_ref().filter(|(_, bytes)| names_blobs(bytes, &part.layers));
    let manifest = match own {
        Some(manifest) => manifest.clone(),
        None => {
            let forms = layers.iter().map(|layer| Ok(stored_form(layer)?.descriptor));
            let bytes = manifest_bytes(&part.id, part.config.len() as u64, forms.collect::<Result<_>>()?);
            (Digest::of(&bytes), bytes)
        }
    };
    Ok(Whole { part, manifest, layers })
}

/// Whether the manifest's layers are the blobs that were read.
fn names_blobs(manifest: &[u8], blobs: &[Option<Arc<SealedBlob>>]) -> bool {
    let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { return false };
    manifest.layers.len() == blobs.len()
        && manifest.layers.iter().zip(blobs).all(|(d, b)| b.as_ref().is_none_or(|b| b.digest() == d.digest))
}
