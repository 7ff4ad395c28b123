//! A config and layers become an image: the manifest is written, and the store remembers all of it. Also which form
//! of a layer a manifest names. Layers of our own stay uncompressed here; a push compresses them.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::{
    MediaType, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST,
};
use crate::oci::{Descriptor, ImageConfig, Manifest, Reference};
use crate::record::ImageRecord;
use crate::snapshot::{Layer, LayerBlob};
use crate::store::Store;

/// The documents of an image.
#[derive(Clone, Debug)]
pub struct Documents {
    pub id: Digest,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
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

/// Records the image that `config` and `layers` make, under `names`.
///
/// # Errors
/// As [`Documents::of`], or when the store can't be written.
pub fn assemble(
    store: &Store,
    config: ImageConfig,
    layers: &[Layer],
    names: &[Reference],
) -> Result<ImageRecord> {
    let Documents { id, config, manifest } = Documents::of(config, layers)?;
    let manifest_digest = Digest::of(&manifest);
    let names: Vec<_> = names.iter().map(|name| (name.clone(), None)).collect();
    store.put_image((&id, &config), (&manifest_digest, &manifest), layers, &names)
}

/// An OCI manifest, the same bytes for the same parts.
pub(crate) fn manifest_bytes(id: &Digest, config_size: u64, layers: Vec<Descriptor>) -> Vec<u8> {
    let manifest = Manifest::oci(Descriptor::new(OCI_CONFIG, *id, config_size), layers);
    serde_json::to_vec(&manifest).expect("maps with string keys always serialise")
}

/// The form of a layer that needs no work: a blob as it came, else the tar that its directory stands for.
pub(crate) fn stored_form(layer: &Layer) -> Result<LayerBlob> {
    if layer.is_foreign() {
        // Blobs that are here come first.
        if let Some(blob) = layer.blobs()?.into_iter().next() {
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
