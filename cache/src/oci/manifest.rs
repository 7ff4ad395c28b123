//! Image manifests and indexes, OCI and Docker alike (OCI image-spec, "Image Manifest", "Image Index").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::{Descriptor, MediaType, OCI_INDEX, OCI_MANIFEST};

/// The largest manifest or index that is read, in bytes (distribution-spec asks for 4 MiB).
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// How deep indexes may name indexes.
pub const MAX_INDEX_DEPTH: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Manifest {
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        let media_type = Some(OCI_MANIFEST.to_owned());
        Manifest { schema_version: 2, media_type, config, layers, extra: BTreeMap::new() }
    }
}

impl Index {
    pub fn oci(manifests: Vec<Descriptor>) -> Index {
        let media_type = Some(OCI_INDEX.to_owned());
        Index { schema_version: 2, media_type, manifests, extra: BTreeMap::new() }
    }

    pub fn names(&self, manifest: &Digest) -> bool {
        self.manifests.iter().any(|descriptor| descriptor.digest == *manifest)
    }
}

/// A manifest or an index, told apart by its media type and never by guessing from both (CVE-2021-41190).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads `bytes` that were announced as `announced` (a `Content-Type` or a descriptor's media type;
    /// none when the container format names none, as `index.json` of a layout).
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no such document, is ambiguous, or contradicts what announced it.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Document> {
        let bad = |reason: String| Error::malformed("manifest", reason);
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let (layers, manifests) = (value.get("layers").is_some(), value.get("manifests").is_some());
        if layers && manifests {
            return Err(bad("it has both `layers` and `manifests`".into()));
        }
        if value.get("schemaVersion").and_then(serde_json::Value::as_u64) != Some(2) {
            return Err(bad("schemaVersion is not 2".into()));
        }
        let inner = value.get("mediaType").and_then(|m| m.as_str());
        let known = |m: &&str| matches!(MediaType::of(m), MediaType::Manifest | MediaType::Index);
        if let (Some(inner), Some(outer)) = (inner, announced.filter(known))
            && MediaType::of(inner) != MediaType::of(outer)
        {
            return Err(bad(format!("it says {inner} but was announced as {outer}")));
        }
        let kind = match inner.or(announced).map(MediaType::of) {
            Some(kind @ (MediaType::Manifest | MediaType::Index)) => kind,
            _ if manifests => MediaType::Index,
            _ if layers => MediaType::Manifest,
            _ => return Err(bad("neither an image manifest nor an index".into())),
        };
        let document = match kind {
            MediaType::Index => serde_json::from_value(value).map(Document::Index),
            _ => serde_json::from_value(value).map(Document::Manifest),
        };
        document.map_err(|e| bad(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::descriptor::{DOCKER_INDEX, DOCKER_MANIFEST};

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    #[test]
    fn an_ambiguous_document_is_refused() {
        let both = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#);
        assert!(
            Document::parse(both.as_bytes(), Some(OCI_MANIFEST)).unwrap_err().to_string().contains("both")
        );
    }

    #[test]
    fn the_media_type_decides_and_must_not_contradict() {
        let manifest =
            format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{CONFIG},"layers":[]}}"#);
        assert!(matches!(
            Document::parse(manifest.as_bytes(), Some(OCI_MANIFEST)),
            Ok(Document::Manifest(_))
        ));
        assert!(Document::parse(manifest.as_bytes(), Some(DOCKER_INDEX)).is_err());
    }

    #[test]
    fn unknown_fields_survive() {
        let text = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"subject":{{"a":1}}}}"#);
        let Ok(Document::Manifest(manifest)) = Document::parse(text.as_bytes(), None) else {
            panic!("a manifest")
        };
        assert_eq!(serde_json::to_value(&manifest).unwrap()["subject"]["a"], 1);
    }
}
