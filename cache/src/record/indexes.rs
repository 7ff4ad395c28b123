//! What a name or an id stands for: an image, or an index over images for several platforms, of which some may be absent.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::images::{ImageRecord, keep_document};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::resolve::rank;
use crate::oci::{Descriptor, Document, ImageConfig, Index, Platform, Reference};
use crate::snapshot::{Layer, LayerId};
use crate::store::{Store, now};

#[derive(Clone, Debug)]
pub enum Stored {
    Image(ImageRecord),
    Index(IndexRecord),
}

/// An index in the store.
#[derive(Clone, Debug)]
pub struct IndexRecord {
    /// Its own digest.
    pub id: Digest,
    pub index: Index,
    /// The images that are here, in the order of the index.
    pub members: Vec<Member>,
    /// When it came here, in seconds since 1970.
    pub created: i64,
}

/// An image of an index.
#[derive(Clone, Debug)]
pub struct Member {
    /// As the index has it.
    pub descriptor: Descriptor,
    /// Its manifest is the one that the index names.
    pub image: ImageRecord,
}

/// An image that is to be recorded: config and manifest with their digests, and layers, bottom first.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    pub config: (&'a Digest, &'a [u8]),
    pub manifest: (&'a Digest, &'a [u8]),
    pub layers: &'a [Layer],
}

/// A row of images with its document.
type Row = (String, String, i64, Vec<u8>);

impl Stored {
    pub fn id(&self) -> &Digest {
        match self {
            Stored::Image(image) => &image.id,
            Stored::Index(index) => &index.id,
        }
    }

    /// The digest of the manifest or index.
    pub fn manifest(&self) -> &Digest {
        match self {
            Stored::Image(image) => &image.manifest,
            Stored::Index(index) => &index.id,
        }
    }

    /// When it came here, in seconds since 1970.
    pub fn created(&self) -> i64 {
        match self {
            Stored::Image(image) => image.created,
            Stored::Index(index) => index.created,
        }
    }

    /// The images that are here.
    pub fn images(&self) -> Vec<&ImageRecord> {
        match self {
            Stored::Image(image) => vec![image],
            Stored::Index(index) => index.members.iter().map(|member| &member.image).collect(),
        }
    }

    /// The image that fits `platform` best, by what the index says of it or else by its config. One that does not say
    /// what it is for fits all.
    pub fn for_platform(&self, platform: &Platform) -> Option<&ImageRecord> {
        let ranked = self
            .with_platforms()
            .into_iter()
            .filter_map(|(own, image)| Some((rank(own.as_ref(), platform)?, image)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, image)| image)
    }

    fn with_platforms(&self) -> Vec<(Option<Platform>, &ImageRecord)> {
        match self {
            Stored::Image(image) => vec![(image.config.platform(), image)],
            Stored::Index(index) => {
                index.members.iter().map(|member| (member.platform(), &member.image)).collect()
            }
        }
    }

    /// The image of this machine, or else the first one.
    pub fn main(&self) -> Option<&ImageRecord> {
        self.for_platform(&Platform::host()).or_else(|| self.images().into_iter().next())
    }

    /// The platforms of the images that are here, as far as they say one.
    pub fn platforms(&self) -> Vec<Platform> {
        self.with_platforms().into_iter().filter_map(|(platform, _)| platform).collect()
    }
}

impl Member {
    /// What it is for.
    pub fn platform(&self) -> Option<Platform> {
        self.descriptor.platform.clone().or_else(|| self.image.config.platform())
    }
}

impl IndexRecord {
    /// What the index names for a platform, and the store does not have.
    pub fn absent(&self) -> impl Iterator<Item = &Descriptor> {
        let here = |digest: &Digest| self.members.iter().any(|member| member.descriptor.digest == *digest);
        self.index.manifests.iter().filter(move |d| d.is_for_a_platform() && !here(&d.digest))
    }
}

impl Store {
    /// Records an index with those of its images that are new or were recorded under these manifests, beside what is already
    /// known to be of it, and its names. All of it at once. Gives the time at which it was first recorded.
    ///
    /// # Errors
    /// When something is no index or config, or the store can't be written.
    pub fn put_index(
        &self,
        index: (&Digest, &[u8]),
        new: &[NewImage<'_>],
        known: &[Digest],
        names: &[(Reference, Option<Digest>)],
    ) -> Result<i64> {
        parse_index(index.1)?;
        for image in new {
            ImageConfig::parse(image.config.1)?;
        }
        let id = index.0.to_string();
        self.write("recording an index", |tx| {
            keep_document(tx, &id, index.1)?;
            let created = tx.query_row(
                "INSERT INTO images (manifest, id, turn, created, boot)
                 VALUES (?1, ?1, (SELECT coalesce(max(turn), 0) + 1 FROM images), ?2, ?3)
                 ON CONFLICT DO UPDATE SET turn = turn RETURNING created",
                params![id, now(), self.boot()],
                |row| row.get(0),
            )?;
            let mut add = tx.prepare_cached(
                "INSERT OR IGNORE INTO members (parent, image) SELECT ?1, manifest FROM images WHERE manifest = ?2",
            )?;
            for manifest in known {
                add.execute([&id, &manifest.to_string()])?;
            }
            for image in new {
                self.keep_image(tx, image.config, image.manifest, image.layers)?;
                add.execute([&id, &image.manifest.0.to_string()])?;
            }
            for (name, digest) in names {
                self.name(tx, name, &id, digest.as_ref())?;
            }
            Ok(created)
        })
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn stored_named(&self, name: &Reference) -> Result<Option<Stored>> {
        self.stored_where("manifest = (SELECT image FROM names WHERE name = ?1)", &name.to_string())
    }

    /// The image of this manifest, or the newest that has this id; or the index with this digest.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn stored(&self, id: &Digest) -> Result<Option<Stored>> {
        self.stored_where("manifest = ?1 OR id = ?1", &id.to_string())
    }

    /// The image that a name stands for; of an index the one of this machine, or else the first one.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_named(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        Ok(self.stored_named(name)?.and_then(|stored| stored.main().cloned()))
    }

    /// The same for an id.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        Ok(self.stored(id)?.and_then(|stored| stored.main().cloned()))
    }

    /// All of it at one moment: names move and images go at any time.
    fn stored_where(&self, condition: &str, value: &str) -> Result<Option<Stored>> {
        let lease = self.lease()?;
        let found = self.take("looking up an image", &lease, |tx| {
            let Some(row) = row_where(tx, condition, value)? else { return Ok(None) };
            let layers = |manifest: &str| {
                let mut select =
                    tx.prepare_cached("SELECT layer FROM image_layers WHERE image = ?1 ORDER BY position")?;
                let ids: Vec<LayerId> =
                    select.query_map([manifest], |r| r.get(0).map(LayerId))?.collect::<Result<_, _>>()?;
                self.leased(tx, &lease, &ids)
            };
            let mut images = Vec::new();
            if row.0 != row.1 {
                let Some(layers) = layers(&row.1)? else { return Ok(None) };
                return Ok(Some((Some(layers), row, images)));
            }
            let mut select = tx.prepare_cached("SELECT image FROM members WHERE parent = ?1")?;
            let members: Vec<String> = select.query_map([&row.0], |r| r.get(0))?.collect::<Result<_, _>>()?;
            for manifest in members {
                let Some(row) = row_where(tx, "manifest = ?1", &manifest)? else { continue };
                if let Some(layers) = layers(&manifest)? {
                    images.push((row, layers));
                }
            }
            Ok(Some((None, row, images)))
        })?;
        let Some((own, row, images)) = found else { return Ok(None) };
        if let Some(layers) = own {
            return image(row, layers).map(Stored::Image).map(Some);
        }
        let images =
            images.into_iter().map(|(row, layers)| image(row, layers)).collect::<Result<Vec<_>>>()?;
        let index = parse_index(&row.3)?;
        Ok(Some(Stored::Index(IndexRecord {
            id: row.0.parse()?,
            members: in_order(&index, images),
            index,
            created: row.2,
        })))
    }
}

pub(crate) fn parse_index(bytes: &[u8]) -> Result<Index> {
    match Document::parse(bytes, None)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(Error::malformed("index", "it is a manifest")),
    }
}

fn row_where(tx: &Transaction<'_>, condition: &str, value: &str) -> rusqlite::Result<Option<Row>> {
    tx.prepare_cached(&format!(
        "SELECT id, manifest, created, bytes FROM images JOIN documents ON digest = id WHERE {condition}
         ORDER BY turn DESC LIMIT 1"
    ))?
    .query_row([value], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
    .optional()
}

fn image((id, manifest, created, config): Row, layers: Vec<Layer>) -> Result<ImageRecord> {
    let (id, manifest, config) = (id.parse()?, manifest.parse()?, ImageConfig::parse(&config)?);
    Ok(ImageRecord { id, manifest, config, layers, created })
}

fn in_order(index: &Index, images: Vec<ImageRecord>) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for descriptor in &index.manifests {
        let known = members.iter().any(|member| member.descriptor.digest == descriptor.digest);
        if let Some(image) = images.iter().find(|image| image.manifest == descriptor.digest && !known) {
            members.push(Member { descriptor: descriptor.clone(), image: image.clone() });
        }
    }
    members
}
