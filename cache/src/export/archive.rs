//! Archives of images: an OCI layout, with docker's own format in it as docker writes it since version 25, or (`-o
//! type=oci`) without. The same images give the same bytes. Layers of our own are compressed, or written from their
//! directories, uncompressed, and checked against their diff ids; others go out as the blobs they came as.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::Serialize;

use crate::blob::layout::{LayoutWriter, REF_NAME};
use crate::cancel::Cancel;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::image::assemble::{
    Documents, as_oci, described, index_bytes, index_over, manifest_in, plain_form,
};
use crate::image::form::{Wish, form, pack};
use crate::image::{Annotations, Product};
use crate::layer::compress::Packing;
use crate::layer::sink::Metadata;
use crate::layer::tar::{EntryKind, Writer};
use crate::oci::descriptor::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Descriptor, Document, Index, Platform, Reference};
use crate::parallel::each;
use crate::record::Stored;
use crate::snapshot::Layer;
use crate::store::Store;

/// An image or index to be saved, with the names it gets in the archive; without names it is known by its id alone.
#[derive(Clone, Debug)]
pub struct Saved {
    pub stored: Stored,
    pub names: Vec<Reference>,
}

/// How an archive is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// With the documents of docker's own format.
    pub docker: bool,
    pub wish: Wish,
    /// With docker's media types, where they can say all.
    pub docker_types: bool,
    /// Of what was built.
    pub annotations: Annotations,
}

/// Where what was built is written.
#[expect(missing_debug_implementations, reason = "a writer has none")]
pub enum Place<'a> {
    Archive(&'a mut dyn Write),
    /// A layout directory. What it has besides stays, but for what had the same tags.
    Layout(&'a Path),
}

/// What a file in `blobs/` holds.
#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// A blob file of the store.
    Blob,
    /// One that was written just now, and hashed then.
    NewBlob,
    /// The tar of a layer's directory.
    Layer(Layer),
}

#[derive(Debug)]
struct Plan {
    format: Format,
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
    let wish = Wish { packing: Packing::Plain, force: false };
    let annotations = Annotations::default();
    let mut plan = Plan::new(Format { docker: true, wish, docker_types: false, annotations });
    for Saved { stored, names } in images {
        let manifest = plan.add_stored(store, stored, names, cancel)?;
        plan.name(names, &manifest);
    }
    plan.finish(store, out, cancel)
}

/// Writes an archive or layout with what was built, which need not be in the store. Gives its manifest or index as it is there.
///
/// # Errors
/// As [`save`].
pub fn save_built(
    store: &Store,
    products: &[Product],
    names: &[Reference],
    format: Format,
    place: Place<'_>,
    cancel: &Cancel,
) -> Result<Descriptor> {
    let annotations = format.annotations.clone();
    let mut plan = Plan::new(format);
    let main = main_of(products);
    let mut manifests = Vec::new();
    for (at, product) in products.iter().enumerate() {
        let layers = product.files.layers();
        let documents = Documents::of(product.config.clone(), layers)?;
        let documents = documents.annotated(&annotations, &product.platform)?;
        let names = (at == main).then_some(names);
        let manifest = plan.add(documents, layers, names, cancel)?;
        manifests.push(annotations.entry(manifest, &product.platform));
    }
    let top = match &manifests[..] {
        [only] => Descriptor { platform: None, ..only.clone() },
        _ => plan.add_index(&index_over(manifests, &annotations)),
    };
    let top = Descriptor { annotations: annotations.of_the_top(products), ..top };
    plan.name(names, &top);
    match place {
        Place::Archive(out) => plan.finish(store, out, cancel)?,
        Place::Layout(dir) => plan.lay_out(store, dir, cancel)?,
    }
    Ok(top)
}

/// The one that those read who know nothing of platforms: that of this machine, or else the first.
fn main_of(products: &[Product]) -> usize {
    products.iter().position(|product| product.platform.satisfies(&Platform::host())).unwrap_or(0)
}

impl Plan {
    fn new(format: Format) -> Plan {
        Plan {
            format,
            blobs: BTreeMap::new(),
            index: Vec::new(),
            manifest: Vec::new(),
            repositories: BTreeMap::new(),
        }
    }

    fn finish(self, store: &Store, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
        // Layers come in small pieces.
        let mut out = BufWriter::with_capacity(256 << 10, out);
        let mut tar = Writer::new(&mut out as &mut dyn Write);
        self.write(store, &mut tar, cancel)?;
        let out = tar.finish().map_err(writing)?;
        out.flush().map_err(writing)
    }

    /// The index names blobs that are there; what has no name is its `latest`.
    fn lay_out(self, store: &Store, dir: &Path, cancel: &Cancel) -> Result<()> {
        let layout = LayoutWriter::open(dir)?;
        for (digest, (size, content)) in &self.blobs {
            if let Content::Layer(layer) = content {
                pack(layer, Packing::Plain, cancel)?;
            }
            let missing = || Error::NotFound { what: "blob in the store", name: digest.to_string() };
            let mut open = || -> Result<Box<dyn Read + Send>> {
                match content {
                    Content::Bytes(bytes) => Ok(Box::new(std::io::Cursor::new(bytes.clone()))),
                    _ => Ok(Box::new(store.open_blob(digest)?.ok_or_else(missing)?)),
                }
            };
            layout.put(&Descriptor::new("", *digest, *size), &mut open, cancel)?;
        }
        for mut entry in self.index {
            let tag = entry.annotations.entry(REF_NAME.to_owned()).or_insert_with(|| "latest".to_owned());
            let tag = tag.clone();
            layout.name(entry, &tag, cancel)?;
        }
        Ok(())
    }

    /// Of an index, all that is here.
    fn add_stored(
        &mut self,
        store: &Store,
        stored: &Stored,
        names: &[Reference],
        cancel: &Cancel,
    ) -> Result<Descriptor> {
        let document = |digest: &Digest| {
            let missing = || Error::NotFound { what: "document of an image", name: digest.to_string() };
            store.document(digest)?.ok_or_else(missing)
        };
        let main = stored.main().map(|image| image.id);
        let mut manifests = Vec::new();
        for image in stored.images() {
            let (config, manifest) = (document(&image.id)?, document(&image.manifest)?);
            let documents = Documents { id: image.id, config, digest: image.manifest, manifest };
            let names = (main == Some(image.id)).then_some(names);
            manifests.push(self.add(documents, &image.layers, names, cancel)?);
        }
        let Stored::Index(record) = stored else { return Ok(manifests.remove(0)) };
        let unchanged =
            record.members.iter().map(|m| m.descriptor.digest).eq(manifests.iter().map(|m| m.digest));
        if unchanged {
            let bytes = document(&record.id)?;
            let media_type = record.index.media_type.clone().unwrap_or_else(|| OCI_INDEX.to_owned());
            return Ok(self.add_document(&media_type, record.id, bytes));
        }
        let renamed = record.members.iter().zip(manifests);
        let manifests = renamed.map(|(member, new)| Descriptor {
            media_type: new.media_type,
            digest: new.digest,
            size: new.size,
            ..member.descriptor.clone()
        });
        Ok(self.add_index(&Index { manifests: manifests.collect(), ..record.index.clone() }))
    }

    fn add_index(&mut self, index: &Index) -> Descriptor {
        let media_type = index.media_type.clone().unwrap_or_else(|| OCI_INDEX.to_owned());
        let bytes = index_bytes(index);
        self.add_document(&media_type, Digest::of(&bytes), bytes)
    }

    /// Under the digest by which it is known, which need not be one of SHA-256.
    fn add_document(&mut self, media_type: &str, digest: Digest, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        self.blobs.insert(descriptor.digest, (descriptor.size, Content::Bytes(bytes)));
        descriptor
    }

    /// Gives the descriptor of the manifest. With `names`, docker's own documents tell of it.
    fn add(
        &mut self,
        documents: Documents,
        image_layers: &[Layer],
        names: Option<&[Reference]>,
        cancel: &Cancel,
    ) -> Result<Descriptor> {
        let Documents { id, config, digest, manifest: original } = documents;
        let mut layers = Vec::new();
        // Several of them at once, as reading and hashing one can't keep many processors busy with compressing.
        for (descriptor, content) in
            each(image_layers, cancel, |layer, stop| archived(layer, self.format.wish, stop))?
        {
            self.blobs.insert(descriptor.digest, (descriptor.size, content));
            layers.push(descriptor);
        }
        let paths = layers.iter().map(|l| blob_path(&l.digest)).collect();
        let top = layers.last().map(|l| l.digest.hex());
        let (digest, manifest) = if !self.format.docker_types && is_oci_with(&original, &layers) {
            (digest, original)
        } else {
            let manifest = manifest_in(&original, &layers, self.format.docker_types)?.1;
            (Digest::of(&manifest), manifest)
        };
        if let Some(names) = names {
            let repo_tags = tags(names).map(Reference::familiar).collect::<Vec<_>>();
            let repo_tags = Some(repo_tags).filter(|tags| !tags.is_empty());
            self.manifest.push(DockerEntry { config: blob_path(&id), repo_tags, layers: paths });
            for name in tags(names) {
                let tag = name.tag().unwrap_or("latest").to_owned();
                let tags = self.repositories.entry(name.familiar_name()).or_default();
                tags.insert(tag, top.clone().unwrap_or_default());
            }
        }
        self.add_document(OCI_CONFIG, id, config);
        let Descriptor { media_type, .. } = described(&manifest)?;
        Ok(self.add_document(&media_type, digest, manifest))
    }

    /// Enters a manifest or index in the archive's own index, once for each name.
    fn name(&mut self, names: &[Reference], manifest: &Descriptor) {
        if tags(names).next().is_none() {
            self.index.push(manifest.clone());
        }
        for name in tags(names) {
            let tag = name.tag().unwrap_or("latest").to_owned();
            let mut entry = manifest.clone();
            entry.annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
            entry.annotations.insert(REF_NAME.to_owned(), tag);
            self.index.push(entry);
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
                Content::Blob => copy_blob(store, digest, Trust::No, tar, cancel)?,
                Content::NewBlob => copy_blob(store, digest, Trust::Yes, tar, cancel)?,
                Content::Layer(layer) => layer.write_tar(&mut Body(tar), cancel)?,
            }
        }
        document(tar, "index.json", &Index::oci(self.index))?;
        if self.format.docker {
            document(tar, "manifest.json", &self.manifest)?;
        }
        document(tar, "oci-layout", &serde_json::json!({"imageLayoutVersion": "1.0.0"}))?;
        if self.format.docker {
            document(tar, "repositories", &self.repositories)?;
        }
        Ok(())
    }
}

/// What the archive's readers may call the image. By a digest it was found; which tags have it was not asked.
fn tags(names: &[Reference]) -> impl Iterator<Item = &Reference> {
    names.iter().filter(|name| name.digest().is_none())
}

/// How a layer goes into the archive: as a blob that the store has then, or written from its directory.
fn archived(layer: &Layer, wish: Wish, cancel: &Cancel) -> Result<(Descriptor, Content)> {
    if !layer.is_foreign() && wish.packing == Packing::Plain {
        return Ok((plain_form(layer)?.descriptor, Content::Layer(layer.clone())));
    }
    if layer.is_foreign() && layer.unpacked()?.is_none() {
        // Fetching keeps the blob as it comes.
        layer.dir(cancel)?;
    }
    let made = |layer: &Layer| Ok::<_, Error>(layer.packed(wish.packing)?.map(|blob| blob.descriptor.digest));
    let before = made(layer)?;
    let mut blob = form(layer, wish, cancel)?;
    if !blob.present {
        blob = pack(layer, wish.packing, cancel)?;
    }
    let is_new = before.is_none() && made(layer)? == Some(blob.descriptor.digest);
    Ok((as_oci(&blob.descriptor), if is_new { Content::NewBlob } else { Content::Blob }))
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

/// Whether a blob file is known to be what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Yes,
    No,
}

fn copy_blob(
    store: &Store,
    digest: &Digest,
    trust: Trust,
    tar: &mut Writer<&mut dyn Write>,
    cancel: &Cancel,
) -> Result<()> {
    let missing = || Error::NotFound { what: "blob in the store", name: digest.to_string() };
    let mut file = store.open_blob(digest)?.ok_or_else(missing)?;
    let mut hasher = (trust == Trust::No).then(|| digest.algorithm().hasher());
    let mut chunk = vec![0; 256 << 10];
    loop {
        cancel.check()?;
        let n = file.read(&mut chunk).map_err(Error::io("reading blob", digest.to_string()))?;
        if n == 0 {
            break;
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk[..n]);
        }
        tar.content(&chunk[..n]).map_err(writing)?;
    }
    let Some(actual) = hasher.map(Hasher::finish).filter(|actual| actual != digest) else { return Ok(()) };
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
