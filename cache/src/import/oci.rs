//! OCI layouts, in a directory or an archive (OCI image-spec, "Image Layout"): from `index.json` to images.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::Wanted;
use super::adopt::{Incoming, Part};
use super::archive::{Archive, read_document, spool};
use crate::blob::layout::{Layout, REF_NAME};
use crate::blob::local::SealedBlob;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::resolve::{check_config, choose, no_platform};
use crate::oci::descriptor::MediaType;
use crate::oci::manifest::{MAX_DOCUMENT, MAX_INDEX_DEPTH};
use crate::oci::{Descriptor, Document, Index, Manifest, Platform, Reference};
use crate::store::Store;

/// The whole name, as containerd and docker write it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// An archive of images has one for each name and platform.
const MAX_IMAGES: usize = 1000;

/// Where blobs come from: an archive that was read, or a directory.
pub(super) trait Blobs {
    /// The blob with this digest, verified; none if it is not there.
    fn blob(&self, digest: &Digest) -> Result<Option<Arc<SealedBlob>>>;

    /// Counts bytes of documents that are about to be read; an error when they are more than are worth it.
    fn spend(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}

impl Blobs for Archive {
    fn blob(&self, digest: &Digest) -> Result<Option<Arc<SealedBlob>>> {
        Archive::blob(self, digest)
    }

    fn spend(&self, bytes: u64) -> Result<()> {
        Archive::spend(self, bytes)
    }
}

#[derive(Debug)]
pub(super) struct LayoutSource<'a> {
    pub(super) store: &'a Store,
    pub(super) layout: &'a Layout,
    pub(super) cancel: &'a Cancel,
}

impl Blobs for LayoutSource<'_> {
    fn blob(&self, digest: &Digest) -> Result<Option<Arc<SealedBlob>>> {
        let Some(mut file) = self.layout.open_blob(digest)? else { return Ok(None) };
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let blob = spool(self.store, Path::new(&name), &mut file, self.cancel)?;
        if blob.digest() == *digest {
            return Ok(Some(Arc::new(blob)));
        }
        Err(Error::Mismatch {
            what: format!("{name} in {}", self.layout.name()),
            expected: digest.to_string(),
            actual: blob.digest().to_string(),
        })
    }
}

/// Whether an archive's `index.json` names indexes.
pub(super) fn has_indexes(index: &[u8]) -> bool {
    parse_index(index).is_ok_and(|index| index.manifests.iter().any(|d| d.kind() == MediaType::Index))
}

/// All images of an archive, each once with all of its names.
pub(super) fn images(archive: &Archive, index: &[u8], platform: Option<&Platform>) -> Result<Vec<Incoming>> {
    let bytes = index;
    let index = parse_index(bytes)?;
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| d.is_for_a_platform()).collect();
    if images.is_empty() {
        return Err(Error::malformed("image archive", "its index.json names no image"));
    }
    // Entries that only platforms tell apart are one image.
    if images.len() > 1 && images.iter().all(|d| name_of(d).is_none() && d.platform.is_some()) {
        return Ok(vec![image(archive, (Digest::of(bytes), bytes.to_vec()), &index, platform)?]);
    }
    let mut found: Vec<(Digest, Incoming)> = Vec::new();
    let mut parts = 0;
    for descriptor in images {
        // Several names of one image.
        if let Some((_, known)) = found.iter_mut().find(|(digest, _)| *digest == descriptor.digest) {
            known.names.extend(name_of(descriptor).filter(|name| !known.names.contains(name)));
            continue;
        }
        let image = match (descriptor.kind(), platform) {
            (MediaType::Index, None) => match read(archive, descriptor)? {
                (bytes, Document::Index(inner)) => {
                    image(archive, (descriptor.digest, bytes), &inner, platform)?
                }
                (_, Document::Manifest(_)) => alone(part(archive, descriptor, &Platform::host())?),
            },
            _ => alone(part(archive, descriptor, platform.unwrap_or(&Platform::host()))?),
        };
        parts += image.parts.len();
        check_number(parts)?;
        found.push((
            descriptor.digest,
            Incoming { names: name_of(descriptor).into_iter().collect(), ..image },
        ));
    }
    Ok(found.into_iter().map(|(_, image)| image).collect())
}

/// Documents that name each other could have us read the same ones without end.
pub(super) fn check_number(images: usize) -> Result<()> {
    if images <= MAX_IMAGES {
        return Ok(());
    }
    Err(Error::malformed("image archive", format!("more than {MAX_IMAGES} images")))
}

/// An index with what is there of it. What has but one image is no more than that image.
fn image(
    archive: &Archive,
    own: (Digest, Vec<u8>),
    index: &Index,
    platform: Option<&Platform>,
) -> Result<Incoming> {
    let images = index.manifests.iter().filter(|d| d.is_for_a_platform() && d.kind() == MediaType::Manifest);
    let mut found: Vec<&Descriptor> = Vec::new();
    for descriptor in images {
        if !found.iter().any(|known| known.digest == descriptor.digest) && is_here(archive, descriptor) {
            found.push(descriptor);
            check_number(found.len())?;
        }
    }
    match (platform, &found[..]) {
        (None, [_, _, ..]) => {
            let parts = found.iter().map(|d| part(archive, d, &Platform::host())).collect::<Result<_>>()?;
            Ok(Incoming { index: Some(own), parts, names: Vec::new() })
        }
        (None, [only]) => Ok(alone(part(archive, only, &Platform::host())?)),
        _ => {
            let platform = platform.cloned().unwrap_or_else(Platform::host);
            let chosen =
                choose(index, &platform).ok_or_else(|| no_platform("image archive", &platform, index))?;
            Ok(alone(part(archive, chosen, &platform)?))
        }
    }
}

fn alone(part: Part) -> Incoming {
    Incoming { index: None, parts: vec![part], names: Vec::new() }
}

/// Whether the archive has the image's documents: tools may save an index with only some of its images.
fn is_here(archive: &Archive, descriptor: &Descriptor) -> bool {
    match read(archive, descriptor) {
        Ok((_, Document::Manifest(manifest))) => !matches!(archive.blob(&manifest.config.digest), Ok(None)),
        Ok((_, Document::Index(_))) => false,
        Err(_) => !matches!(archive.blob(&descriptor.digest), Ok(None)),
    }
}

/// One image of a layout, and the digest that its index names.
pub(super) fn part_of_layout(
    source: &LayoutSource<'_>,
    wanted: Wanted<'_>,
    platform: &Platform,
) -> Result<(Part, Digest)> {
    let index = parse_index(&source.layout.index()?)?;
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| d.is_for_a_platform()).collect();
    let tagged =
        |tag: &str| images.iter().copied().find(|d| d.annotations.get(REF_NAME).is_some_and(|t| t == tag));
    let (found, asked) = match wanted {
        Wanted::Tag(tag) => (tagged(tag), tag.to_owned()),
        Wanted::Digest(digest) => (images.iter().copied().find(|d| d.digest == *digest), digest.to_string()),
        Wanted::Default if images.len() == 1 => (images.first().copied(), String::new()),
        Wanted::Default => (tagged("latest").or_else(|| choose(&index, platform)), "latest".to_owned()),
    };
    let name = || format!("{} {asked}", source.layout.name());
    let found = found.ok_or_else(|| Error::NotFound { what: "image in the layout", name: name() })?;
    Ok((part(source, found, platform)?, found.digest))
}

/// A manifest that an archive's index names.
pub(super) struct Original {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    /// What the index calls it.
    names: Vec<Reference>,
}

/// Those of several manifests with one config that has one of these names; or else any.
pub(super) fn original<'a>(of_config: &'a [Original], names: &[Reference]) -> Option<&'a Original> {
    let named = |original: &&Original| original.names.iter().any(|name| names.contains(name));
    of_config.iter().find(named).or(of_config.last())
}

/// The manifests that an index names, by the digests of their configs; what can't be read is left out, because the archive has
/// said already by other means what its images are.
pub(super) fn manifests_by_config(archive: &Archive, index: &[u8]) -> HashMap<Digest, Vec<Original>> {
    let mut found = HashMap::<Digest, Vec<Original>>::new();
    let mut seen = HashMap::<Digest, Option<Digest>>::new();
    let mut open = parse_index(index).map(|i| i.manifests).unwrap_or_default();
    for _ in 0..MAX_INDEX_DEPTH {
        for descriptor in std::mem::take(&mut open) {
            let (digest, name) = (descriptor.digest, name_of(&descriptor));
            // Indexes may name one document a thousand times, and those that do each other.
            if let Some(config) = seen.get(&digest) {
                let of_config = config.and_then(|config| found.get_mut(&config)).into_iter().flatten();
                of_config
                    .filter(|known| known.digest == digest)
                    .for_each(|known| known.names.extend(name.clone()));
                continue;
            }
            let config = match read(archive, &descriptor) {
                Ok((bytes, Document::Manifest(manifest))) => {
                    let names = name.into_iter().collect();
                    let config = manifest.config.digest;
                    found.entry(config).or_default().push(Original { digest, bytes, names });
                    Some(config)
                }
                Ok((_, Document::Index(index))) => {
                    open.extend(index.manifests);
                    None
                }
                Err(_) => None,
            };
            seen.insert(digest, config);
        }
    }
    found
}

fn parse_index(bytes: &[u8]) -> Result<Index> {
    match Document::parse(bytes, None)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(Error::malformed("index.json", "it is a manifest and no index")),
    }
}

/// The name that an entry of `index.json` gives; a tag without a repository is none, nor is a digest that is another one's.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let whole = descriptor.annotations.get(IMAGE_NAME).and_then(|n| n.parse().ok());
    let name: Reference = whole.or_else(|| {
        let name = descriptor.annotations.get(REF_NAME)?;
        name.contains([':', '/']).then(|| name.parse().ok()).flatten()
    })?;
    match name.digest() {
        Some(digest) if *digest != descriptor.digest => None,
        Some(_) if name.tag().is_some() => Some(name.without_digest()),
        _ => Some(name),
    }
}

fn part(source: &dyn Blobs, descriptor: &Descriptor, platform: &Platform) -> Result<Part> {
    let (digest, bytes, manifest) = manifest_for(source, descriptor, platform)?;
    check_config("image archive", &manifest.config)?;
    let config = blob(source, &manifest.config)?;
    let layers = manifest.layers.iter().map(|layer| {
        if !layer.kind().is_layer() {
            let reason = format!("a layer of unsupported media type {:?}", layer.media_type);
            return Err(Error::malformed("image archive", reason));
        }
        source.blob(&layer.digest)?.map(|found| check_size(layer, found)).transpose()
    });
    source.spend(config.size())?;
    Ok(Part {
        config: read_document(&config, "the image config", manifest.config.size)?,
        id: manifest.config.digest,
        layers: layers.collect::<Result<_>>()?,
        manifest: Some((digest, bytes)),
    })
}

fn manifest_for(
    source: &dyn Blobs,
    top: &Descriptor,
    platform: &Platform,
) -> Result<(Digest, Vec<u8>, Manifest)> {
    let mut descriptor = top.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        match read(source, &descriptor)? {
            (bytes, Document::Manifest(manifest)) => return Ok((descriptor.digest, bytes, manifest)),
            (_, Document::Index(index)) => {
                let chosen = choose(&index, platform).cloned();
                descriptor = chosen.ok_or_else(|| no_platform(&top.digest.to_string(), platform, &index))?;
            }
        }
    }
    Err(Error::malformed("image archive", "indexes within indexes within indexes"))
}

fn read(source: &dyn Blobs, descriptor: &Descriptor) -> Result<(Vec<u8>, Document)> {
    let found = blob(source, descriptor)?;
    source.spend(found.size())?;
    let bytes = read_document(&found, "a manifest", MAX_DOCUMENT)?;
    let document = Document::parse(&bytes, Some(&descriptor.media_type))?;
    Ok((bytes, document))
}

fn blob(source: &dyn Blobs, descriptor: &Descriptor) -> Result<Arc<SealedBlob>> {
    let found = source.blob(&descriptor.digest)?;
    let missing = || Error::malformed("image archive", format!("blob {} is missing", descriptor.digest));
    check_size(descriptor, found.ok_or_else(missing)?)
}

fn check_size(descriptor: &Descriptor, blob: Arc<SealedBlob>) -> Result<Arc<SealedBlob>> {
    if blob.size() == descriptor.size {
        return Ok(blob);
    }
    Err(Error::Mismatch {
        what: format!("size of blob {}", descriptor.digest),
        expected: format!("{} bytes", descriptor.size),
        actual: format!("{} bytes", blob.size()),
    })
}
