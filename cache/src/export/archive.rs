//! The archive of `save`: an OCI layout and docker's own format in one, as docker writes it since version 25. The same
//! images give the same bytes. Layers of our own are written from their directories, uncompressed, and checked against
//! their diff ids; others go out as the blobs they came as.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use serde::Serialize;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::assemble::{as_oci, manifest_bytes, plain_form};
use crate::image::push::{expect_diff_id, present_blob};
use crate::layer::diff::write_tar;
use crate::layer::sink::Metadata;
use crate::layer::tar::{EntryKind, Writer};
use crate::oci::descriptor::OCI_MANIFEST;
use crate::oci::{Descriptor, Document, Index, Reference};
use crate::record::ImageRecord;
use crate::snapshot::Layer;
use crate::store::Store;

/// An image to be saved, with the names it gets in the archive; without names it is known by its id alone.
#[derive(Clone, Debug)]
pub struct Saved {
    pub image: ImageRecord,
    pub names: Vec<Reference>,
}

/// What a file in `blobs/` holds.
#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// A blob file of the store.
    Blob,
    /// The tar of a layer's directory.
    Layer(Layer),
}

#[derive(Debug, Default)]
struct Plan {
    blobs: BTreeMap<Digest, (u64, Content)>,
    index: Vec<Descriptor>,
    manifest: Vec<DockerEntry>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// An entry of docker's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes one archive with all `images`. Layers that are absent are fetched.
///
/// # Errors
/// When a layer can't be had or is not what its digest says, or `out` fails; what was written is then no archive.
pub fn save(store: &Store, images: &[Saved], out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    let mut plan = Plan::default();
    for saved in images {
        plan.add(store, saved, cancel)?;
    }
    // Layers come in small pieces.
    let mut out = BufWriter::with_capacity(256 << 10, out);
    let mut tar = Writer::new(&mut out as &mut dyn Write);
    plan.write(store, &mut tar, cancel)?;
    let out = tar.finish().map_err(writing)?;
    out.flush().map_err(writing)
}

impl Plan {
    fn add(&mut self, store: &Store, saved: &Saved, cancel: &Cancel) -> Result<()> {
        let image = &saved.image;
        let document = |digest: &Digest| {
            let missing = || Error::NotFound { what: "document of an image", name: digest.to_string() };
            store.document(digest)?.ok_or_else(missing)
        };
        let (config, original) = (document(&image.id)?, document(&image.manifest)?);
        let mut layers = Vec::new();
        for layer in &image.layers {
            let (descriptor, content) = form(store, layer, cancel)?;
            self.blobs.insert(descriptor.digest, (descriptor.size, content));
            layers.push(descriptor);
        }
        let paths = layers.iter().map(|l| blob_path(&l.digest)).collect();
        let top = layers.last().map(|l| l.digest.hex());
        let manifest = if is_oci_with(&original, &layers) {
            original
        } else {
            manifest_bytes(&image.id, config.len() as u64, layers)
        };
        self.name(saved, Descriptor::new(OCI_MANIFEST, Digest::of(&manifest), manifest.len() as u64), top);
        let repo_tags = saved.names.iter().map(|n| n.without_digest().familiar()).collect::<Vec<_>>();
        let repo_tags = Some(repo_tags).filter(|tags| !tags.is_empty());
        self.manifest.push(DockerEntry { config: blob_path(&image.id), repo_tags, layers: paths });
        for bytes in [config, manifest] {
            self.blobs.insert(Digest::of(&bytes), (bytes.len() as u64, Content::Bytes(bytes)));
        }
        Ok(())
    }

    /// Enters an image's manifest in the index, once for each name.
    fn name(&mut self, saved: &Saved, manifest: Descriptor, top: Option<String>) {
        if saved.names.is_empty() {
            self.index.push(manifest.clone());
        }
        for name in saved.names.iter().map(Reference::without_digest) {
            let tag = name.tag().unwrap_or("latest").to_owned();
            let mut entry = manifest.clone();
            entry.annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.clone());
            self.index.push(entry);
            let tags = self.repositories.entry(name.familiar_name()).or_default();
            tags.insert(tag, top.clone().unwrap_or_default());
        }
    }

    fn write(self, store: &Store, tar: &mut Writer<&mut dyn Write>, cancel: &Cancel) -> Result<()> {
        let algorithms =
            self.blobs.keys().map(|d| d.algorithm().name()).collect::<std::collections::BTreeSet<_>>();
        directory(tar, "blobs")?;
        for algorithm in algorithms {
            directory(tar, &format!("blobs/{algorithm}"))?;
        }
        for (digest, (size, content)) in &self.blobs {
            cancel.check()?;
            entry(tar, &blob_path(digest), *size)?;
            match content {
                Content::Bytes(bytes) => tar.content(bytes).map_err(writing)?,
                Content::Blob => copy_blob(store, digest, tar, cancel)?,
                Content::Layer(layer) => {
                    let dir = layer.dir(cancel)?;
                    let summary = write_tar(dir.as_fd(), &mut Body(tar), cancel)?;
                    expect_diff_id(layer, &summary.diff_id.0)?;
                }
            }
        }
        document(tar, "index.json", &Index::oci(self.index))?;
        document(tar, "manifest.json", &self.manifest)?;
        document(tar, "oci-layout", &serde_json::json!({"imageLayoutVersion": "1.0.0"}))?;
        document(tar, "repositories", &self.repositories)
    }
}

/// How a layer goes into the archive.
fn form(store: &Store, layer: &Layer, cancel: &Cancel) -> Result<(Descriptor, Content)> {
    if layer.is_foreign() {
        if layer.unpacked()?.is_none() {
            // Fetching keeps the blob as it comes.
            layer.dir(cancel)?;
        }
        if let Some((blob, _)) = present_blob(store, layer)? {
            return Ok((as_oci(&blob.descriptor), Content::Blob));
        }
    }
    Ok((plain_form(layer)?.descriptor, Content::Layer(layer.clone())))
}

/// Whether `manifest` is an OCI manifest with just these layers, and so can be saved as it is.
fn is_oci_with(manifest: &[u8], layers: &[Descriptor]) -> bool {
    let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { return false };
    manifest.media_type.as_deref() == Some(OCI_MANIFEST)
        && manifest.layers.iter().map(|l| l.digest).eq(layers.iter().map(|l| l.digest))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn copy_blob(
    store: &Store,
    digest: &Digest,
    tar: &mut Writer<&mut dyn Write>,
    cancel: &Cancel,
) -> Result<()> {
    let missing = || Error::NotFound { what: "blob in the store", name: digest.to_string() };
    let mut file = store.open_blob(digest)?.ok_or_else(missing)?;
    let mut hasher = digest.algorithm().hasher();
    let mut chunk = vec![0; 256 << 10];
    loop {
        cancel.check()?;
        let n = file.read(&mut chunk).map_err(Error::io("reading blob", digest.to_string()))?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        tar.content(&chunk[..n]).map_err(writing)?;
    }
    let actual = hasher.finish();
    if actual == *digest {
        return Ok(());
    }
    let what = "blob in the store".to_owned();
    Err(Error::Mismatch { what, expected: digest.to_string(), actual: actual.to_string() })
}

/// The content of the current entry as a writer.
struct Body<'a, 'b>(&'a mut Writer<&'b mut dyn Write>);

impl Write for Body<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.content(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn directory(tar: &mut Writer<&mut dyn Write>, path: &str) -> Result<()> {
    let meta = Metadata { mode: 0o755, ..Metadata::default() };
    tar.entry(Path::new(path), &meta, &EntryKind::Dir).map_err(writing)
}

fn entry(tar: &mut Writer<&mut dyn Write>, path: &str, size: u64) -> Result<()> {
    let meta = Metadata { mode: 0o644, ..Metadata::default() };
    tar.entry(Path::new(path), &meta, &EntryKind::File { size }).map_err(writing)
}

fn document(tar: &mut Writer<&mut dyn Write>, path: &str, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).expect("maps with string keys always serialise");
    entry(tar, path, bytes.len() as u64)?;
    tar.content(&bytes).map_err(writing)
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing", "the image archive")(error)
}
