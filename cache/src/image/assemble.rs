//! A config and layers become an image: the manifest is written, and the store remembers all of it. Also which form
//! of a layer a manifest names. Layers of our own stay uncompressed here; a push compresses them.

use super::annotation::{Annotations, Holder, annotate};
use super::form::{Wish, form};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::compress::Packing;
use crate::oci::config::MAX_CONFIG;
use crate::oci::descriptor::{
    DOCKER_CONFIG, DOCKER_INDEX, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, MediaType, OCI_CONFIG,
    OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST,
};
use crate::oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform, Reference};
use crate::record::{ImageRecord, IndexRecord, Member, NewImage, Stored};
use crate::snapshot::{Layer, LayerBlob, Snapshot};
use crate::store::Store;

/// The documents of an image.
#[derive(Clone, Debug)]
pub struct Documents {
    pub id: Digest,
    pub config: Vec<u8>,
    /// The manifest's.
    pub digest: Digest,
    pub manifest: Vec<u8>,
}

/// What was built for one platform.
#[derive(Clone, Debug)]
pub struct Product {
    pub platform: Platform,
    /// Its diff ids are those of the layers, whatever it says.
    pub config: ImageConfig,
    pub files: Snapshot,
}

impl Documents {
    /// Those of the image that `config` and `layers` (bottom first) make. The config's diff ids become those of the
    /// layers.
    ///
    /// # Errors
    /// When the store can't be read, or a layer's size is not known.
    pub fn of(mut config: ImageConfig, layers: &[Layer]) -> Result<Documents> {
        config.rootfs.diff_ids = layers.iter().map(Layer::diff_id).collect();
        let descriptors =
            layers.iter().map(|l| stored_form(l).map(|form| form.descriptor)).collect::<Result<_>>()?;
        let config = config.to_bytes();
        if config.len() as u64 > MAX_CONFIG {
            let reason =
                format!("{} bytes (labels, variables, history), and {MAX_CONFIG} is the most", config.len());
            return Err(Error::malformed("image config", reason));
        }
        let id = Digest::of(&config);
        let manifest = manifest_bytes(&id, config.len() as u64, descriptors);
        Ok(Documents { id, config, digest: Digest::of(&manifest), manifest })
    }

    /// With what is said of the image for this platform.
    ///
    /// # Errors
    /// When the manifest is none.
    pub(crate) fn annotated(self, annotations: &Annotations, platform: &Platform) -> Result<Documents> {
        let annotations = annotations.of(Holder::Manifest, Some(platform));
        if annotations.is_empty() {
            return Ok(self);
        }
        let Document::Manifest(mut manifest) = Document::parse(&self.manifest, None)? else {
            return Err(Error::malformed("manifest", "it is an index"));
        };
        annotate(&mut manifest.extra, annotations);
        let manifest = serde_json::to_vec(&manifest).expect("maps with string keys always serialise");
        Ok(Documents { digest: Digest::of(&manifest), manifest, ..self })
    }
}

/// How the documents of what was built are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// In which form a manifest names layers; if nothing is said, in one that needs no work now.
    pub wish: Option<Wish>,
    /// With docker's media types, where they can say all.
    pub docker_types: bool,
    pub annotations: Annotations,
}

impl Shape {
    fn documents(&self, product: &Product, cancel: &Cancel) -> Result<Documents> {
        let layers = product.files.layers();
        let documents = Documents::of(product.config.clone(), layers)?;
        if self.wish.is_none() && !self.docker_types {
            return documents.annotated(&self.annotations, &product.platform);
        }
        let descriptor = |layer: &Layer| match self.wish {
            // The tar of a directory is written when it is asked for.
            Some(wish) if layer.is_foreign() || wish.packing != Packing::Plain => form(layer, wish, cancel),
            _ => stored_form(layer),
        };
        let layers: Vec<_> =
            layers.iter().map(|layer| Ok(descriptor(layer)?.descriptor)).collect::<Result<_>>()?;
        let (_, manifest) = manifest_in(&documents.manifest, &layers, self.docker_types)?;
        let documents = Documents { digest: Digest::of(&manifest), manifest, ..documents };
        documents.annotated(&self.annotations, &product.platform)
    }
}

/// Records under `names` what was built: an image, or an index over those of several platforms.
///
/// # Errors
/// As [`Documents::of`], or when the store can't be written or a layer can't be had in the form that is wished for.
pub fn assemble(
    store: &Store,
    products: &[Product],
    names: &[Reference],
    shape: &Shape,
    cancel: &Cancel,
) -> Result<Stored> {
    let names: Vec<_> = names.iter().map(|name| (name.clone(), None)).collect();
    let made: Vec<Documents> =
        products.iter().map(|product| shape.documents(product, cancel)).collect::<Result<_>>()?;
    let new: Vec<NewImage<'_>> = made
        .iter()
        .zip(products)
        .map(|(Documents { id, config, digest, manifest }, product)| NewImage {
            config: (id, config),
            manifest: (digest, manifest),
            layers: product.files.layers(),
        })
        .collect();
    if let [NewImage { config, manifest, layers }] = new[..] {
        return store.put_image(config, manifest, layers, &names).map(Stored::Image);
    }
    let descriptors = made.iter().zip(products).map(|(documents, product)| {
        Ok(shape.annotations.entry(described(&documents.manifest)?, &product.platform))
    });
    let index = index_over(descriptors.collect::<Result<_>>()?, &shape.annotations);
    let bytes = index_bytes(&index);
    let id = Digest::of(&bytes);
    let created = store.put_index((&id, &bytes), &new, &[], &names)?;
    let members = made.iter().zip(products).zip(&index.manifests).map(|((made, product), descriptor)| {
        let (config, layers) = (ImageConfig::parse(&made.config)?, product.files.layers().to_vec());
        let image = ImageRecord { id: made.id, manifest: made.digest, config, layers, created };
        Ok(Member { descriptor: descriptor.clone(), image })
    });
    let members = members.collect::<Result<_>>()?;
    Ok(Stored::Index(IndexRecord { id, index, members, created }))
}

/// The index over these manifests, of docker's family of types if they are.
pub(crate) fn index_over(manifests: Vec<Descriptor>, annotations: &Annotations) -> Index {
    let docker = manifests.iter().all(|manifest| manifest.media_type == DOCKER_MANIFEST);
    let mut index = Index::oci(manifests);
    annotate(&mut index.extra, annotations.of(Holder::Index, None));
    if docker { Index { media_type: Some(DOCKER_INDEX.to_owned()), ..index } } else { index }
}

/// What names a manifest or an index.
///
/// # Errors
/// When it is neither.
pub fn described(document: &[u8]) -> Result<Descriptor> {
    let media_type = match Document::parse(document, None)? {
        Document::Manifest(manifest) => manifest.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned()),
        Document::Index(index) => index.media_type.unwrap_or_else(|| OCI_INDEX.to_owned()),
    };
    Ok(Descriptor::new(media_type, Digest::of(document), document.len() as u64))
}

/// An index, the same bytes for the same manifests.
pub(crate) fn index_bytes(index: &Index) -> Vec<u8> {
    serde_json::to_vec(index).expect("maps with string keys always serialise")
}

/// An OCI manifest, the same bytes for the same parts.
pub(crate) fn manifest_bytes(id: &Digest, config_size: u64, layers: Vec<Descriptor>) -> Vec<u8> {
    let manifest = Manifest::oci(Descriptor::new(OCI_CONFIG, *id, config_size), layers);
    serde_json::to_vec(&manifest).expect("maps with string keys always serialise")
}

/// A manifest with these layers in the place of its own, of docker's family of types if that has one for each layer, or
/// else of OCI's; also its media type.
pub(crate) fn manifest_in(original: &[u8], layers: &[Descriptor], docker: bool) -> Result<(String, Vec<u8>)> {
    let Document::Manifest(manifest) = Document::parse(original, None)? else {
        return Err(Error::malformed("manifest", "it is an index"));
    };
    let docker = docker && layers.iter().all(|layer| layer.kind() != MediaType::LayerZstd);
    let family = |blob: &Descriptor| if docker { as_docker(blob) } else { as_oci(blob) };
    let media_type = if docker { DOCKER_MANIFEST } else { OCI_MANIFEST };
    let manifest = Manifest {
        media_type: Some(media_type.to_owned()),
        config: family(&manifest.config),
        layers: layers.iter().map(family).collect(),
        ..manifest
    };
    Ok((
        media_type.to_owned(),
        serde_json::to_vec(&manifest).expect("maps with string keys always serialise"),
    ))
}

/// The form of a layer that needs no work: a blob as it came, else the tar that its directory stands for.
pub(crate) fn stored_form(layer: &Layer) -> Result<LayerBlob> {
    if layer.is_foreign() {
        // Blobs that are here come first.
        if let Some(blob) = layer.came_as()?.into_iter().next() {
            return Ok(LayerBlob { descriptor: as_oci(&blob.descriptor), ..blob });
        }
    }
    plain_form(layer)
}

/// The layer's uncompressed tar.
pub(crate) fn plain_form(layer: &Layer) -> Result<LayerBlob> {
    let size = layer
        .tar_size()
        .ok_or_else(|| Error::NotFound { what: "layer", name: layer.diff_id().to_string() })?;
    let descriptor = Descriptor::new(OCI_LAYER, layer.diff_id().0, size);
    Ok(LayerBlob { descriptor, present: false, repository: None })
}

/// The same blob under docker's media type.
fn as_docker(blob: &Descriptor) -> Descriptor {
    let media_type = match blob.kind() {
        MediaType::LayerTar => DOCKER_LAYER,
        MediaType::LayerGzip => DOCKER_LAYER_GZIP,
        MediaType::Config => DOCKER_CONFIG,
        _ => &blob.media_type,
    };
    Descriptor::new(media_type, blob.digest, blob.size)
}

/// The same blob under its OCI media type.
pub(crate) fn as_oci(blob: &Descriptor) -> Descriptor {
    let media_type = match blob.kind() {
        MediaType::LayerTar => OCI_LAYER,
        MediaType::LayerGzip => OCI_LAYER_GZIP,
        MediaType::LayerZstd => OCI_LAYER_ZSTD,
        MediaType::Config => OCI_CONFIG,
        MediaType::Manifest => OCI_MANIFEST,
        _ => &blob.media_type,
    };
    Descriptor::new(media_type, blob.digest, blob.size)
}
