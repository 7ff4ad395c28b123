//! `-o`, in the forms of buildx.

use std::path::{Path, PathBuf};

use boxwright_cache::export::Format;
use boxwright_cache::image::form::Wish;
use boxwright_cache::layer::compress::Packing;
use boxwright_cache::oci::Reference;

use super::fields::Fields;
use boxwright_cache::image::Shape;

use crate::engine::{ImageOptions, Output, reference};
use crate::error::{Error, Result};

/// All outputs of a build with these tags. Only one of them can be standard output.
pub(crate) fn parse(texts: &[String], push: bool, load: bool, tags: &[Reference]) -> Result<Vec<Output>> {
    let mut outputs: Vec<Output> = texts.iter().map(|text| output(text)).collect::<Result<_>>()?;
    let has_image = outputs.iter().any(|output| matches!(output, Output::Image { .. }));
    if (push || load) && !has_image {
        outputs.push(Output::Image { names: Vec::new(), push, how: ImageOptions::default() });
    }
    for output in &mut outputs {
        let Output::Image { names, push: pushes, how } = output else { continue };
        *pushes |= push;
        // What was named without a tag has this one.
        let mut named = if tags.is_empty() { names.iter() } else { tags.iter() };
        if let Some(tagged) = named.find(|name| how.by_digest && name.tag() != Some("latest")) {
            return Err(Error::invalid(format!("can't push tagged ref {tagged} by digest")));
        }
        if *pushes && names.is_empty() && tags.is_empty() {
            return Err(Error::invalid("tag is needed when pushing to registry"));
        }
    }
    if outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
        return Err(Error::invalid("only one output can be standard output"));
    }
    Ok(outputs)
}

/// A directory, `-` for a tar on standard output, or `type=KIND,NAME=VALUE`.
fn output(text: &str) -> Result<Output> {
    if text == "-" {
        return Ok(Output::Tar(None));
    }
    // As buildx has it: one field that names no type is a directory, whatever it looks like.
    let is_path = !text.contains(',') && !text.starts_with("type=");
    let Some(mut fields) = Fields::read(text, "--output")?.filter(|_| !is_path) else {
        return directory(text.to_owned(), "local").map(Output::Local);
    };
    let kind = fields.kind()?;
    let output = match kind.as_str() {
        "local" => {
            let dest = fields.take("dest").filter(|dest| !dest.is_empty());
            let dest = dest.ok_or_else(|| Error::invalid("dest is required for local exporter"))?;
            in_one_place(&mut fields)?;
            Output::Local(directory(dest, &kind)?)
        }
        "tar" => {
            in_one_place(&mut fields)?;
            Output::Tar(file(&mut fields, &kind)?)
        }
        "image" | "registry" => image(&mut fields, kind == "registry")?,
        // Docker's engine is our store.
        "docker" if !fields.has("dest") => image(&mut fields, false)?,
        "oci" | "docker" => archive(&mut fields, &kind)?,
        "cacheonly" => Output::CacheOnly,
        kind => return Err(Error::Later(format!("the output type {kind:?}"))),
    };
    fields.finish().map(|()| output)
}

fn image(fields: &mut Fields<'_>, push: bool) -> Result<Output> {
    let names = names(fields)?;
    let push = fields.boolean("push")?.unwrap_or(push);
    let shape = Shape { wish: wish(fields)?, docker_types: docker_types(fields)? };
    let by_digest = fields.boolean("push-by-digest")? == Some(true);
    let canonical = fields.boolean("name-canonical")? == Some(true);
    let dangling = fields.take("dangling-name-prefix").filter(|prefix| !prefix.is_empty());
    let dangling = dangling.map(|prefix| reference(&prefix)).transpose()?;
    as_it_is(fields, "store", true)?;
    as_it_is(fields, "unpack", false)?;
    // What SOURCE_DATE_EPOCH asks for is always done.
    as_it_is(fields, "rewrite-timestamp", true)?;
    Ok(Output::Image { names, push, how: ImageOptions { shape, by_digest, canonical, dangling } })
}

fn archive(fields: &mut Fields<'_>, kind: &str) -> Result<Output> {
    let is_layout = fields.boolean("tar")? == Some(false);
    if is_layout && kind != "oci" {
        return Err(Error::Later(format!("tar=false of type={kind}")));
    }
    as_it_is(fields, "rewrite-timestamp", true)?;
    let (docker, docker_types) = (kind == "docker", docker_types(fields)?);
    let format = Format { docker, wish: wish(fields)?.unwrap_or_default(), docker_types };
    if is_layout {
        let dest = fields.take("dest").filter(|dest| !dest.is_empty());
        let dest = dest.ok_or_else(|| Error::invalid("dest is required for oci exporter with tar=false"))?;
        return Ok(Output::Layout { format, names: names(fields)?, dest: directory(dest, kind)? });
    }
    Ok(Output::Archive { format, names: names(fields)?, dest: file(fields, kind)? })
}

fn docker_types(fields: &mut Fields<'_>) -> Result<bool> {
    Ok(fields.boolean("oci-mediatypes")? == Some(false))
}

/// How layers are to be compressed, if anything is said of that.
fn wish(fields: &mut Fields<'_>) -> Result<Option<Wish>> {
    let (kind, level) = (fields.take("compression"), fields.take("compression-level"));
    let force = fields.boolean("force-compression")?;
    if kind.is_none() && level.is_none() && force.is_none() {
        return Ok(None);
    }
    let level_below = |most: u8| match &level {
        None => Ok(None),
        Some(text) => match text.parse::<u8>() {
            Ok(level) if level <= most => Ok(Some(level)),
            _ => Err(fields.invalid(&format!("compression-level is a number from 0 to {most}"))),
        },
    };
    let packing = match kind.as_deref() {
        None | Some("gzip") => level_below(9)?.map_or(Packing::GZIP, Packing::Gzip),
        // As for the format's own tool, 0 is the default.
        Some("zstd") => level_below(22)?.filter(|level| *level > 0).map_or(Packing::ZSTD, Packing::Zstd),
        Some("uncompressed") if level.is_some() => {
            return Err(fields.invalid("what is uncompressed has no compression-level"));
        }
        Some("uncompressed") => Packing::Plain,
        Some("estargz") => return Err(Error::Later("compression=estargz".to_owned())),
        Some(_) => return Err(fields.invalid("compression is gzip, zstd or uncompressed")),
    };
    Ok(Some(Wish { packing, force: force == Some(true) }))
}

/// In `name`: several are separated by commas.
fn names(fields: &mut Fields<'_>) -> Result<Vec<Reference>> {
    let text = fields.take("name").unwrap_or_default();
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(reference).collect()
}

/// An option that has only one value so far.
fn as_it_is(fields: &mut Fields<'_>, name: &str, value: bool) -> Result<()> {
    match fields.boolean(name)? {
        Some(other) if other != value => Err(Error::Later(format!("{name}={other}"))),
        _ => Ok(()),
    }
}

/// A build has one platform so far, which gets no directory of its own unless that is asked for.
fn in_one_place(fields: &mut Fields<'_>) -> Result<()> {
    as_it_is(fields, "platform-split", false)
}

fn directory(dest: String, kind: &str) -> Result<PathBuf> {
    if dest == "-" {
        return Err(Error::invalid(format!("dest cannot be stdout for {kind} exporter")));
    }
    if Path::new(&dest).is_file() {
        return Err(Error::invalid(format!("destination directory {dest} is a file")));
    }
    Ok(dest.into())
}

/// The file in `dest`; none for standard output.
fn file(fields: &mut Fields<'_>, kind: &str) -> Result<Option<PathBuf>> {
    let dest = fields.take("dest").filter(|dest| !dest.is_empty() && dest != "-");
    match dest {
        Some(dest) if Path::new(&dest).is_dir() => {
            Err(Error::invalid(format!("destination file {dest} is a directory")))
        }
        Some(dest) => Ok(Some(dest.into())),
        None if rustix::termios::isatty(std::io::stdout()) => Err(Error::invalid(format!(
            "dest file is required for {kind} exporter. refusing to write to console"
        ))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Output {
        let mut outputs = parse(&[text.to_owned()], false, false, &[]).unwrap();
        assert_eq!(outputs.len(), 1);
        outputs.remove(0)
    }

    #[track_caller]
    fn refused(texts: &[&str], words: &str) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let error = parse(&texts, false, false, &[]).unwrap_err().to_string();
        assert!(error.contains(words), "{texts:?}: {error}");
    }

    #[test]
    fn files_and_directories() {
        assert_eq!(one("out"), Output::Local("out".into()));
        assert_eq!(one("dest=x"), Output::Local("dest=x".into()));
        assert_eq!(one("type=local,dest=a/b,platform-split=false"), Output::Local("a/b".into()));
        assert_eq!(one("\"dest=a,b\",type=local"), Output::Local("a,b".into()));
        assert_eq!(one("dest=/x/y.tar,type=tar"), Output::Tar(Some("/x/y.tar".into())));
        assert_eq!(one("type=cacheonly"), Output::CacheOnly);
    }

    fn image(name: &str, push: bool) -> Output {
        Output::Image { names: vec![reference(name).unwrap()], push, how: ImageOptions::default() }
    }

    #[test]
    fn images() {
        assert_eq!(one("type=image,name=h/a:1"), image("h/a:1", false));
        assert_eq!(
            one("type=image,name=h/a,push=true,oci-mediatypes=true,push-by-digest=false,store=true"),
            image("h/a", true)
        );
        assert_eq!(one("type=registry,name=h/a"), image("h/a", true));
        assert_eq!(
            one("type=docker"),
            Output::Image { names: Vec::new(), push: false, how: ImageOptions::default() }
        );
        let Output::Image { names, .. } = one("type=image,\"name=a,b\"") else { panic!("an image") };
        assert_eq!(names, [reference("a").unwrap(), reference("b").unwrap()]);
    }

    #[test]
    fn archives() {
        let archive = |docker, packing, force, dest: &str, names| Output::Archive {
            format: Format { docker, wish: Wish { packing, force }, docker_types: false },
            dest: Some(dest.into()),
            names,
        };
        assert_eq!(
            one("type=oci,dest=x.tar,tar=true"),
            archive(false, Packing::GZIP, false, "x.tar", Vec::new())
        );
        let named = archive(true, Packing::Plain, false, "x", vec![reference("a:1").unwrap()]);
        assert_eq!(one("type=docker,dest=x,name=a:1,compression=uncompressed"), named);
        let Output::Layout { dest, .. } = one("type=oci,dest=x,tar=false") else { panic!("a layout") };
        assert_eq!(dest, Path::new("x"));
        refused(&["type=docker,dest=x,tar=false"], "tar=false of type=docker is not supported yet");
        refused(&["type=oci,tar=false"], "dest is required for oci exporter with tar=false");
        refused(&["type=oci,tar=false,dest=/etc/passwd"], "/etc/passwd is a file");
        for (options, packing, force) in [
            ("compression=zstd", Packing::ZSTD, false),
            ("compression=zstd,compression-level=19,force-compression=true", Packing::Zstd(19), true),
            ("compression-level=0", Packing::Gzip(0), false),
            ("force-compression=true", Packing::GZIP, true),
        ] {
            let text = format!("type=oci,dest=x,{options}");
            assert_eq!(one(&text), archive(false, packing, force, "x", Vec::new()), "{options}");
        }
        for (options, words) in [
            ("compression=estargz", "compression=estargz is not supported yet"),
            ("compression=lzma", "compression is gzip, zstd or uncompressed"),
            ("compression-level=10", "compression-level is a number from 0 to 9"),
            ("compression=zstd,compression-level=fast", "compression-level is a number from 0 to 22"),
            ("compression=uncompressed,compression-level=1", "has no compression-level"),
            ("force-compression=perhaps", "force-compression is a truth value"),
        ] {
            refused(&[&format!("type=oci,dest=x,{options}")], words);
        }
    }

    #[test]
    fn push_and_load_join_what_there_is() {
        let tags = [reference("t").unwrap()];
        let parsed = |text: &str, push, load| parse(&[text.to_owned()], push, load, &tags).unwrap();
        let unnamed = |push| Output::Image { names: Vec::new(), push, how: ImageOptions::default() };
        assert_eq!(parsed("type=image", true, false), [unnamed(true)]);
        assert_eq!(parsed("out", true, true), [Output::Local("out".into()), unnamed(true)]);
        assert_eq!(parsed("out", false, true), [Output::Local("out".into()), unnamed(false)]);
        assert_eq!(parse(&[], false, false, &tags).unwrap(), []);
        assert!(parse(&[], true, false, &[]).unwrap_err().to_string().contains("tag is needed"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        refused(&["type=local"], "dest is required for local exporter");
        refused(&["type=local,dest=-"], "dest cannot be stdout for local exporter");
        refused(&["type=local,dest=/dev/../etc/passwd"], "/etc/passwd is a file");
        refused(&["type=tar,dest=/"], "destination file / is a directory");
        refused(&["type=local,dest=x,platform-split=true"], "platform-split=true is not supported yet");
        refused(&["type=tar,dest=x,compression=zstd"], "\"compression\" of --output is not supported yet");
        refused(&["type=nix,dest=x"], "output type \"nix\" is not supported yet");
        refused(&["type=image,store=false"], "store=false is not supported yet");
        refused(&["type=oci,dest=x,rewrite-timestamp=false"], "rewrite-timestamp=false is not supported yet");
        refused(&["type=image,dangling-name-prefix=A"], "invalid reference");
        refused(&["type=image,annotation.a=b"], "\"annotation.a\" of --output is not supported yet");
        refused(&["type=image,name=a:1,push-by-digest=true"], "can't push tagged ref docker.io/library/a:1");
        refused(&["type=image,push=true"], "tag is needed when pushing to registry");
        refused(&["a=x,dest=x"], "type is required");
        refused(&["-", "-"], "only one output can be standard output");
    }
}
