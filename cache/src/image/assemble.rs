//! A config and layers become an image: the manifest is written, and the store remembers all of it. Also which form
//! of a layer a manifest names. Layers of our own stay uncompressed here; a push compresses them.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, MediaType, OCI_CONFIG, OCI_LAYER,
    OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST,
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
        let id = Digest::of(&config);
        let manifest = manifest_bytes(&id, config.len() as u64, descriptors);
        Ok(Documents { id, config, manifest })
    }
}

/// Records under `names` what was built: an image, or an index over those of several platforms.
///
/// # Errors
/// As [`Documents::of`], or when the store can't be written.
pub fn assemble(store: &Store, products: &[Product], names: &[Reference]) -> Result<Stored> {
    let names: Vec<_> = names.iter().map(|name| (name.clone(), None)).collect();
    let made: Vec<(Documents, Digest)> = products
        .iter()
        .map(|product| {
            let documents = Documents::of(product.config.clone(), product.files.layers())?;
            let manifest = Digest::of(&documents.manifest);
            Ok((documents, manifest))
        })
        .collect::<Result<_>>()?;
    let new: Vec<NewImage<'_>> = made
        .iter()
        .zip(products)
        .map(|((Documents { id, config, manifest }, digest), product)| NewImage {
            config: (id, config),
            manifest: (digest, manifest),
            layers: product.files.layers(),
        })
        .collect();
    if let [NewImage { config, manifest, layers }] = new[..] {
        return store.put_image(config, manifest, layers, &names).map(Stored::Image);
    }
    let descriptors = made.iter().zip(products).map(|((documents, digest), product)| {
        let descriptor = Descriptor::new(OCI_MANIFEST, *digest, documents.manifest.len() as u64);
        Descriptor { platform: Some(product.platform.clone()), ..descriptor }
    });
    let index = Index::oci(descriptors.collect());
    let bytes = index_bytes(&index);
    let id = Digest::of(&bytes);
    let created = store.put_index((&id, &bytes), &new, &[], &names)?;
    let members = made.iter().zip(products).zip(&index.manifests).map(|((made, product), descriptor)| {
        let (config, layers) = (ImageConfig::parse(&made.0.config)?, product.files.layers().to_vec());
        let image = ImageRecord { id: made.0.id, manifest: made.1, config, layers, created };
        Ok(Member { descriptor: descriptor.clone(), image })
    });
    let members = members.collect::<Result<_>>()?;
    Ok(Stored::Index(IndexRecord { id, index, members, created }))
}

/// An OCI index, the same bytes for the same manifests.
pub(crate) fn index_bytes(index: &Index) -> Vec<u8> {
    serde_json::to_vec(index).expect("maps with string keys always serialise")
}

/// An OCI manifest, the same bytes for the same parts.
pub(crate) fn manifest_bytes(id: &Digest, config_size: u64, layers: Vec<Descriptor>) -> Vec<u8> {
    let manifest = Manifest::oci(Descriptor::new(OCI_CONFIG, *id, config_size), layers);
    serde_json::to_vec(&manifest).expect("maps with string keys always serialise")
}

/// A manifest with these layers in the place of its own; also its media type. Where it is not to be `kept` in the family
/// of types that it has, it becomes OCI's, as it does for a layer that docker's has no type for.
pub(crate) fn manifest_with(
    original: &[u8],
    layers: Vec<Descriptor>,
    kept: bool,
) -> Result<(String, Vec<u8>)> {
    let Document::Manifest(manifest) = Document::parse(original, None)? else {
        return Err(Error::malformed("manifest", "it is an index"));
    };
    let is_docker = manifest.media_type.as_deref() == Some(DOCKER_MANIFEST);
    let docker = kept && is_docker && layers.iter().all(|layer| layer.kind() != MediaType::LayerZstd);
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
