//! From a name to an image: in the store, in an OCI layout, or in a registry. A registry's manifest, index and config
//! are fetched and verified here, its layers only named: they stay where they are until somebody needs them.

use std::path::Path;
use std::sync::Arc;

use crate::blob::layout::Layout;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::import;
use crate::oci::config::MAX_CONFIG;
use crate::oci::descriptor::MediaType;
use crate::oci::manifest::MAX_INDEX_DEPTH;
use crate::oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform, Reference};
use crate::record::{ImageRecord, NewImage, Stored, parse_index};
use crate::registry::{Client, Fetched};
use crate::snapshot::{Layer, LayerBlob};
use crate::store::Store;

/// Where images are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub store: &'a Store,
    pub client: &'a Client,
}

/// When a registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// When the store does not have the name.
    #[default]
    Missing,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub pull: Pull,
    /// Whether an image from a registry is recorded in the store under its name. If not, only its layers and
    /// documents are, and the next resolution asks the registry again.
    pub keep: bool,
}

/// An image, and where it came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its layers may be absent.
    pub image: ImageRecord,
    /// The digest of the manifest or index that the name stands for in its registry, if a registry ever said so.
    pub digest: Option<Digest>,
    /// Whether a registry was asked.
    pub remote: bool,
}

/// Finds the image that `reference` names for `platform`.
///
/// # Errors
/// [`Error::NotFound`] where nothing has that name or platform, and what the registry or store reports.
pub fn resolve(
    sources: Sources<'_>,
    reference: &Reference,
    platform: &Platform,
    policy: Policy,
    cancel: &Cancel,
) -> Result<Resolved> {
    if policy.pull != Pull::Always
        && let Some(found) = local(sources.store, reference, platform)?
    {
        return Ok(found);
    }
    if policy.pull == Pull::Never {
        return Err(Error::NotFound { what: "image in the store", name: reference.familiar() });
    }
    remote(sources, reference, platform, policy, cancel).map_err(|error| match error {
        error @ (Error::NotFound { .. } | Error::Registry { .. }) => {
            here_is(sources.store, reference, platform, error)
        }
        error => error,
    })
}

/// What the store has under the name says more than that the registry has nothing: nobody may ever have pushed it.
fn here_is(store: &Store, reference: &Reference, platform: &Platform, error: Error) -> Error {
    match store.stored_named(reference) {
        Ok(Some(found)) if found.for_platform(platform).is_none() => Error::NotFound {
            what: "image for this platform",
            name: format!(
                "{} for {platform} (here it is for {}; {error})",
                reference.familiar(),
                list(&found.platforms())
            ),
        },
        _ => error,
    }
}

/// The image of the store with this name, if it is one for the platform. A digest is looked for among the images and
/// among what registries called them.
fn local(store: &Store, reference: &Reference, platform: &Platform) -> Result<Option<Resolved>> {
    let Some(digest) = reference.digest() else {
        let Some(found) = store.stored_named(reference)? else { return Ok(None) };
        let Some(image) = found.for_platform(platform).cloned() else { return Ok(None) };
        return Ok(Some(Resolved { image, digest: digest_of(store, &found, reference)?, remote: false }));
    };
    for name in store.names(None)? {
        let same_repository = name.name.familiar_name() == reference.familiar_name();
        if same_repository
            && name.digest.as_ref() == Some(digest)
            && let Some(found) = store.stored(&name.manifest)?
            && let Some(image) = found.for_platform(platform).cloned()
        {
            return Ok(Some(Resolved { image, digest: name.digest, remote: false }));
        }
    }
    Ok(None)
}

/// What the registry calls that which this name stands for, if it ever said so.
fn digest_of(store: &Store, found: &Stored, name: &Reference) -> Result<Option<Digest>> {
    let names = store.names(Some(found.id()))?;
    Ok(names.into_iter().find(|known| known.name == *name).and_then(|known| known.digest))
}

fn remote(
    sources: Sources<'_>,
    reference: &Reference,
    platform: &Platform,
    policy: Policy,
    cancel: &Cancel,
) -> Result<Resolved> {
    let found = Found::ask(sources, reference, platform, cancel)?;
    if policy.keep {
        return found.keep(sources.store, reference);
    }
    let config = ImageConfig::parse(&found.config)?;
    let image = ImageRecord {
        id: found.id,
        manifest: found.manifest.digest,
        config,
        layers: found.layers,
        created: 0,
    };
    Ok(Resolved { image, digest: Some(found.digest), remote: true })
}

/// What a registry said of an image, verified, not recorded yet.
pub(super) struct Found {
    id: Digest,
    config: Vec<u8>,
    manifest: Fetched,
    /// Of the document that the name itself stands for.
    digest: Digest,
    /// That document, if it is an index that names the manifest.
    index: Option<Vec<u8>>,
    pub(super) layers: Vec<Layer>,
}

impl Found {
    pub(super) fn ask(
        sources: Sources<'_>,
        reference: &Reference,
        platform: &Platform,
        cancel: &Cancel,
    ) -> Result<Found> {
        let Sources { store, client } = sources;
        store.set_remote(Arc::new(client.clone()));
        let top = client.fetch_manifest(reference, cancel)?;
        let (digest, bytes) = (top.digest, top.bytes.clone());
        let (fetched, manifest) = manifest_for(client, reference, top, platform, cancel)?;
        let is_index = parse_index(&bytes).is_ok_and(|index| index.names(&fetched.digest));
        let config = config_bytes(sources, reference, &manifest.config, cancel)?;
        let layers = name_layers(store, reference, &manifest, &ImageConfig::parse(&config)?)?;
        let index = is_index.then_some(bytes);
        Ok(Found { id: manifest.config.digest, config, manifest: fetched, digest, index, layers })
    }

    /// Records it under its name. Where that stands for another platform's image of the same index already, it becomes
    /// the name of the index. What was built and pushed here has the registry's digest with its name, too, but may have
    /// other manifests, which are no images of that index.
    pub(super) fn keep(self, store: &Store, reference: &Reference) -> Result<Resolved> {
        let manifest = (&self.manifest.digest, self.manifest.bytes.as_slice());
        let config = (&self.id, self.config.as_slice());
        let name = (kept_name(reference), Some(self.digest));
        let known = store.stored_named(&name.0)?;
        let others: Vec<(Digest, Digest)> = match (&known, &self.index) {
            (Some(found), Some(bytes)) if digest_of(store, found, &name.0)? == name.1 => {
                let index = parse_index(bytes)?;
                let images = found.images().into_iter().filter(|image| index.names(&image.manifest));
                images.map(|image| (image.manifest, image.id)).collect()
            }
            _ => Vec::new(),
        };
        let image = match self.index.filter(|_| others.iter().any(|(_, id)| *id != self.id)) {
            None => store.put_image(config, manifest, &self.layers, &[name])?,
            Some(index) => {
                let new = NewImage { config, manifest, layers: &self.layers };
                let others: Vec<Digest> = others.into_iter().map(|(manifest, _)| manifest).collect();
                store.put_index((&self.digest, &index), &[new], &others, &[name])?;
                store.put_image(config, manifest, &self.layers, &[])?
            }
        };
        Ok(Resolved { image, digest: Some(self.digest), remote: true })
    }
}

/// The name under which an image is kept. One that was named by digest alone is kept by that digest.
fn kept_name(reference: &Reference) -> Reference {
    if reference.tag().is_some() { reference.without_digest() } else { reference.clone() }
}

/// The manifest for the platform, through as many indexes as there may be.
pub(crate) fn manifest_for(
    client: &Client,
    reference: &Reference,
    mut fetched: Fetched,
    platform: &Platform,
    cancel: &Cancel,
) -> Result<(Fetched, Manifest)> {
    for _ in 0..MAX_INDEX_DEPTH {
        let announced = Some(fetched.media_type.as_str()).filter(|m| !m.is_empty());
        let index = match Document::parse(&fetched.bytes, announced)? {
            Document::Manifest(manifest) => return Ok((fetched, manifest)),
            Document::Index(index) => index,
        };
        let chosen =
            choose(&index, platform).ok_or_else(|| no_platform(&reference.familiar(), platform, &index))?;
        fetched = client.fetch_manifest(&reference.with_digest(chosen.digest), cancel)?;
        check_against(chosen, &fetched)?;
    }
    Err(Error::malformed(reference.familiar(), "indexes within indexes within indexes"))
}

/// Says which platforms there are.
pub(crate) fn no_platform(name: &str, platform: &Platform, index: &Index) -> Error {
    let offered = index.manifests.iter().filter(|d| d.is_for_a_platform());
    not_for(name, platform, &offered.filter_map(|d| d.platform.clone()).collect::<Vec<_>>())
}

/// The same of an image that is there for these platforms.
pub fn not_for(name: &str, platform: &Platform, offered: &[Platform]) -> Error {
    let name = format!("{name} for {platform} (there is: {})", list(offered));
    Error::NotFound { what: "image for this platform", name }
}

fn list(platforms: &[Platform]) -> String {
    match platforms {
        [] => "none that it names".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// A document must be what the index that names it says (R6).
pub(super) fn check_against(descriptor: &Descriptor, fetched: &Fetched) -> Result<()> {
    let size = fetched.bytes.len() as u64;
    if size != descriptor.size {
        return Err(Error::Mismatch {
            what: format!("size of manifest {}", descriptor.digest),
            expected: format!("{} bytes", descriptor.size),
            actual: format!("{size} bytes"),
        });
    }
    if !fetched.media_type.is_empty() && MediaType::of(&fetched.media_type) != descriptor.kind() {
        return Err(Error::Mismatch {
            what: format!("media type of manifest {}", descriptor.digest),
            expected: descriptor.media_type.clone(),
            actual: fetched.media_type.clone(),
        });
    }
    Ok(())
}

fn config_bytes(
    sources: Sources<'_>,
    reference: &Reference,
    descriptor: &Descriptor,
    cancel: &Cancel,
) -> Result<Vec<u8>> {
    check_config(&reference.familiar(), descriptor)?;
    if let Some(known) = sources.store.document(&descriptor.digest)? {
        return Ok(known);
    }
    let mut reader = sources.client.open_blob(reference, descriptor, cancel)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut bytes)
        .map_err(Error::io("fetching the config of", reference.familiar()))?;
    Ok(bytes)
}

/// Whether a manifest's config is one of an image and not of another kind of artifact.
pub(crate) fn check_config(name: &str, descriptor: &Descriptor) -> Result<()> {
    if descriptor.kind() != MediaType::Config {
        return Err(Error::malformed(
            name,
            format!("not an image: its config is {:?}", descriptor.media_type),
        ));
    }
    if descriptor.size > MAX_CONFIG {
        return Err(Error::malformed(name, format!("a config of {} bytes", descriptor.size)));
    }
    Ok(())
}

/// The manifest's layers with their diff ids from the config; their bytes stay in the repository.
fn name_layers(
    store: &Store,
    reference: &Reference,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<Layer>> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::malformed(
            reference.familiar(),
            format!("its manifest has {} layers, its config {}", manifest.layers.len(), diff_ids.len()),
        ));
    }
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    diff_ids
        .iter()
        .zip(&manifest.layers)
        .map(|(diff_id, descriptor)| {
            if !descriptor.kind().is_layer() {
                let reason = format!("a layer of unsupported media type {:?}", descriptor.media_type);
                return Err(Error::malformed(reference.familiar(), reason));
            }
            let repository = Some(repository.clone());
            let blob = LayerBlob { descriptor: descriptor.clone(), present: false, repository };
            store.foreign_layer(*diff_id, Some(&blob))
        })
        .collect()
}

/// The image of an OCI layout directory that has this tag (`org.opencontainers.image.ref.name`) or digest, or the only
/// one. Its blobs are copied into the store.
///
/// # Errors
/// When there is no such image, or it is not what its digests say.
pub fn resolve_layout(
    store: &Store,
    dir: &Path,
    wanted: import::Wanted<'_>,
    platform: &Platform,
    cancel: &Cancel,
) -> Result<Resolved> {
    let layout = Layout::open(dir)?;
    let (image, digest) = import::from_layout(store, &layout, wanted, platform, cancel)?;
    Ok(Resolved { image, digest: Some(digest), remote: false })
}

/// The entry of an index that fits `platform` best; the first of equals.
pub(crate) fn choose<'a>(index: &'a Index, platform: &Platform) -> Option<&'a Descriptor> {
    let documents =
        index.manifests.iter().filter(|d| matches!(d.kind(), MediaType::Manifest | MediaType::Index));
    let ranked = documents.filter_map(|d| Some((rank(d.platform.as_ref(), platform)?, d)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, d)| d)
}

/// How far what is `offered` lies from what is `wanted`, first by the machine, then by the release of Windows; none is
/// unusable. A machine runs what was made for older variants of itself. What names no platform may be anything, so it
/// comes last.
pub(crate) fn rank(offered: Option<&Platform>, wanted: &Platform) -> Option<(u32, u32)> {
    let Some(offered) = offered else { return Some((u32::MAX, u32::MAX)) };
    let behind = offered.windows_behind(wanted);
    if offered.satisfies(wanted) {
        return Some((0, behind));
    }
    if !offered.fits_but_for_variant(wanted) {
        return None;
    }
    let level = |p: &Platform| {
        let normal = p.normalised();
        match (normal.architecture.as_str(), normal.variant.as_deref()) {
            ("amd64", None) => Some(1),
            ("arm64", None) => Some(8),
            ("amd64" | "arm" | "arm64", Some(v)) => v.strip_prefix('v')?.parse::<u32>().ok(),
            _ => None,
        }
    };
    let (offered, wanted) = (level(offered)?, level(wanted)?);
    wanted.checked_sub(offered).filter(|distance| *distance > 0).map(|distance| (distance, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::descriptor::OCI_MANIFEST;
    use crate::record::{IndexRecord, Member};

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().map(|text| {
            let mut descriptor = Descriptor::new(OCI_MANIFEST, Digest::of(text.as_bytes()), 1);
            descriptor.platform = match *text {
                "" => None,
                "unknown" => Some(Platform::new("unknown", "unknown", None)),
                text => Some(text.parse().unwrap()),
            };
            descriptor
        });
        Index::oci(manifests.collect())
    }

    /// What a pull or FROM takes of such an index in a registry, which is also what these and `run` take of it in the store.
    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let (index, wanted) = (index(platforms), wanted.parse().unwrap());
        let digest = choose(&index, &wanted).map(|descriptor| descriptor.digest);
        let member = |descriptor: &Descriptor| {
            let (config, digest) = (ImageConfig::default(), descriptor.digest);
            let image = ImageRecord { id: digest, manifest: digest, config, layers: Vec::new(), created: 0 };
            Member { descriptor: descriptor.clone(), image }
        };
        let members = index.manifests.iter().map(member).collect();
        let stored = Stored::Index(IndexRecord { id: Digest::of(b""), index, members, created: 0 });
        assert_eq!(
            stored.for_platform(&wanted).map(|image| image.manifest),
            digest,
            "{platforms:?} for {wanted}"
        );
        platforms.iter().find(|p| Some(Digest::of(p.as_bytes())) == digest).map(ToString::to_string)
    }

    #[test]
    fn the_nearest_platform_is_chosen() {
        let all =
            ["unknown", "linux/arm/v5", "linux/arm/v6", "linux/amd64", "linux/arm64/v8", "windows/amd64"];
        for (wanted, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm/v7", Some("linux/arm/v6")),
            ("linux/arm/v5", Some("linux/arm/v5")),
            ("linux/amd64/v3", Some("linux/amd64")),
            ("linux/riscv64", None),
            ("unknown/unknown", Some("unknown")),
        ] {
            assert_eq!(chosen(&all, wanted).as_deref(), expected, "{wanted}");
        }
        let windows = ["linux/amd64", "windows/amd64"].into_iter().chain([
            "windows(10.0.17763.1)/amd64",
            "windows(10.0.20348.1)/amd64",
            "windows(10.0.20348.2)/amd64",
            "windows(10.0.26100.1)/amd64",
        ]);
        let windows: Vec<&str> = windows.collect();
        for (wanted, expected) in [
            ("windows(10.0.20348.2)/amd64", "windows(10.0.20348.2)/amd64"),
            ("windows(10.0.20348.3)/amd64", "windows(10.0.20348.1)/amd64"),
            ("windows(10.0.25398.1)/amd64", "windows(10.0.20348.1)/amd64"),
            ("windows(10.0.17763.9)/amd64", "windows(10.0.17763.1)/amd64"),
            ("windows(10.0.14393.9)/amd64", "windows/amd64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(chosen(&windows, wanted).as_deref(), Some(expected), "{wanted}");
        }
        assert_eq!(chosen(&windows[2..], "windows(10.0.14393.9)/amd64"), None);
        // As containerd's matchers have it: what needs nothing runs everywhere, and of what runs the first is taken.
        let features = ["linux(+gpu+simd)/amd64", "linux(+gpu)/amd64", "linux/amd64", "linux(+tpu)/arm64"];
        for (wanted, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux(+simd)/amd64", Some("linux/amd64")),
            ("linux(+gpu)/amd64", Some("linux(+gpu)/amd64")),
            ("linux(+gpu+simd)/amd64", Some("linux(+gpu+simd)/amd64")),
            ("linux(+gpu)/amd64/v3", Some("linux(+gpu)/amd64")),
            ("linux/arm64", None),
            ("linux(6.1+tpu)/arm64", Some("linux(+tpu)/arm64")),
        ] {
            assert_eq!(chosen(&features, wanted).as_deref(), expected, "{wanted}");
        }
        assert_eq!(chosen(&["linux/arm64", ""], "linux/amd64").as_deref(), Some(""));
        assert_eq!(chosen(&["linux/amd64/v2"], "linux/amd64"), None, "a newer variant need not run");
    }
}
