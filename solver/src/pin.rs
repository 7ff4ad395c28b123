//! First pass: every source gets a fixed identity. Images have theirs already; a local source is told by the content
//! of what it selects.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use boxwright_cache::digest::ContentDigest;
use boxwright_cache::snapshot::Snapshot;

use crate::error::{SolveError, VertexError};
use crate::event::Event;
use crate::ir::{Definition, ImageSource, LocalSource, Op, SourceOp, VertexId};
use crate::{Env, Material};

/// A source whose identity is settled.
#[derive(Clone, Debug)]
pub(crate) enum Pin {
    Image(Snapshot),
    Local(ContentDigest),
}

#[derive(Debug, Default)]
pub(crate) struct Pins {
    pub(crate) of: HashMap<VertexId, Pin>,
    pub(crate) materials: Vec<Material>,
}

pub(crate) fn pin(definition: &Definition, needed: &[VertexId], env: &Env<'_>) -> Result<Pins, SolveError> {
    let mut pins = Pins::default();
    for &id in needed {
        let Op::Source(source) = &definition.vertex(id).op else { continue };
        let (pin, material) = match source {
            SourceOp::Image(image) => {
                pin_image(image, env).map_err(|error| SolveError::Vertex { vertex: id, error })?
            }
            SourceOp::Local(local) => pin_local(id, local, env)?,
        };
        pins.of.insert(id, pin);
        if !pins.materials.contains(&material) {
            pins.materials.push(material);
        }
    }
    Ok(pins)
}

fn pin_image(image: &ImageSource, env: &Env<'_>) -> Result<(Pin, Material), VertexError> {
    let unknown = || VertexError::Unknown { what: "image", name: image.name.clone() };
    let snapshot = env.images.get(&image.manifest).ok_or_else(unknown)?.clone();
    let material = Material::Image {
        name: image.name.clone(),
        manifest: image.manifest,
        platform: image.platform.clone(),
    };
    Ok((Pin::Image(snapshot), material))
}

fn pin_local(id: VertexId, local: &LocalSource, env: &Env<'_>) -> Result<(Pin, Material), SolveError> {
    let (at, started) = (SystemTime::now(), Instant::now());
    let _ = env.events.send(Event::Started { vertex: id, at });
    match crate::ops::file::digest_local(local, env) {
        Ok(content) => {
            let _ = env.events.send(Event::Finished { vertex: id, took: started.elapsed() });
            Ok((Pin::Local(content), Material::Local { name: local.name.clone(), content }))
        }
        Err(error) if error.is_cancelled() => Err(SolveError::Cancelled),
        Err(error) => {
            let message = error.to_string();
            let _ = env.events.send(Event::Failed { vertex: id, took: started.elapsed(), message });
            Err(SolveError::Vertex { vertex: id, error })
        }
    }
}
