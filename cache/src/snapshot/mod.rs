//! Layers and stacks of them. A layer has an identity of its own in the store and may be absent: known by its digest,
//! its bytes still in a registry. A stack of layers is a snapshot; this module reads it, `executor` mounts it.

mod active;
mod blobs;
pub mod copy;
mod ensure;
mod epoch;
mod marks;
pub mod owner;
pub mod passwd;
mod squash;
mod stack;
pub mod tree;

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rusqlite::{OptionalExtension as _, Row};
use rustix::fs::{Mode, OFlags};

use crate::cancel::Cancel;
use crate::digest::{ChainId, ContentDigest, DiffId, Digest};
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::store::{Store, now};

pub use active::ActiveLayer;
pub use blobs::LayerBlob;
use blobs::insert_blob;
pub use marks::Marks;
pub use tree::Tree;

/// How a layer's tar is written from its directory; raised when the bytes of that tar would change, and
/// [`crate::COMPATIBILITY`] with it.
pub(crate) const ENCODING: i64 = 1;
/// The encoding of layers that came as a tar: their diff id is that of bytes somebody else wrote.
pub(crate) const FOREIGN: i64 = 0;

/// A layer's identity within one store. Two layers may well stand for the same tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub(crate) i64);

impl LayerId {
    /// The number as records of other crates keep it.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// A leased layer: as long as a handle lives, neither the row nor the files behind it go away.
#[derive(Clone, Debug)]
pub struct Layer(Arc<LayerInner>);

#[derive(Debug)]
struct LayerInner {
    store: Store,
    _lease: Lease,
    id: LayerId,
    diff_id: DiffId,
    foreign: bool,
    epoch: Option<i64>,
    tar_size: Option<u64>,
    content: Option<ContentDigest>,
    /// Read once: what is unpacked stays as it is while somebody holds a handle to it.
    unpacked: OnceLock<OnDisk>,
}

/// Where an unpacked layer is, and what it leaves to the layers below it, as its row has it.
#[derive(Debug)]
struct OnDisk {
    dir: String,
    unsettled: Option<String>,
}

impl Layer {
    pub fn id(&self) -> LayerId {
        self.0.id
    }

    pub fn diff_id(&self) -> DiffId {
        self.0.diff_id
    }

    /// Bytes of the uncompressed tar; none while a layer of a registry has not been here.
    pub fn tar_size(&self) -> Option<u64> {
        self.0.tar_size
    }

    /// Whether the tar was written elsewhere: writing it anew from the directory need not give the same bytes.
    pub fn is_foreign(&self) -> bool {
        self.0.foreign
    }

    /// No time in the tar is later than this, in seconds since 1970.
    pub(crate) fn epoch(&self) -> Option<i64> {
        self.0.epoch
    }

    pub(crate) fn content(&self) -> Option<ContentDigest> {
        self.0.content
    }

    /// When the layer was made or first heard of, in seconds since 1970.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn created(&self) -> Result<i64> {
        let db = self.0.store.db();
        db.prepare_cached("SELECT created FROM layers WHERE id = ?1")
            .and_then(|mut s| s.query_row([self.0.id.0], |row| row.get(0)))
            .map_err(Error::db("looking up a layer"))
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The directory with the layer's files, in overlayfs's own form. Fetches and unpacks what is absent, once,
    /// whichever process asks first.
    ///
    /// # Errors
    /// When the layer can't be had, or is not what its digest says.
    pub fn dir(&self, cancel: &Cancel) -> Result<OwnedFd> {
        match self.unpacked()? {
            Some(dir) => Ok(dir),
            None => ensure::unpack(self, cancel),
        }
    }

    /// Unpacks the layer from a stream that its caller has, plain or compressed. Where it is unpacked already, the
    /// stream is only verified.
    ///
    /// # Errors
    /// When the stream is not this layer's tar; the layer is then as it was.
    pub fn unpack_from(&self, tar: impl std::io::Read + Send + 'static, cancel: &Cancel) -> Result<()> {
        ensure::unpack_from(self, Box::new(tar), cancel)
    }

    /// The directory, if the layer is unpacked already.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn unpacked(&self) -> Result<Option<OwnedFd>> {
        self.on_disk()?.map(|on_disk| open_layer(&self.0.store, &on_disk.dir)).transpose()
    }

    /// Whether the layer is unpacked already.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_here(&self) -> Result<bool> {
        Ok(self.on_disk()?.is_some())
    }

    /// Whether it is what a failed step left, whose bytes nobody has looked at.
    pub(crate) fn is_unread(&self) -> Result<bool> {
        Ok(self.on_disk()?.is_some_and(|on_disk| unread(&on_disk.dir) == self.0.diff_id))
    }

    fn on_disk(&self) -> Result<Option<&OnDisk>> {
        if self.0.unpacked.get().is_none() {
            let db = self.0.store.db();
            let (dir, unsettled): (Option<String>, _) = db
                .prepare_cached("SELECT dir, unsettled FROM layers WHERE id = ?1")
                .and_then(|mut s| s.query_row([self.0.id.0], |row| Ok((row.get(0)?, row.get(1)?))))
                .map_err(Error::db("looking up a layer"))?;
            let Some(dir) = dir else { return Ok(None) };
            let _ = self.0.unpacked.set(OnDisk { dir, unsettled });
        }
        Ok(self.0.unpacked.get())
    }
}

impl Store {
    /// Handles to layers by number, bottom first. None if one of them is gone.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub fn layers(&self, ids: &[LayerId]) -> Result<Option<Vec<Layer>>> {
        let lease = self.lease()?;
        self.take("taking layers", &lease, |tx| self.leased(tx, &lease, ids))
    }

    /// The part of [`Store::layers`] inside a transaction: what is looked up is held before it can be collected.
    pub(crate) fn leased(
        &self,
        db: &rusqlite::Connection,
        lease: &Lease,
        ids: &[LayerId],
    ) -> rusqlite::Result<Option<Vec<Layer>>> {
        let mut select = db.prepare_cached(
            "SELECT id, diff_id, encoding, tar_size, content, epoch FROM layers WHERE id = ?1",
        )?;
        let mut layers = Vec::with_capacity(ids.len());
        for id in ids {
            match select.query_row([id.0], |row| self.read_layer(row, lease)).optional()? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        lease.hold(ids);
        Ok(Some(layers))
    }

    /// The layer of a registry or archive that has this diff id; made, absent, if there is none.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub fn foreign_layer(&self, diff_id: DiffId, blob: Option<&LayerBlob>) -> Result<Layer> {
        let lease = self.lease()?;
        let layers =
            self.write("recording a layer", |tx| {
                let found: Option<i64> = tx
                    .prepare_cached("SELECT id FROM layers WHERE diff_id = ?1 AND encoding = ?2")?
                    .query_row(rusqlite::params![diff_id.to_string(), FOREIGN], |row| row.get(0))
                    .optional()?;
                let id =
                    match found {
                        Some(id) => id,
                        None => {
                            tx.prepare_cached(
                        "INSERT INTO layers (diff_id, encoding, created, boot) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(rusqlite::params![diff_id.to_string(), FOREIGN, now(), self.boot()])?;
                            tx.last_insert_rowid()
                        }
                    };
                if let Some(blob) = blob {
                    insert_blob(tx, LayerId(id), blob, self.boot())?;
                }
                self.leased(tx, &lease, &[LayerId(id)])
            })?;
        Ok(layers.and_then(|mut l| l.pop()).expect("the row was made in the same transaction"))
    }

    fn read_layer(&self, row: &Row<'_>, lease: &Lease) -> rusqlite::Result<Layer> {
        let diff_id: String = row.get(1)?;
        let content: Option<[u8; 32]> = row.get(4)?;
        let diff_id = diff_id.parse::<Digest>().map_err(|e| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e))
        })?;
        Ok(Layer(Arc::new(LayerInner {
            store: self.clone(),
            _lease: lease.clone(),
            id: LayerId(row.get(0)?),
            diff_id: DiffId(diff_id),
            foreign: row.get::<_, i64>(2)? == FOREIGN,
            tar_size: row.get(3)?,
            epoch: row.get(5)?,
            content: content.map(ContentDigest),
            unpacked: OnceLock::new(),
        })))
    }
}

/// In place of the diff id of a layer that was not read: that of its directory's name, which no content has.
fn unread(dir: &str) -> DiffId {
    DiffId(Digest::of(dir.as_bytes()))
}

fn open_layer(store: &Store, name: &str) -> Result<OwnedFd> {
    let path = format!("layers/{name}");
    rustix::fs::openat(
        store.dir(),
        &path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Error::io("opening layer", store.path().join(path)))
}

/// A stack of layers, bottom first: the result of a vertex, the root of a container. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    layers: Arc<Vec<Layer>>,
    content: Option<ContentDigest>,
}

impl Snapshot {
    /// The layers of an image. Their content is told by their diff ids alone: no byte is read.
    pub fn of_image(layers: Vec<Layer>) -> Snapshot {
        let diff_ids: Vec<DiffId> = layers.iter().map(Layer::diff_id).collect();
        let content = ChainId::of(&diff_ids).map(ContentDigest::of_chain_id);
        Snapshot { layers: Arc::new(layers), content }
    }

    /// A stack whose content was recorded with it.
    pub fn recorded(layers: Vec<Layer>, content: Option<ContentDigest>) -> Snapshot {
        Snapshot { layers: Arc::new(layers), content }
    }

    /// This stack with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: Layer) -> Snapshot {
        let known = self.content.is_some() || self.layers.is_empty();
        let content = layer.content().filter(|_| known).map(|diff| ContentDigest::chain(self.content, diff));
        let mut layers = self.layers.as_ref().clone();
        layers.push(layer);
        Snapshot { layers: Arc::new(layers), content }
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// None for the empty stack.
    pub fn content(&self) -> Option<ContentDigest> {
        self.content
    }

    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(Layer::diff_id).collect()
    }

    /// The directories to stack, bottom first, all of them unpacked; with the small ones in between that settle what
    /// a layer's tar left to the layers below it.
    ///
    /// # Errors
    /// When a layer can't be had.
    pub fn dirs(&self, cancel: &Cancel) -> Result<Vec<OwnedFd>> {
        Ok(stack::dirs(self, cancel)?.into_iter().map(|(dir, _)| dir).collect())
    }

    /// Reads the stack without mounting it.
    ///
    /// # Errors
    /// When a layer can't be had.
    pub fn tree(&self, cancel: &Cancel) -> Result<Tree> {
        Ok(Tree::of_layers(stack::dirs(self, cancel)?))
    }
}

/// The columns of a layer that is unpacked.
pub(crate) struct Unpacked<'a> {
    pub(crate) dir: &'a str,
    pub(crate) tar_size: u64,
    pub(crate) content: Option<ContentDigest>,
    pub(crate) epoch: Option<i64>,
}

impl Unpacked<'_> {
    /// Records a new layer of our own writing.
    pub(crate) fn insert(&self, store: &Store, diff_id: DiffId) -> Result<Layer> {
        let lease = store.lease()?;
        let layers = store.write("recording a layer", |tx| {
            tx.prepare_cached(
                "INSERT INTO layers (diff_id, encoding, tar_size, content, dir, created, boot, dir_boot, epoch)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
            )?
            .execute(rusqlite::params![
                diff_id.to_string(),
                ENCODING,
                self.tar_size,
                self.content.map(|c| c.0),
                self.dir,
                now(),
                store.boot(),
                self.epoch
            ])?;
            store.leased(tx, &lease, &[LayerId(tx.last_insert_rowid())])
        })?;
        Ok(layers.and_then(|mut l| l.pop()).expect("the row was made in the same transaction"))
    }
}
