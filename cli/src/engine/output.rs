//! Where the result of a build goes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use boxwright_cache as cache;
use cache::Digest;
use cache::export::{Format, Place, Root};
use cache::image::{Annotations, Destination, Documents, Product, PushEvent, Shape, Sources};
use cache::oci::descriptor::MediaType;
use cache::oci::{Descriptor, History, Platform, Reference};
use cache::record::{Member, Stored};

use serde_json::{Value, json};

use super::Engine;
use super::build::{BuildRequest, step};
use crate::error::{Error, Result};
use crate::progress::{Note, Watch};

/// What standard output is called in an error; a file that it goes to is found there.
pub(crate) const STDOUT: &str = "/dev/stdout";

/// A place for the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The root file system as files in this directory. Each platform has a directory there if it is `split`, which is
    /// so for several unless something else was said.
    Local { dest: PathBuf, split: Option<bool> },
    /// The root file system as a tar, in this file or (none) on standard output; `split` as above.
    Tar { dest: Option<PathBuf>, split: Option<bool> },
    /// The image in the store and, with `push`, in the registries of its names. The names are those of the build if it
    /// has any.
    Image { names: Vec<Reference>, push: bool, how: ImageOptions },
    /// The image as an archive, in this file or (none) on standard output.
    Archive { format: Format, dest: Option<PathBuf>, names: Vec<Reference> },
    /// The image as an OCI layout in this directory.
    Layout { format: Format, dest: PathBuf, names: Vec<Reference> },
    /// Nowhere: what was built is found again by later builds.
    CacheOnly,
}

impl Output {
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Output::Tar { dest: None, .. } | Output::Archive { dest: None, .. })
    }

    /// Those of an image in any form.
    pub(crate) fn annotations(&self) -> Option<&Annotations> {
        match self {
            Output::Image { how, .. } => Some(&how.shape.annotations),
            Output::Archive { format, .. } | Output::Layout { format, .. } => Some(&format.annotations),
            Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => None,
        }
    }

    fn has_layers(&self) -> bool {
        matches!(self, Output::Image { .. } | Output::Archive { .. } | Output::Layout { .. })
    }
}

/// How an image is kept and pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    pub shape: Shape,
    /// Under its digest alone: neither here nor in a registry does a tag become its name.
    pub by_digest: bool,
    /// Also under its names with its digest.
    pub canonical: bool,
    /// The repository with which its digest is its name if it has no other.
    pub dangling: Option<Reference>,
}

/// The image that came of a build.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// Of an index its own digest.
    pub id: Digest,
    /// As it is where the image went; that of a registry before others.
    pub manifest: Descriptor,
    names: Vec<String>,
    pushed: bool,
}

impl BuiltImage {
    /// What buildx's `--metadata-file` tells of it.
    pub(crate) fn metadata(&self) -> Value {
        let mut told = json!({
            "containerimage.descriptor": self.manifest,
            "containerimage.digest": self.manifest.digest,
        });
        if self.manifest.kind() != MediaType::Index {
            told["containerimage.config.digest"] = json!(self.id);
        }
        if !self.names.is_empty() {
            told["image.name"] = self.names.join(",").into();
        }
        told
    }
}

/// What all outputs are made of.
struct Exporter<'a> {
    engine: &'a Engine,
    /// What was built, with files as steps left them.
    products: &'a [Product],
    /// The same with the layers of images.
    images: &'a [Product],
    epoch: Option<i64>,
    tags: &'a [Reference],
    watch: &'a dyn Watch,
}

/// Refuses before anything runs what can't be made for these platforms.
pub(super) fn check(outputs: &[Output], platforms: &[Platform]) -> Result<()> {
    for output in outputs {
        if let Some(annotations) = output.annotations() {
            annotations.check(platforms)?;
        }
        let (Output::Archive { format, .. } | Output::Layout { format, .. }) = output else { continue };
        if format.docker && platforms.len() > 1 {
            return Err(Error::invalid(
                "docker exporter does not currently support exporting manifest lists; \
                 -o type=oci writes an archive with all platforms",
            ));
        }
    }
    Ok(())
}

/// Brings the result to all outputs, or to the store when there is none.
pub(super) fn export(
    engine: &Engine,
    products: &[Product],
    epoch: Option<i64>,
    request: &BuildRequest,
    watch: &dyn Watch,
) -> Result<Option<BuiltImage>> {
    let has_layers = request.outputs.is_empty() || request.outputs.iter().any(Output::has_layers);
    let images = if has_layers { &layered(engine, products, epoch, request, watch)? } else { products };
    let exporter = Exporter { engine, products, images, epoch, tags: &request.tags, watch };
    if request.outputs.is_empty() {
        return exporter.image(&[], false, &ImageOptions::default()).map(Some);
    }
    let mut built: Option<BuiltImage> = None;
    for output in &request.outputs {
        if let Some(image) = exporter.export(output)?
            && built.as_ref().is_none_or(|built| !built.pushed)
        {
            built = Some(image);
        }
    }
    Ok(built)
}

/// The same with the layers of images: one above the base if they are to be squashed, and none later than `epoch`.
pub(super) fn layered(
    engine: &Engine,
    products: &[Product],
    epoch: Option<i64>,
    request: &BuildRequest,
    watch: &dyn Watch,
) -> Result<Vec<Product>> {
    let squashed = match request.squash {
        true => &step(watch, "squashing layers", || {
            products.iter().map(|product| squashed(engine, product)).collect::<Result<Vec<_>>>()
        })?,
        false => products,
    };
    epoch.map_or(Ok(squashed.to_vec()), |epoch| dated(engine, squashed, epoch, watch))
}

/// All layers above the base as one. The history says so as docker does: what the instructions made is in its last entry.
fn squashed(engine: &Engine, product: &Product) -> Result<Product> {
    let (mut config, base) = (product.config.clone(), product.config.rootfs.diff_ids.len());
    let new = product.files.layers().len().saturating_sub(base);
    if new < 2 {
        return Ok(product.clone());
    }
    let files = product.files.squashed(base, &engine.cancel)?;
    config
        .history
        .iter_mut()
        .rev()
        .filter(|step| !step.empty_layer)
        .take(new)
        .for_each(|step| step.empty_layer = true);
    let comment = format!("merge of {new} layers");
    config.history.push(History { created: config.created.clone(), comment, ..History::default() });
    Ok(Product { config, files, ..product.clone() })
}

/// The same with layers whose tars have no time later than `epoch`.
fn dated(engine: &Engine, products: &[Product], epoch: i64, watch: &dyn Watch) -> Result<Vec<Product>> {
    step(watch, "rewriting layers with SOURCE_DATE_EPOCH", || {
        let at = |product: &Product| {
            // The config still has the diff ids of the base alone.
            let base = product.config.rootfs.diff_ids.len();
            let files = product.files.until(epoch, base, &engine.cancel)?;
            Ok(Product { files, ..product.clone() })
        };
        products.iter().map(at).collect()
    })
}

impl Exporter<'_> {
    fn export(&self, output: &Output) -> Result<Option<BuiltImage>> {
        let Exporter { engine, epoch, watch, .. } = *self;
        match output {
            Output::Local { dest, split } => step(watch, "exporting to client directory", || {
                Ok(cache::export::local(&self.roots(*split)?, epoch, &absolute(dest)?, &engine.cancel)?)
            })?,
            Output::Tar { dest, split } => step(watch, "exporting to client tarball", || {
                let roots = self.roots(*split)?;
                written(dest.as_ref(), |out| Ok(cache::export::tar(&roots, epoch, out, &engine.cancel)?))
            })?,
            Output::Image { names, push, how } => return self.image(names, *push, how).map(Some),
            Output::Archive { format, dest, names } => {
                return self
                    .archive(format, names, |save| written(dest.as_ref(), |out| save(Place::Archive(out))));
            }
            Output::Layout { format, dest, names } => {
                let dest = &absolute(dest)?;
                return self.archive(format, names, |save| save(Place::Layout(dest)));
            }
            Output::CacheOnly => {}
        }
        Ok(None)
    }

    /// The files of each platform, below a directory that is named after it if they are `split`.
    fn roots(&self, split: Option<bool>) -> Result<Vec<Root>> {
        let split = split.unwrap_or(self.products.len() > 1);
        let root = |product: &Product| {
            let name = product.platform.to_string();
            let below = if split { name.replace('/', "_") } else { String::new() };
            Ok(Root { name, below: below.into(), tree: product.files.tree(&self.engine.cancel)? })
        };
        self.products.iter().map(root).collect()
    }

    /// The names of an output, if the build has none.
    fn names<'b>(&'b self, own: &'b [Reference]) -> &'b [Reference] {
        if self.tags.is_empty() { own } else { self.tags }
    }

    fn image(&self, own: &[Reference], push: bool, how: &ImageOptions) -> Result<BuiltImage> {
        let (names, store) = (self.names(own), &self.engine.store);
        let stored = self.assemble(if how.by_digest { &[] } else { names }, &how.shape)?;
        let missing = || Error::invalid(format!("image {} was removed meanwhile", stored.id()));
        let mut manifest = cache::image::described(&store.document(stored.manifest())?.ok_or_else(missing)?)?;
        for name in names.iter().filter(|_| push) {
            manifest = step(self.watch, &format!("pushing {name}"), || self.push(&stored, name, how))?;
        }
        manifest.annotations = how.shape.annotations.of_the_top(self.images);
        let dangling = how.dangling.iter().filter(|_| names.is_empty());
        let canonical = names.iter().filter(|_| how.canonical).chain(dangling);
        let canonical: Vec<_> = canonical.map(|name| name.by_digest(manifest.digest)).collect();
        for name in &canonical {
            store.set_name(name, stored.manifest())?;
            store.set_digest(name, stored.manifest(), &manifest.digest)?;
        }
        let told = |name: &Reference| {
            if how.by_digest && !names.is_empty() {
                format!("{}/{}", name.registry(), name.repository())
            } else {
                name.to_string()
            }
        };
        let names = if names.is_empty() { &canonical } else { names };
        let names = names.iter().map(told).collect();
        Ok(BuiltImage { id: *stored.id(), names, manifest, pushed: push })
    }

    fn assemble(&self, names: &[Reference], shape: &Shape) -> Result<Stored> {
        let Exporter { engine, images: products, watch, .. } = *self;
        step(watch, "exporting to image", || {
            let image = cache::image::assemble(&engine.store, products, names, shape, &engine.cancel)?;
            if let Stored::Index(index) = &image {
                for Member { descriptor, image } in &index.members {
                    let platform = descriptor.platform.as_ref().map(ToString::to_string).unwrap_or_default();
                    let text = format!("writing image {} for {platform} done", image.id);
                    watch.note(Note::Line { text: &text });
                }
            }
            let kind = if let Stored::Index(_) = image { "index" } else { "image" };
            watch.note(Note::Line { text: &format!("writing {kind} {} done", image.id()) });
            for name in names {
                watch.note(Note::Line { text: &format!("naming to {name} done") });
            }
            Ok(image)
        })
    }

    /// What `write` is given writes the image to a place.
    fn archive(
        &self,
        format: &Format,
        own: &[Reference],
        write: impl FnOnce(&mut dyn FnMut(Place<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<Option<BuiltImage>> {
        let Exporter { engine, images: products, watch, .. } = *self;
        let names = self.names(own);
        let kind = if format.docker { "docker" } else { "oci" };
        step(watch, &format!("exporting to {kind} image format"), || {
            let mut manifest = None;
            write(&mut |place| {
                let (store, cancel) = (&engine.store, &engine.cancel);
                manifest =
                    Some(cache::export::save_built(store, products, names, format.clone(), place, cancel)?);
                Ok(())
            })?;
            let manifest = manifest.expect("it was written");
            let id = match products {
                [only] => Documents::of(only.config.clone(), only.files.layers())?.id,
                _ => manifest.digest,
            };
            let names = names.iter().map(ToString::to_string).collect();
            Ok(Some(BuiltImage { id, manifest, names, pushed: false }))
        })
    }

    fn push(&self, image: &Stored, name: &Reference, how: &ImageOptions) -> Result<Descriptor> {
        let Exporter { engine, watch, .. } = *self;
        let sources = Sources { store: &engine.store, client: &engine.client };
        let tell = |event| {
            let text = match event {
                PushEvent::Done { layer, .. } => format!("pushing layer {layer} done"),
                PushEvent::NotKept { reason } => {
                    format!("WARNING: the digest of {name} is not kept: {reason}")
                }
                _ => return,
            };
            watch.note(Note::Line { text: &text });
        };
        let to = Destination { reference: name, wish: how.shape.wish, by_digest: how.by_digest };
        let pushed = cache::image::push(sources, image, to, &tell, &engine.cancel)?;
        watch.note(Note::Line { text: &format!("pushing manifest for {name}@{} done", pushed.digest) });
        Ok(pushed)
    }
}

/// Tells in its errors what could not be written.
pub(crate) struct Named<'a, W: ?Sized> {
    pub(crate) path: &'a Path,
    pub(crate) out: &'a mut W,
}

impl<W: Write + ?Sized> Named<'_, W> {
    fn failed(&self, source: std::io::Error) -> std::io::Error {
        let (kind, path) = (source.kind(), self.path.to_owned());
        std::io::Error::new(kind, cache::Error::Io { doing: "writing", path, source })
    }
}

impl<W: Write + ?Sized> Write for Named<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes).map_err(|e| self.failed(e))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush().map_err(|e| self.failed(e))
    }
}

/// Writes a file or (none) standard output.
fn written(dest: Option<&PathBuf>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match dest {
        None => {
            let mut out = std::io::stdout().lock();
            write(&mut Named { path: Path::new(STDOUT), out: &mut out })?;
            out.flush().map_err(Error::Output)
        }
        Some(path) => write_file(path, write),
    }
}

/// Writes a file that is there whole or not at all.
pub(crate) fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let path = &absolute(path)?;
    // A device or a pipe is written as it is; only a file can be replaced.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        let mut file = File::options().write(true).open(path).map_err(Error::io("opening", path))?;
        return write(&mut Named { path, out: &mut file });
    }
    let mut name =
        path.file_name().ok_or_else(|| Error::invalid(format!("{} is no file", path.display())))?.to_owned();
    // Processes of different containers may have the same number, and the directory in common.
    name.push(format!(".{}.part", cache::store::unique_name()?));
    let part = path.with_file_name(name);
    let mut file = File::create_new(&part).map_err(Error::io("making", &part))?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, Named { path, out: &mut file });
    let written = write(&mut out)
        .and_then(|()| out.flush().map_err(|e| cache::Error::io("writing", path)(e).into()))
        .and_then(|()| std::fs::rename(&part, path).map_err(Error::io("naming", path)));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// So that an error tells which file system it is.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("finding", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        std::fs::write(&path, "before").unwrap();
        let broken = write_file(&path, |out| {
            out.write_all(b"half").unwrap();
            Err(Error::invalid("no more"))
        });
        assert!(broken.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        // Another one that writes it meanwhile, as one in a container with the same number does, is in nobody's way.
        write_file(&path, |out| {
            write_file(&path, |out| out.write_all(b"another").map_err(Error::Output)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"another");
            out.write_all(b"whole").map_err(Error::Output)
        })
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }
}
