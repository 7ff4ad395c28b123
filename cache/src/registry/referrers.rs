//! Manifests that refer to another one (`subject`), for registries that keep no list of them: clients do, in an index under
//! a tag (distribution-spec, "Pushing Manifests with Subject", "Referrers Tag Schema").

use std::sync::Arc;

use serde_json::Value;

use super::Client;
use super::upload::put_manifest;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::OCI_INDEX;
use crate::oci::{Descriptor, Document, Index, Reference};

/// What the manifest refers to, if it refers to something.
pub(crate) fn subject_of(manifest: &[u8]) -> Option<Descriptor> {
    let mut manifest: Value = serde_json::from_slice(manifest).ok()?;
    serde_json::from_value(manifest.get_mut("subject")?.take()).ok()
}

/// Puts the manifest, which is there already as `pushed`, into the list of those that refer to `subject`.
pub(super) fn list(
    client: &Client,
    reference: &Reference,
    subject: &Digest,
    pushed: Descriptor,
    manifest: &[u8],
    cancel: &Cancel,
) -> Result<()> {
    let name = list_of(reference, subject)?;
    let mut index = match client.fetch_manifest_at(&name, cancel) {
        Ok(found) => match Document::parse(&found.bytes, Some(&found.media_type))? {
            Document::Index(index) => index,
            Document::Manifest(_) => {
                return Err(Error::malformed(name.familiar(), "not a list of what refers to a manifest"));
            }
        },
        Err(Error::NotFound { .. }) => Index::oci(Vec::new()),
        Err(e) => return Err(e),
    };
    let entry = entry(pushed, manifest);
    if index.manifests.iter().any(|known| known.digest == entry.digest) {
        return Ok(());
    }
    index.manifests.push(entry);
    // It refers to nothing itself, whatever the registry's says: a list of lists would have no end.
    index.extra.remove("subject");
    let bytes = serde_json::to_vec(&index).map_err(|e| Error::malformed(name.familiar(), e.to_string()))?;
    let (transport, digest) = (Arc::clone(&client.0.transport), Digest::of(&bytes));
    let put = put_manifest(transport, name, OCI_INDEX.to_owned(), bytes, digest);
    client.0.runtime.call(cancel, put).map(drop)
}

/// What the list under the tag holds; nothing if there is none, or something else has that tag.
pub(super) fn by_tag(
    client: &Client,
    reference: &Reference,
    subject: &Digest,
    cancel: &Cancel,
) -> Result<Vec<Descriptor>> {
    let found = match client.fetch_manifest_at(&list_of(reference, subject)?, cancel) {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    match Document::parse(&found.bytes, Some(&found.media_type)) {
        Ok(Document::Index(index)) => Ok(index.manifests),
        Ok(Document::Manifest(_)) | Err(_) => Ok(Vec::new()),
    }
}

/// The tag for the list of what refers to `subject`.
fn list_of(reference: &Reference, subject: &Digest) -> Result<Reference> {
    let hex = subject.hex();
    // A tag has a limit, and the longer digests are cut for it.
    let tag = format!("{}-{}", subject.algorithm().name(), hex.get(..64).unwrap_or(&hex));
    format!("{}/{}:{tag}", reference.registry(), reference.repository()).parse()
}

/// The manifest's descriptor, with what it says it is and the annotations that it has.
fn entry(mut entry: Descriptor, manifest: &[u8]) -> Descriptor {
    let fields: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let kind = text(&fields["artifactType"]).or_else(|| text(&fields["config"]["mediaType"]));
    entry.extra.extend(kind.map(|kind| ("artifactType".to_owned(), kind.into())));
    entry.annotations = serde_json::from_value(fields["annotations"].clone()).unwrap_or_default();
    entry
}
