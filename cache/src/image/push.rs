//! Pushing: an image's blobs and manifest to a repository. Layers of our own are compressed here, once; what was
//! compressed is remembered, so that the next push finds the same bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::assemble::{as_oci, index_bytes, manifest_bytes};
use super::resolve::Sources;
use crate::cancel::Cancel;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::layer::compress::GzipWriter;
use crate::oci::descriptor::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use crate::oci::{Descriptor, Document, Index, Reference};
use crate::record::{ImageRecord, IndexRecord, Member, Stored};
use crate::registry::Sent;
use crate::snapshot::{Layer, LayerBlob};
use crate::store::Store;

/// What a push tells while it runs, from several threads. Layers are named by their diff ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    Preparing {
        layer: Digest,
    },
    Present {
        layer: Digest,
    },
    /// The registry had it in another repository.
    Mounted {
        layer: Digest,
        from: String,
    },
    Done {
        layer: Digest,
        size: u64,
    },
}

const PARALLEL: usize = 4;
/// libdeflate's fastest: it gives what zlib gives at its default, in a fraction of the time.
const LEVEL: i32 = 1;

/// Pushes an image, or an index with all of its images, under `reference`; what came from a registry unchanged keeps
/// its manifest.
///
/// # Errors
/// When a layer can't be had or compressed, an image of the index is not here, or the registry refuses something.
pub fn push(
    sources: Sources<'_>,
    stored: &Stored,
    reference: &Reference,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Descriptor> {
    match stored {
        Stored::Image(image) => {
            let Ready { media_type, manifest } = push_parts(sources, image, reference, tell, cancel)?;
            put(sources, reference, &media_type, manifest, cancel)
        }
        Stored::Index(index) => push_index(sources, index, reference, tell, cancel),
    }
}

/// A manifest whose blobs are in the registry.
struct Ready {
    media_type: String,
    manifest: Vec<u8>,
}

fn put(
    sources: Sources<'_>,
    reference: &Reference,
    media_type: &str,
    manifest: Vec<u8>,
    cancel: &Cancel,
) -> Result<Descriptor> {
    let size = manifest.len() as u64;
    let digest = sources.client.push_manifest(reference, media_type, manifest, cancel)?;
    Ok(Descriptor::new(media_type, digest, size))
}

/// The images go by their digests, and the index that names them last. Where the layers of one get another form on their
/// way, the index names the manifest that has it.
fn push_index(
    sources: Sources<'_>,
    record: &IndexRecord,
    reference: &Reference,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Descriptor> {
    let absent: Vec<String> = record
        .absent()
        .map(|d| d.platform.as_ref().map_or(d.digest.to_string(), ToString::to_string))
        .collect();
    if !absent.is_empty() {
        let name = format!("{} for {}", reference.familiar(), absent.join(", "));
        return Err(Error::NotFound { what: "image of the index", name });
    }
    let mut manifests = Vec::new();
    for Member { descriptor, image } in &record.members {
        let Ready { media_type, manifest } = push_parts(sources, image, reference, tell, cancel)?;
        let by_digest = reference.by_digest(Digest::of(&manifest));
        let pushed = put(sources, &by_digest, &media_type, manifest, cancel)?;
        let same = pushed.digest == descriptor.digest;
        manifests.push(if same {
            descriptor.clone()
        } else {
            Descriptor { media_type, digest: pushed.digest, size: pushed.size, ..descriptor.clone() }
        });
    }
    let unchanged = manifests == record.index.manifests;
    let original = sources.store.document(&record.id)?.filter(|_| unchanged);
    // What is said about an image that is not here (attestations) stays behind.
    let index = Index { manifests, ..record.index.clone() };
    let media_type = index.media_type.clone().unwrap_or_else(|| OCI_INDEX.to_owned());
    put(sources, reference, &media_type, original.unwrap_or_else(|| index_bytes(&index)), cancel)
}

/// Brings config and layers there.
fn push_parts(
    sources: Sources<'_>,
    image: &ImageRecord,
    reference: &Reference,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Ready> {
    let Sources { store, client } = sources;
    let missing =
        |digest: &Digest| Error::NotFound { what: "document of an image", name: digest.to_string() };
    let config = store.document(&image.id)?.ok_or_else(|| missing(&image.id))?;
    let original = store.document(&image.manifest)?.ok_or_else(|| missing(&image.manifest))?;
    store.set_remote(std::sync::Arc::new(client.clone()));
    let forms = push_layers(sources, image, &original, reference, tell, cancel)?;
    let config_blob = Descriptor::new(OCI_CONFIG, image.id, config.len() as u64);
    let mut open = || Ok(Box::new(std::io::Cursor::new(config.clone())) as Box<dyn Read + Send>);
    client.push_blob(reference, &config_blob, None, &mut open, cancel)?;
    let (media_type, manifest) = if same_layers(&original, &forms)? {
        (media_type_of(&original), original)
    } else {
        let layers = forms.iter().map(|form| as_oci(&form.descriptor)).collect();
        (OCI_MANIFEST.to_owned(), manifest_bytes(&image.id, config.len() as u64, layers))
    };
    let repository = Some(format!("{}/{}", reference.registry(), reference.repository()));
    for (layer, form) in image.layers.iter().zip(forms) {
        layer.add_blob(&LayerBlob { repository: repository.clone(), ..form })?;
    }
    Ok(Ready { media_type, manifest })
}

/// The blobs that a manifest names as layers.
fn layers_of(manifest: &[u8]) -> Result<Vec<Descriptor>> {
    match Document::parse(manifest, None)? {
        Document::Manifest(manifest) => Ok(manifest.layers),
        Document::Index(_) => Ok(Vec::new()),
    }
}

fn same_layers(manifest: &[u8], forms: &[LayerBlob]) -> Result<bool> {
    Ok(layers_of(manifest)?.iter().map(|d| d.digest).eq(forms.iter().map(|f| f.descriptor.digest)))
}

fn media_type_of(manifest: &[u8]) -> String {
    match Document::parse(manifest, None) {
        Ok(Document::Manifest(manifest)) => manifest.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned()),
        _ => OCI_MANIFEST.to_owned(),
    }
}

/// Brings all layers there; gives the form in which each one is there now.
fn push_layers(
    sources: Sources<'_>,
    image: &ImageRecord,
    manifest: &[u8],
    reference: &Reference,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Vec<LayerBlob>> {
    let wanted: BTreeSet<Digest> = layers_of(manifest)?.iter().map(|d| d.digest).collect();
    let stop = cancel.child()?;
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<LayerBlob>>> = Mutex::new(vec![None; image.layers.len()]);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(image.layers.len()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(layer) = image.layers.get(i) else { return };
                    match push_layer(sources, layer, &wanted, reference, tell, &stop) {
                        Ok(form) => results.lock().unwrap_or_else(|e| e.into_inner())[i] = Some(form),
                        Err(e) => {
                            failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
                            stop.raise();
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    Ok(results.into_inner().unwrap_or_else(|e| e.into_inner()).into_iter().flatten().collect())
}

fn push_layer(
    sources: Sources<'_>,
    layer: &Layer,
    wanted: &BTreeSet<Digest>,
    reference: &Reference,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<LayerBlob> {
    let Sources { store, client } = sources;
    let diff_id = layer.diff_id().0;
    tell(PushEvent::Preparing { layer: diff_id });
    let form = pushable(store, layer, wanted, cancel)?;
    let mut bytes = || open(sources, &form, cancel);
    let sent =
        client.push_blob(reference, &form.descriptor, form.repository.as_deref(), &mut bytes, cancel)?;
    tell(match sent {
        Sent::Uploaded => PushEvent::Done { layer: diff_id, size: form.descriptor.size },
        Sent::Mounted(from) => PushEvent::Mounted { layer: diff_id, from },
        Sent::Present => PushEvent::Present { layer: diff_id },
    });
    Ok(form)
}

/// The bytes of a blob. One that is only in another repository so far passes through without being kept.
pub(crate) fn open(sources: Sources<'_>, form: &LayerBlob, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
    let Sources { store, client } = sources;
    let blob = &form.descriptor;
    if let Some(file) = store.open_blob(&blob.digest)? {
        return Ok(Box::new(file));
    }
    let missing = || Error::NotFound { what: "blob in the store", name: blob.digest.to_string() };
    crate::blob::fetch(Some(client), form.repository.as_ref().ok_or_else(missing)?, blob, cancel)
}

/// A compressed form of the layer: the one that the manifest names if there is one, else any, else a new one.
pub(crate) fn pushable(
    store: &Store,
    layer: &Layer,
    wanted: &BTreeSet<Digest>,
    cancel: &Cancel,
) -> Result<LayerBlob> {
    let mut blobs = layer.blobs()?;
    blobs.sort_by_key(|b| !wanted.contains(&b.descriptor.digest));
    for blob in blobs {
        if blob.repository.is_some() || store.open_blob(&blob.descriptor.digest)?.is_some() {
            return Ok(blob);
        }
    }
    compress(store, layer, cancel)
}

/// The layer's blob in the store, made if there is none.
pub(crate) fn compress(store: &Store, layer: &Layer, cancel: &Cancel) -> Result<LayerBlob> {
    let _lock = store.lock("compress", &layer.id().number().to_string(), cancel)?;
    if let Some(done) = layer.blobs()?.into_iter().find(|b| b.present) {
        return Ok(done);
    }
    let blob = store.new_blob(Algorithm::Sha256)?;
    let mut gzip = GzipWriter::new(blob, LEVEL);
    layer.write_tar(&mut gzip, cancel)?;
    let blob = gzip.finish().map_err(Error::io("compressing layer", layer.diff_id().to_string()))?;
    let (digest, size) = blob.commit(None)?;
    let descriptor = Descriptor::new(OCI_LAYER_GZIP, digest, size);
    let form = LayerBlob { descriptor, present: true, repository: None };
    layer.add_blob(&form)?;
    Ok(form)
}

/// The blob's file, if the store has it.
pub(crate) fn present_blob(store: &Store, layer: &Layer) -> Result<Option<(LayerBlob, File)>> {
    for blob in layer.blobs()? {
        if let Some(file) = store.open_blob(&blob.descriptor.digest)? {
            return Ok(Some((blob, file)));
        }
    }
    Ok(None)
}
