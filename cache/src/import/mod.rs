//! Images from files: archives of docker, podman, skopeo and BuildKit (`load`), and OCI layout directories. What comes
//! in is verified whole before a name points to it.

mod adopt;
mod archive;
mod docker;
mod oci;

use std::io::Read;

use crate::blob::layout::Layout;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::compress::detect_and_decompress;
use crate::oci::{Platform, Reference};
use crate::record::ImageRecord;
use crate::store::Store;

use archive::Archive;

/// An image of an archive, and the names it had there. The store has it under these names now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    pub names: Vec<Reference>,
}

/// Which image of a layout.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// The only one, or the one tagged `latest`.
    Default,
    Tag(&'a str),
    Digest(&'a Digest),
}

/// Reads an image archive (OCI or docker, plain or compressed) to its end, and records its images and their names.
/// Of an image for several platforms the one that fits `platform` best is taken.
///
/// # Errors
/// [`Error::Malformed`] or [`Error::Mismatch`] for an archive that breaks its format, a limit, or a digest; no name of
/// the store has changed then.
pub fn load(
    store: &Store,
    input: impl Read + Send,
    platform: &Platform,
    cancel: &Cancel,
) -> Result<Vec<Loaded>> {
    let (_, mut tar) = detect_and_decompress(input).map_err(Error::io("reading", "the image archive"))?;
    let archive = Archive::read(store, &mut tar, cancel)?;
    let parts = match archive.document("manifest.json")? {
        Some(manifest) => docker::parts(&archive, &manifest)?,
        None => match archive.document("index.json")? {
            Some(index) => oci::parts(&archive, &index, platform)?,
            None => {
                return Err(Error::malformed(
                    "image archive",
                    "neither manifest.json nor index.json is in it",
                ));
            }
        },
    };
    adopt::adopt(store, parts, cancel)
}

/// Takes one image of an OCI layout into the store, without a name. Gives its record and the digest that the layout's
/// index names.
///
/// # Errors
/// As [`load`]; [`Error::NotFound`] when the layout has no such image.
pub(crate) fn from_layout(
    store: &Store,
    layout: &Layout,
    wanted: Wanted<'_>,
    platform: &Platform,
    cancel: &Cancel,
) -> Result<(ImageRecord, Digest)> {
    let source = oci::LayoutSource { store, layout, cancel };
    let (part, digest) = oci::part_of_layout(&source, wanted, platform)?;
    let loaded = adopt::adopt(store, vec![part], cancel)?;
    let missing = || Error::NotFound { what: "image", name: digest.to_string() };
    let id = loaded.first().ok_or_else(missing)?.id;
    Ok((store.image(&id)?.ok_or_else(missing)?, digest))
}
