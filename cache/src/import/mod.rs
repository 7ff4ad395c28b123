//! Images from files: archives of docker, podman, skopeo and BuildKit (`load`), and OCI layout directories. What comes
//! in is verified whole before a name points to it.

mod adopt;
mod archive;
mod docker;
mod flat;
mod oci;

use std::io::Read;

use crate::blob::layout::Layout;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::resolve::{not_for, rank};
use crate::layer::compress::detect_and_decompress;
use crate::oci::{ImageConfig, Platform, Reference};
use crate::record::ImageRecord;
use crate::store::Store;

use archive::Archive;
pub use flat::flat;

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

/// Reads an image archive (OCI or docker, plain or compressed) to its end, and records its images and their names. An
/// index comes with all of its images that are in the archive or, with `platform`, as the one that fits that best.
///
/// # Errors
/// [`Error::Malformed`] or [`Error::Mismatch`] for an archive that breaks its format, a limit, or a digest; no name of
/// the store has changed then.
pub fn load(
    store: &Store,
    input: impl Read + Send,
    platform: Option<&Platform>,
    cancel: &Cancel,
) -> Result<Vec<Loaded>> {
    let (_, mut tar) = detect_and_decompress(input).map_err(Error::io("reading", "the image archive"))?;
    let archive = Archive::read(store, &mut tar, cancel)?;
    let index = archive.document("index.json")?;
    // What docker's own document says of an index is one of its images.
    let own = archive.document("manifest.json")?.filter(|_| !index.as_deref().is_some_and(oci::has_indexes));
    let images = match (own, index) {
        (Some(manifest), _) => docker::images(&archive, &manifest)?,
        (None, Some(index)) => oci::images(&archive, &index, platform)?,
        (None, None) => {
            return Err(Error::malformed("image archive", "neither manifest.json nor index.json is in it"));
        }
    };
    if let Some(platform) = platform {
        images.iter().flat_map(|image| &image.parts).try_for_each(|part| check_platform(part, platform))?;
    }
    adopt::adopt(store, images, cancel)
}

fn check_platform(part: &adopt::Part, platform: &Platform) -> Result<()> {
    match ImageConfig::parse(&part.config)?.platform() {
        Some(own) if rank(Some(&own), platform).is_none() => Err(not_for("image archive", platform, &[own])),
        _ => Ok(()),
    }
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
    let image = adopt::Incoming { index: None, parts: vec![part], names: Vec::new() };
    let loaded = adopt::adopt(store, vec![image], cancel)?;
    let missing = || Error::NotFound { what: "image", name: digest.to_string() };
    let id = loaded.first().ok_or_else(missing)?.id;
    Ok((store.image(&id)?.ok_or_else(missing)?, digest))
}
