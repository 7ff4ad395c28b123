//! `-o`, in the forms of buildx.

use std::path::{Path, PathBuf};

use boxwright_cache::export::Format;
use boxwright_cache::image::form::Wish;
use boxwright_cache::image::{Annotation, Annotations, Shape};
use boxwright_cache::layer::compress::Packing;
use boxwright_cache::oci::Reference;

use super::annotation;
use super::fields::Fields;

use crate::engine::{ImageOptions, Output, reference};
use crate::error::{Error, Result};

/// All outputs of a build with these tags. Only one of them can be standard output.
pub(crate) fn parse(
    texts: &[String],
    (push, load): (bool, bool),
    tags: &[Reference],
    annotations: &[Annotation],
) -> Result<Vec<Output>> {
    let mut outputs: Vec<Output> = texts
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| output(text, annotations))
        .collect::<Result<_>>()?;
    let has_image = outputs.iter().any(|output| matches!(output, Output::Image { .. }));
    let is_default = outputs.is_empty() && !annotations.is_empty();
    if (push || load || is_default) && !has_image {
        let shape = Shape { annotations: Annotations(annotations.to_vec()), ..Shape::default() };
        let how = ImageOptions { shape, ..ImageOptions::default() };
        outputs.push(Output::Image { names: Vec::new(), push, how });
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
fn output(text: &str, annotations: &[Annotation]) -> Result<Output> {
    if text == "-" {
        return Ok(Output::Tar { dest: None, split: None });
    }
    // As buildx has it: one field that names no type is a directory, whatever it looks like.
    let is_path = !text.contains(',') && !text.starts_with("type=");
    let Some(mut fields) = Fields::read(text, "--output")?.filter(|_| !is_path) else {
        return Ok(Output::Local { dest: directory(text.to_owned(), "local")?, split: None });
    };
    let kind = fields.kind()?;
    let output = match kind.as_str() {
        "local" => {
            let dest = fields.take("dest").filter(|dest| !dest.is_empty());
            let dest = dest.ok_or_else(|| Error::invalid("dest is required for local exporter"))?;
            Output::Local { dest: directory(dest, &kind)?, split: fields.boolean("platform-split")? }
        }
        "tar" => {
            let split = fields.boolean("platform-split")?;
            Output::Tar { dest: file(&mut fields, &kind)?, split }
        }
        "image" | "registry" => image(&mut fields, kind == "registry", annotations)?,
        // Docker's engine is our store.
        "docker" if !fields.has("dest") && !fields.has("tar") => image(&mut fields, false, annotations)?,
        "oci" | "docker" => archive(&mut fields, &kind, annotations)?,
        "cacheonly" => Output::CacheOnly,
        kind => return Err(Error::Later(format!("the output type {kind:?}"))),
    };
    fields.finish().map(|()| output)
}

fn image(fields: &mut Fields<'_>, push: bool, annotations: &[Annotation]) -> Result<Output> {
    let names = names(fields)?;
    let push = fields.boolean("push")?.unwrap_or(push);
    let (annotations, docker_types) = annotated(fields, annotations, false)?;
    let shape = Shape { wish: wish(fields)?, docker_types, annotations };
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

fn archive(fields: &mut Fields<'_>, kind: &str, annotations: &[Annotation]) -> Result<Output> {
    let is_layout = fields.boolean("tar")? == Some(false);
    as_it_is(fields, "rewrite-timestamp", true)?;
    let (annotations, docker_types) = annotated(fields, annotations, kind == "docker")?;
    let wish = wish(fields)?.unwrap_or_default();
    let format = Format { docker: kind == "docker", wish, docker_types, annotations };
    if is_layout {
        let dest = fields.take("dest").filter(|dest| !dest.is_empty());
        let dest = dest
            .ok_or_else(|| Error::invalid(format!("dest is required for {kind} exporter with tar=false")))?;
        return Ok(Output::Layout { format, names: names(fields)?, dest: directory(dest, kind)? });
    }
    Ok(Output::Archive { format, names: names(fields)?, dest: file(fields, kind)? })
}

/// All annotations of an output, and whether its documents have docker's media types, which know of none.
fn annotated(
    fields: &mut Fields<'_>,
    of_flags: &[Annotation],
    docker_types: bool,
) -> Result<(Annotations, bool)> {
    let mut annotations = annotation::options(fields)?;
    annotations.0.extend_from_slice(of_flags);
    match fields.boolean("oci-mediatypes")? {
        Some(false) if !annotations.is_empty() => {
            Err(fields.invalid("annotations need OCI's media types, not oci-mediatypes=false"))
        }
        Some(oci) => Ok((annotations, !oci)),
        None => {
            let docker_types = docker_types && annotations.is_empty();
            Ok((annotations, docker_types))
        }
    }
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
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(tag).collect()
}

/// What a build calls its image. Which digest that has is not for names to say.
pub(crate) fn tag(text: &str) -> Result<Reference> {
    match reference(text)? {
        name if name.digest().is_some() => Err(Error::invalid("build tag cannot contain a digest")),
        name => Ok(name),
    }
}

/// An option that has only one value so far.
fn as_it_is(fields: &mut Fields<'_>, name: &str, value: bool) -> Result<()> {
    match fields.boolean(name)? {
        Some(other) if other != value => Err(Error::Later(format!("{name}={other}"))),
        _ => Ok(()),
    }
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
    use boxwright_cache::image::Holder;

    use super::*;

    fn one(text: &str) -> Output {
        let mut outputs = parse(&[text.to_owned()], (false, false), &[], &[]).unwrap();
        assert_eq!(outputs.len(), 1);
        outputs.remove(0)
    }

    #[track_caller]
    fn refused(texts: &[&str], words: &str) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let error = parse(&texts, (false, false), &[], &[]).unwrap_err().to_string();
        assert!(error.contains(words), "{texts:?}: {error}");
    }

    fn local(dest: &str) -> Output {
        Output::Local { dest: dest.into(), split: None }
    }

    #[test]
    fn files_and_directories() {
        assert_eq!(one("out"), local("out"));
        assert_eq!(one("dest=x"), local("dest=x"));
        let whole = Output::Local { dest: "a/b".into(), split: Some(false) };
        assert_eq!(one("type=local,dest=a/b,platform-split=false"), whole);
        assert_eq!(one("\"dest=a,b\",type=local"), local("a,b"));
        let split = Output::Tar { dest: Some("/x/y.tar".into()), split: Some(true) };
        assert_eq!(one("dest=/x/y.tar,type=tar,platform-split=true"), split);
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
            format: Format {
                docker,
                wish: Wish { packing, force },
                docker_types: docker,
                annotations: Annotations::default(),
            },
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
        let Output::Layout { format, .. } = one("type=docker,dest=x,tar=false") else { panic!("a layout") };
        assert!(format.docker_types);
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
    fn annotations_are_of_all_that_is_an_image_and_need_its_media_types() {
        let given = annotation::flag("index:a=b", Holder::Manifest).unwrap();
        let found = |texts: &[&str], push| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let outputs = parse(&texts, (push, false), &[reference("t").unwrap()], &given).unwrap();
            let each = outputs.iter().map(|output| output.annotations().map(|all| all.0.len()));
            each.collect::<Vec<_>>()
        };
        assert_eq!(found(&[], false), [Some(1)]);
        assert_eq!(
            found(&["type=image,annotation.c=d", "out", "type=oci,dest=x"], false),
            [Some(2), None, Some(1)]
        );
        assert_eq!(found(&["type=local,dest=x"], true), [None, Some(1)]);
        refused(&["type=image,annotation.a=b,oci-mediatypes=false"], "annotations need OCI's media types");
        let Output::Archive { format, .. } = one("type=docker,dest=x,annotation.a=b") else {
            panic!("an archive")
        };
        assert!(!format.docker_types, "which are docker's by default");
    }

    #[test]
    fn push_and_load_join_what_there_is() {
        let tags = [reference("t").unwrap()];
        let parsed = |text: &str, push, load| parse(&[text.to_owned()], (push, load), &tags, &[]).unwrap();
        let unnamed = |push| Output::Image { names: Vec::new(), push, how: ImageOptions::default() };
        assert_eq!(parsed("type=image", true, false), [unnamed(true)]);
        assert_eq!(parsed("out", true, true), [local("out"), unnamed(true)]);
        assert_eq!(parsed("out", false, true), [local("out"), unnamed(false)]);
        assert_eq!(parse(&[], (false, false), &tags, &[]).unwrap(), []);
        assert!(parse(&[], (true, false), &[], &[]).unwrap_err().to_string().contains("tag is needed"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        refused(&["type=local"], "dest is required for local exporter");
        refused(&["type=local,dest=-"], "dest cannot be stdout for local exporter");
        refused(&["type=local,dest=/dev/../etc/passwd"], "/etc/passwd is a file");
        refused(&["type=tar,dest=/"], "destination file / is a directory");
        refused(&["type=local,dest=x,platform-split=perhaps"], "platform-split is a truth value");
        refused(&["type=tar,dest=x,compression=zstd"], "\"compression\" of --output is not supported yet");
        refused(&["type=nix,dest=x"], "output type \"nix\" is not supported yet");
        refused(&["type=image,store=false"], "store=false is not supported yet");
        refused(&["type=oci,dest=x,rewrite-timestamp=false"], "rewrite-timestamp=false is not supported yet");
        refused(&["type=image,dangling-name-prefix=A"], "invalid reference");
        refused(&["type=image,name=a:1,push-by-digest=true"], "can't push tagged ref docker.io/library/a:1");
        refused(&["type=image,push=true"], "tag is needed when pushing to registry");
        refused(&["a=x,dest=x"], "type is required");
        refused(&["-", "-"], "only one output can be standard output");
    }
}
