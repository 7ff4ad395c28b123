//! `--cache-from` and `--cache-to`, in the forms of buildx.

use std::path::PathBuf;

use boxwright_cache::record::exported::Target;

use super::fields::Fields;
use crate::engine::{CacheFrom, CacheMode, CacheTo, reference};
use crate::error::{Error, Result};

const LATEST: &str = "latest";

/// A cache to take results from: `type=registry,ref=…`, `type=local,src=…`, or just the name of an image.
pub(crate) fn from(text: &str) -> Result<CacheFrom> {
    let Some(mut fields) = Fields::read(text, "--cache-from")? else {
        return Ok(CacheFrom::Registry(reference(text)?));
    };
    let cache = match fields.kind()?.as_str() {
        "registry" => CacheFrom::Registry(reference(&fields.required("ref")?)?),
        "local" => {
            let dir = PathBuf::from(fields.required("src")?);
            let tag = fields.take("tag").unwrap_or_else(|| LATEST.to_owned());
            let digest = fields.take("digest").map(|digest| digest.parse()).transpose()?;
            CacheFrom::Layout { dir, tag, digest }
        }
        kind => return Err(Error::Later(format!("a cache of type {kind:?}"))),
    };
    fields.finish().map(|()| cache)
}

/// A cache that gets results: `type=registry,ref=…`, `type=local,dest=…`, `type=inline`, or just the name of an image.
pub(crate) fn to(text: &str) -> Result<CacheTo> {
    let Some(mut fields) = Fields::read(text, "--cache-to")? else {
        let target = Target::Registry(reference(text)?);
        return Ok(CacheTo::To { target, mode: CacheMode::Min, image_manifest: true });
    };
    let kind = fields.kind()?;
    let target = match kind.as_str() {
        "inline" => None,
        "registry" => Some(Target::Registry(reference(&fields.required("ref")?)?)),
        "local" => {
            let dir = PathBuf::from(fields.required("dest")?);
            Some(Target::Layout { dir, tag: fields.take("tag").unwrap_or_else(|| LATEST.to_owned()) })
        }
        kind => return Err(Error::Later(format!("a cache of type {kind:?}"))),
    };
    let mode = match fields.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") if target.is_some() => CacheMode::Max,
        Some("auto") if target.is_some() => CacheMode::Auto,
        Some(mode) => return Err(fields.invalid(&format!("mode {mode:?}"))),
    };
    let image_manifest = fields.boolean("image-manifest")?.unwrap_or(true);
    // What all of ours are: a cache with another media type than OCI's is not written.
    if fields.boolean("oci-mediatypes")? == Some(false) {
        return Err(Error::Later("oci-mediatypes=false".to_owned()));
    }
    // A cache that can't be written never fails a build.
    if fields.boolean("ignore-error")? == Some(false) {
        return Err(Error::Later("ignore-error=false".to_owned()));
    }
    fields.finish()?;
    Ok(target.map_or(CacheTo::Inline, |target| CacheTo::To { target, mode, image_manifest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_or_refused_by_name() {
        let name = |text: &str| reference(text).unwrap();
        assert_eq!(from("host/a:b").unwrap(), CacheFrom::Registry(name("host/a:b")));
        assert_eq!(from("type=registry,ref=host/a").unwrap(), CacheFrom::Registry(name("host/a")));
        let local = CacheFrom::Layout { dir: "/x".into(), tag: "t".into(), digest: None };
        assert_eq!(from("type=local,src=/x,tag=t").unwrap(), local);
        let registry = |mode, image_manifest| CacheTo::To {
            target: Target::Registry(name("h/a")),
            mode,
            image_manifest,
        };
        assert_eq!(to("h/a").unwrap(), registry(CacheMode::Min, true));
        assert_eq!(
            to("type=registry,ref=h/a,mode=max,image-manifest=false").unwrap(),
            registry(CacheMode::Max, false)
        );
        assert_eq!(
            to("type=registry,ref=h/a,mode=auto,ignore-error=true").unwrap(),
            registry(CacheMode::Auto, true)
        );
        assert_eq!(to("type=inline").unwrap(), CacheTo::Inline);
        for (text, words) in [
            ("type=gha", "a cache of type \"gha\" is not supported yet"),
            ("ref=a", "type is required"),
            ("type=registry", "ref is required"),
            ("type=local,dest=", "dest is required"),
            ("type=inline,mode=max", "mode \"max\""),
            ("type=registry,ref=a,mode=x", "mode \"x\""),
            (
                "type=registry,ref=a,compression=zstd",
                "option \"compression\" of --cache-to is not supported yet",
            ),
            ("type=registry,ref=a,image-manifest=perhaps", "truth value"),
            ("type=registry,ref=a,ignore-error=false", "ignore-error=false is not supported yet"),
        ] {
            let error = to(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
