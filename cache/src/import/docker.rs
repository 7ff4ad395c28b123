//! Docker's archive format: `manifest.json` names config, tags and layers of each image (Docker image-spec v1.2,
//! "Combined Image JSON + Filesystem Changeset Format"). Since docker 25 the same files are an OCI layout as well.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::adopt::{Incoming, Part};
use super::archive::{Archive, read_document};
use super::oci::{self, Original};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::oci::config::MAX_CONFIG;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn images(archive: &Archive, manifest: &[u8]) -> Result<Vec<Incoming>> {
    let entries: Vec<Entry> =
        serde_json::from_slice(manifest).map_err(|e| Error::malformed("manifest.json", e.to_string()))?;
    oci::check_number(entries.len())?;
    let originals = match archive.document("index.json")? {
        Some(index) => oci::manifests_by_config(archive, &index),
        None => HashMap::new(),
    };
    entries.into_iter().map(|entry| image(archive, entry, &originals)).collect()
}

fn image(archive: &Archive, entry: Entry, originals: &HashMap<Digest, Vec<Original>>) -> Result<Incoming> {
    let missing = |name: &str| Error::malformed("image archive", format!("{name:?} is missing"));
    let blob = archive.file(&entry.config)?.ok_or_else(|| missing(&entry.config))?;
    check_name(&entry.config, &blob.digest())?;
    let layers = entry.layers.unwrap_or_default();
    let layers = layers.iter().map(|name| {
        let layer = archive.file(name)?;
        if let Some(layer) = &layer {
            check_blob_name(name, &layer.digest())?;
        }
        Ok(layer)
    });
    let names = entry.repo_tags.unwrap_or_default();
    let names: Vec<Reference> = names.iter().map(|name| tag(name)).collect::<Result<_>>()?;
    let of_config = originals.get(&blob.digest()).map(Vec::as_slice).unwrap_or_default();
    archive.spend(blob.size())?;
    let part = Part {
        config: read_document(&blob, &entry.config, MAX_CONFIG)?,
        id: blob.digest(),
        manifest: oci::original(of_config, &names).map(|own| (own.digest, own.bytes.clone())),
        layers: layers.collect::<Result<_>>()?,
    };
    Ok(Incoming { index: None, parts: vec![part], names })
}

/// No tag has a digest, which the image need not even have.
fn tag(text: &str) -> Result<Reference> {
    match text.parse::<Reference>()? {
        name if name.digest().is_some() => {
            Err(Error::malformed("image archive", format!("invalid tag {text:?}")))
        }
        name => Ok(name),
    }
}

/// A config is named by its digest: `HEX.json`, or as a blob.
fn check_name(name: &str, actual: &Digest) -> Result<()> {
    match name.strip_suffix(".json").map(|hex| format!("sha256:{hex}").parse::<Digest>()) {
        Some(Ok(expected)) if expected != *actual => Err(mismatch(name, &expected, actual)),
        _ => check_blob_name(name, actual),
    }
}

/// `blobs/ALGORITHM/HEX` must hold what it says.
fn check_blob_name(name: &str, actual: &Digest) -> Result<()> {
    let Ok(rest) = Path::new(name).strip_prefix("blobs") else { return Ok(()) };
    let text = rest.to_string_lossy().replacen('/', ":", 1);
    match text.parse::<Digest>() {
        Ok(expected) if expected != *actual => Err(mismatch(name, &expected, actual)),
        _ => Ok(()),
    }
}

fn mismatch(name: &str, expected: &Digest, actual: &Digest) -> Error {
    let what = format!("{name} in the image archive");
    Error::Mismatch { what, expected: expected.to_string(), actual: actual.to_string() }
}
