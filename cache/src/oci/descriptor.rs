//! Content descriptors and the media types of both families (OCI image-spec, "OCI Content Descriptors").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::oci::Platform;

/// What a document says of a blob. `size` is in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            extra: BTreeMap::new(),
        }
    }

    /// Whether an index names an image by this, and not what is about one (attestations have an unknown system).
    pub fn is_for_a_platform(&self) -> bool {
        matches!(self.kind(), MediaType::Manifest | MediaType::Index)
            && !self.annotations.contains_key("vnd.docker.reference.type")
            && self.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
    }

    pub fn kind(&self) -> MediaType {
        MediaType::of(&self.media_type)
    }
}

/// What a media type means to us; OCI and Docker names of one thing are one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    Index,
    Manifest,
    Config,
    LayerTar,
    LayerGzip,
    LayerZstd,
    Other,
}

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const OCI_FOREIGN_PREFIX: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

impl MediaType {
    pub fn of(name: &str) -> MediaType {
        match name {
            OCI_INDEX | DOCKER_INDEX => MediaType::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => MediaType::Manifest,
            OCI_CONFIG | DOCKER_CONFIG => MediaType::Config,
            OCI_LAYER | DOCKER_LAYER | OCI_FOREIGN_PREFIX => MediaType::LayerTar,
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP | DOCKER_FOREIGN_GZIP => MediaType::LayerGzip,
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => MediaType::LayerZstd,
            other => match other.strip_prefix(OCI_FOREIGN_PREFIX) {
                Some("+gzip") => MediaType::LayerGzip,
                Some("+zstd") => MediaType::LayerZstd,
                _ => MediaType::Other,
            },
        }
    }

    pub fn is_layer(self) -> bool {
        matches!(self, MediaType::LayerTar | MediaType::LayerGzip | MediaType::LayerZstd)
    }
}
