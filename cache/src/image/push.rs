//! Pushing: an image's blobs and manifest to a repository. Layers of our own are compressed here, once; what was
//! compressed is remembered, so that the next push finds the same bytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;

use super::assemble::{described, index_bytes, manifest_in};
use super::form::{Wish, form};
use super::resolve::Sources;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::compress::Packing;
use crate::oci::descriptor::{DOCKER_MANIFEST, MediaType, OCI_CONFIG, OCI_INDEX};
use crate::oci::{Descriptor, Document, Index, Reference};
use crate::parallel::each;
use crate::record::{ImageRecord, IndexRecord, Member, Stored};
use crate::registry::Sent;
use crate::snapshot::{Layer, LayerBlob};

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
    /// The index names this about an image (attestations), and neither the store nor the registry has it: what is pushed
    /// does not name it, and so has another digest.
    LeftOut {
        manifest: Digest,
    },
    /// The registry has it, but the store does not know by which digest.
    NotKept {
        reason: String,
    },
}

/// Of how many entries that are about images a registry is asked whether it has them.
const MAX_ABOUT: usize = 1000;

/// Where an image goes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    pub reference: &'a Reference,
    /// In which form layers go; if nothing is said, in the one that the manifest names, or else the default.
    pub wish: Option<Wish>,
    /// Under its digest alone; the tag stays what it is.
    pub by_digest: bool,
}

impl<'a> Destination<'a> {
    pub fn of(reference: &'a Reference) -> Destination<'a> {
        Destination { reference, wish: None, by_digest: false }
    }

    /// What a document with this digest goes by. Under a tag registries know it by SHA-256.
    fn named(self, digest: Digest) -> Reference {
        if self.by_digest { self.reference.by_digest(digest) } else { self.reference.clone() }
    }
}

/// Pushes an image, or an index with all of its images; what came from a registry unchanged keeps its manifest. If the name is
/// that of the image here as well, its digest there is kept with it, if the store can be written.
///
/// # Errors
/// When a layer can't be had or compressed, an image of the index is not here, or the registry refuses something.
pub fn push(
    sources: Sources<'_>,
    stored: &Stored,
    to: Destination<'_>,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Descriptor> {
    let pushed = match stored {
        Stored::Image(image) => {
            let Ready { media_type, digest, manifest } = push_parts(sources, image, to, tell, cancel)?;
            put(sources, to, &media_type, digest, manifest, cancel)?
        }
        Stored::Index(index) => push_index(sources, index, to, tell, cancel)?,
    };
    if !to.by_digest
        && let Err(error) = sources.store.set_digest(to.reference, stored.manifest(), &pushed.digest)
    {
        tell(PushEvent::NotKept { reason: error.to_string() });
    }
    Ok(pushed)
}

/// A manifest whose blobs are in the registry.
struct Ready {
    media_type: String,
    digest: Digest,
    manifest: Vec<u8>,
}

fn put(
    sources: Sources<'_>,
    to: Destination<'_>,
    media_type: &str,
    digest: Digest,
    manifest: Vec<u8>,
    cancel: &Cancel,
) -> Result<Descriptor> {
    let size = manifest.len() as u64;
    let digest = sources.client.push_manifest(&to.named(digest), media_type, manifest, cancel)?;
    Ok(Descriptor::new(media_type, digest, size))
}

/// The images go by their digests, and the index that names them last. Where the layers of one get another form on their
/// way, the index names the manifest that has it.
fn push_index(
    sources: Sources<'_>,
    record: &IndexRecord,
    to: Destination<'_>,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Descriptor> {
    let absent: Vec<String> = record
        .absent()
        .map(|d| d.platform.as_ref().map_or(d.digest.to_string(), ToString::to_string))
        .collect();
    if !absent.is_empty() {
        let name = format!("{} for {}", to.reference.familiar(), absent.join(", "));
        return Err(Error::NotFound { what: "image of the index", name });
    }
    let mut known: HashMap<Digest, Descriptor> = HashMap::new();
    for Member { descriptor, image } in &record.members {
        let Ready { media_type, digest, manifest } = push_parts(sources, image, to, tell, cancel)?;
        let alone = Destination { by_digest: true, ..to };
        let pushed = put(sources, alone, &media_type, digest, manifest, cancel)?;
        known.insert(descriptor.digest, pushed);
    }
    for descriptor in about(record).take(MAX_ABOUT) {
        // It may be there already, as it is where the image came from.
        if sources.client.has_manifest(&to.reference.by_digest(descriptor.digest), cancel)? {
            known.insert(descriptor.digest, descriptor.clone());
        }
    }
    let is_known = |manifest: &&Descriptor| known.contains_key(&manifest.digest);
    for manifest in about(record).filter(|manifest| !is_known(manifest)) {
        tell(PushEvent::LeftOut { manifest: manifest.digest });
    }
    let as_pushed = |descriptor: &Descriptor| {
        let Descriptor { media_type, digest, size, .. } = known[&descriptor.digest].clone();
        Descriptor { media_type, digest, size, ..descriptor.clone() }
    };
    let manifests: Vec<_> = record.index.manifests.iter().filter(is_known).map(as_pushed).collect();
    let unchanged = manifests == record.index.manifests;
    let original = sources.store.document(&record.id)?.filter(|_| unchanged);
    let index = Index { manifests, ..record.index.clone() };
    let media_type = index.media_type.clone().unwrap_or_else(|| OCI_INDEX.to_owned());
    let (digest, bytes) = original.map_or_else(
        || {
            let bytes = index_bytes(&index);
            (Digest::of(&bytes), bytes)
        },
        |bytes| (record.id, bytes),
    );
    put(sources, to, &media_type, digest, bytes, cancel)
}

/// What the index names besides images, each once.
fn about(record: &IndexRecord) -> impl Iterator<Item = &Descriptor> {
    let mut seen: HashSet<Digest> = record.members.iter().map(|member| member.descriptor.digest).collect();
    record.index.manifests.iter().filter(move |manifest| seen.insert(manifest.digest))
}

/// Brings config and layers there.
fn push_parts(
    sources: Sources<'_>,
    image: &ImageRecord,
    to: Destination<'_>,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Ready> {
    let Sources { store, client } = sources;
    let missing =
        |digest: &Digest| Error::NotFound { what: "document of an image", name: digest.to_string() };
    let config = store.document(&image.id)?.ok_or_else(|| missing(&image.id))?;
    let original = store.document(&image.manifest)?.ok_or_else(|| missing(&image.manifest))?;
    store.set_remote(std::sync::Arc::new(client.clone()));
    let config_blob = Descriptor::new(OCI_CONFIG, image.id, config.len() as u64);
    let push_config = |stop: &Cancel| {
        let mut open = || Ok(Box::new(std::io::Cursor::new(config.clone())) as Box<dyn Read + Send>);
        client.push_blob(to.reference, &config_blob, None, &mut open, stop).map(drop)
    };
    let forms = push_layers(sources, image, &original, &push_config, to, tell, cancel)?;
    let media_type = described(&original)?.media_type;
    let (media_type, digest, manifest) = if same_layers(&original, &forms)? {
        (media_type, image.manifest, original)
    } else {
        let layers: Vec<_> = forms.iter().map(|form| form.descriptor.clone()).collect();
        let (media_type, manifest) = manifest_in(&original, &layers, media_type == DOCKER_MANIFEST)?;
        (media_type, Digest::of(&manifest), manifest)
    };
    let repository = Some(format!("{}/{}", to.reference.registry(), to.reference.repository()));
    for (layer, form) in image.layers.iter().zip(forms) {
        layer.add_blob(&LayerBlob { repository: repository.clone(), present: false, ..form })?;
    }
    Ok(Ready { media_type, digest, manifest })
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

/// Brings config and layers there; gives the form in which each one is there now.
fn push_layers(
    sources: Sources<'_>,
    image: &ImageRecord,
    manifest: &[u8],
    push_config: &(dyn Fn(&Cancel) -> Result<()> + Sync),
    to: Destination<'_>,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<Vec<LayerBlob>> {
    let named = layers_of(manifest)?;
    let all: BTreeSet<Digest> = named.iter().map(|d| d.digest).collect();
    let kinds = named.iter().map(|d| Some(d.kind())).chain(std::iter::repeat(None));
    let layers = image.layers.iter().zip(kinds).map(|(layer, kind)| (layer, Wanted { all: &all, kind }));
    // Nothing stands for the config, which costs as many answers as a layer. The newest come first: the registry is likely to
    // have the others, which is soon found out.
    let mut parts: Vec<_> = layers.map(Some).chain([None]).collect();
    parts.reverse();
    let forms = each(&parts, cancel, |part, stop| match part {
        Some((layer, wanted)) => push_layer(sources, layer, *wanted, to, tell, stop).map(Some),
        None => push_config(stop).map(|()| None),
    })?;
    Ok(forms.into_iter().rev().flatten().collect())
}

/// What a manifest says of a layer.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// The blobs that it names.
    all: &'a BTreeSet<Digest>,
    /// What this layer's is.
    kind: Option<MediaType>,
}

fn push_layer(
    sources: Sources<'_>,
    layer: &Layer,
    wanted: Wanted<'_>,
    to: Destination<'_>,
    tell: &(dyn Fn(PushEvent) + Sync),
    cancel: &Cancel,
) -> Result<LayerBlob> {
    let client = sources.client;
    let diff_id = layer.diff_id().0;
    tell(PushEvent::Preparing { layer: diff_id });
    let form = pushable(layer, wanted, to.wish, cancel)?;
    let mut bytes = || open(sources, &form, cancel);
    let sent =
        client.push_blob(to.reference, &form.descriptor, form.repository.as_deref(), &mut bytes, cancel)?;
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

/// The form of the layer that the manifest names if it is one to be sent, else the one that is asked for. What was lost of
/// the former is made anew, in the same compression.
fn pushable(layer: &Layer, wanted: Wanted<'_>, wish: Option<Wish>, cancel: &Cancel) -> Result<LayerBlob> {
    if let Some(wish) = wish {
        return form(layer, wish, cancel);
    }
    // That the store names the tar of a layer of its own only means that nothing was compressed yet.
    let named = |blob: &LayerBlob| {
        let digest = blob.descriptor.digest;
        wanted.all.contains(&digest) && (layer.is_foreign() || digest != layer.diff_id().0)
    };
    match layer.blobs()?.into_iter().find(|blob| named(blob) && blob.is_available()) {
        Some(blob) => Ok(blob),
        None if wanted.kind == Some(MediaType::LayerZstd) => {
            form(layer, Wish { packing: Packing::ZSTD, force: false }, cancel)
        }
        None => form(layer, Wish::default(), cancel),
    }
}
