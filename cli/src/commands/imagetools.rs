//! `imagetools create`, `imagetools inspect` and `imagetools tags`.

use std::path::PathBuf;

use boxwright_cache::image::combine::Found;
use boxwright_cache::image::{Annotation, Annotations, Holder};
use boxwright_cache::oci::{Descriptor, Document};
use serde_json::{Value, json};

use super::Session;
use crate::args::annotation;
use crate::call::visible;
use crate::engine::{CombineRequest, CombineSource, reference};
use crate::error::{Error, Result};
use crate::format::{Table, Template};
use crate::progress::Mode;

/// Work on images in registries
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Imagetools {
    Create(Create),
    Inspect(Inspect),
    Tags(Tags),
}

/// Make one index of images that registries have
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the result
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Add to what the name stands for already
    #[arg(long)]
    append: bool,
    /// Show the result instead of sending it
    #[arg(long)]
    dry_run: bool,
    /// Read a source from this file: a name, a digest, or a descriptor in JSON
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Annotation of the index (NAME=VALUE, index:NAME=VALUE) or of its entries
    /// (manifest-descriptor:NAME=VALUE, manifest-descriptor[OS/ARCH]:NAME=VALUE)
    #[arg(long, value_name = "ANNOTATION")]
    annotation: Vec<String>,
    /// Make an index of a single image, too; with =false it is copied as it is
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    prefer_index: bool,
    /// Copy also what refers to the images, as signatures do
    #[arg(long)]
    referrers: bool,
    /// How to show what happens: auto, plain, tty, rawjson, quiet or none
    #[arg(long, value_name = "KIND", default_value = "auto")]
    progress: String,
    /// Names, digests in the repository of the result, or descriptors in JSON
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
}

/// Show what a registry has under a name
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// A Go template over Name, Manifest, Image and, if they are asked for, Referrers; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(long, value_name = "FORMAT", default_value = DEFAULT, hide_default_value = true)]
    format: String,
    /// Show the manifest as it is
    #[arg(long)]
    raw: bool,
    /// Show also what refers to it in its repository, as signatures do
    #[arg(long, conflicts_with = "raw")]
    referrers: bool,
    /// Of what refers to it, only this kind
    #[arg(long, value_name = "TYPE", requires = "referrers")]
    artifact_type: Option<String>,
    #[arg(value_name = "NAME")]
    name: String,
}

/// List the tags of a repository
#[derive(Debug, clap::Args)]
pub(crate) struct Tags {
    #[arg(value_name = "REPOSITORY")]
    repository: String,
}

const DEFAULT: &str = "{{.Manifest}}";

impl Imagetools {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        match self {
            Imagetools::Create(create) => create.execute(session),
            Imagetools::Inspect(inspect) => inspect.execute(session),
            Imagetools::Tags(tags) => tags.execute(session),
        }
    }
}

impl Create {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let (mode, request) = (Mode::of(&self.progress)?, self.request()?);
        let combined = session.engine.combine(&request)?;
        if self.dry_run {
            return session.print(String::from_utf8_lossy(&combined.bytes));
        }
        session.engine.push_combined(&combined, &request, mode.watch().as_ref())
    }

    fn request(&self) -> Result<CombineRequest> {
        if self.sources.is_empty() && self.file.is_empty() {
            return Err(Error::invalid("no sources specified"));
        }
        if self.tag.is_empty() && !self.dry_run {
            return Err(Error::invalid("can't push with no tags specified, please set --tag or --dry-run"));
        }
        let names = self.tag.iter().map(|name| reference(name)).collect::<Result<Vec<_>>>()?;
        if names.iter().any(|name| name.digest().is_some()) {
            return Err(Error::invalid("a --tag can't have a digest: that is what comes of it"));
        }
        let mut sources = Vec::new();
        for path in &self.file {
            let text = std::fs::read_to_string(path).map_err(Error::io("reading", path))?;
            sources.push(source(text.trim())?);
        }
        for text in &self.sources {
            sources.push(source(text)?);
        }
        let annotations = self.annotation.iter().map(|text| annotations(text)).collect::<Result<Vec<_>>>()?;
        let annotations = Annotations(annotations.into_iter().flatten().collect());
        let Create { append, prefer_index, referrers, .. } = *self;
        Ok(CombineRequest { sources, names, append, prefer_index, referrers, annotations })
    }
}

fn source(text: &str) -> Result<CombineSource> {
    if text.starts_with('{') {
        let descriptor: Descriptor = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("invalid descriptor {text:?}: {error}")))?;
        return Ok(CombineSource::Descriptor(Box::new(descriptor)));
    }
    match text.parse() {
        Ok(digest) => Ok(CombineSource::Digest(digest)),
        Err(_) => reference(text).map(CombineSource::Name),
    }
}

/// Those of the index, which is meant if nothing is said, and of its entries: what it names stays what it is.
fn annotations(text: &str) -> Result<Vec<Annotation>> {
    let all = annotation::flag(text, Holder::Index)?;
    if all.iter().all(|one| matches!(one.holder, Holder::Index | Holder::ManifestDescriptor)) {
        return Ok(all);
    }
    Err(Error::invalid(format!(
        "invalid annotation {text:?}: only those of index and manifest-descriptor can be added here"
    )))
}

impl Inspect {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let name = reference(&self.name)?;
        let found = session.engine.in_registry(&name)?;
        if self.raw {
            return session.write(String::from_utf8_lossy(&found.bytes));
        }
        let kind = self.artifact_type.as_deref();
        let referrers = match self.referrers {
            true => Some(session.engine.referrers_in_registry(&found, kind)?),
            false => None,
        };
        if self.format.is_empty() || self.format == DEFAULT {
            let name = name.to_string();
            session.write(shown(&name, &found)?)?;
            return session.write(entries("Referrers:", &name, &referrers.unwrap_or_default()));
        }
        let mut data = json!({ "Name": name.to_string(), "Manifest": manifest(&found)? });
        if self.format.contains(".Image") || self.format.contains("{{json .}}") || self.format == "json" {
            data["Image"] = session.engine.configs_in_registry(&found)?;
        }
        if let Some(referrers) = referrers {
            data["Referrers"] = json!(referrers);
        }
        session.print(Template::parse(&self.format)?.render(&data)?)
    }
}

/// The descriptor, and of an index what it holds.
fn manifest(found: &Found) -> Result<Value> {
    let Descriptor { media_type, digest, size, .. } = &found.descriptor;
    let mut value = json!({ "mediaType": media_type, "digest": digest, "size": size });
    if let Document::Index(index) = Document::parse(&found.bytes, Some(media_type))? {
        value["schemaVersion"] = json!(index.schema_version);
        value["manifests"] = json!(index.manifests);
        if let Some(annotations) = index.extra.get("annotations") {
            value["annotations"] = annotations.clone();
        }
    }
    Ok(value)
}

fn shown(name: &str, found: &Found) -> Result<String> {
    let Descriptor { media_type, digest, .. } = &found.descriptor;
    let top = vec![row("Name:", name), row("MediaType:", media_type), row("Digest:", &digest.to_string())];
    let text = Table::tight(1, top).to_string();
    match Document::parse(&found.bytes, Some(media_type))? {
        Document::Index(index) => Ok(text + &entries("Manifests:", name, &index.manifests)),
        Document::Manifest(_) => Ok(text),
    }
}

/// What registries say stays in its line, and moves no cursor.
fn row(name: &str, value: &str) -> Vec<String> {
    let line = |text: &str| visible(text).replace(['\n', '\r', '\t'], "\u{fffd}");
    vec![line(name), line(value)]
}

/// Descriptors of manifests in the repository of `name` below a heading; nothing if there are none.
fn entries(heading: &str, name: &str, entries: &[Descriptor]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let heading = Table::tight(1, vec![row("", ""), row(heading, "")]).to_string();
    let mut rows = Vec::new();
    for entry in entries {
        if !rows.is_empty() {
            rows.push(row("", ""));
        }
        rows.push(row("  Name:", &format!("{}@{}", without_digest(name), entry.digest)));
        rows.push(row("  MediaType:", &entry.media_type));
        if let Some(kind) = entry.extra.get("artifactType").and_then(Value::as_str) {
            rows.push(row("  ArtifactType:", kind));
        }
        if let Some(platform) = &entry.platform {
            rows.push(row("  Platform:", &platform.to_string()));
            if let Some(version) = platform.os_version() {
                rows.push(row("  OSVersion:", version));
            }
        }
        if !entry.annotations.is_empty() {
            rows.push(row("  Annotations:", ""));
            rows.extend(entry.annotations.iter().map(|(name, value)| row(&format!("    {name}:"), value)));
        }
    }
    heading + &Table::tight(1, rows).to_string()
}

impl Tags {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let repository = reference(&self.repository)?;
        // What a tag can be added to has none.
        if reference(&format!("{}:tag", self.repository)).is_err() {
            let name = &self.repository;
            return Err(Error::invalid(format!(
                "{name:?} names an image, and a repository is wanted: no tag or digest"
            )));
        }
        let tags = session.engine.tags_in_registry(&repository)?;
        tags.iter().try_for_each(|tag| session.print(tag))
    }
}

/// The name as it was given, to which an entry's own digest is to be added.
fn without_digest(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_names_digests_and_descriptors() {
        let digest = boxwright_cache::Digest::of(b"x");
        assert_eq!(source(&digest.to_string()).unwrap(), CombineSource::Digest(digest));
        assert_eq!(source("h/a:1").unwrap(), CombineSource::Name(reference("h/a:1").unwrap()));
        let text = json!({"mediaType": "x", "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": "arm64"}});
        let CombineSource::Descriptor(found) = source(&text.to_string()).unwrap() else {
            panic!("a descriptor")
        };
        assert_eq!(found.platform.unwrap().to_string(), "linux/arm64");
        assert!(source("{").unwrap_err().to_string().contains("invalid descriptor"));
        assert!(source("No Name").is_err());
    }

    #[test]
    fn annotations_are_of_the_index_or_of_entries() {
        let holders =
            |text| annotations(text).map(|all| all.iter().map(|one| one.holder).collect::<Vec<_>>());
        assert_eq!(holders("a=b").unwrap(), [Holder::Index]);
        let both = [Holder::ManifestDescriptor, Holder::Index];
        assert_eq!(holders("manifest-descriptor[linux/arm64],index:a=b").unwrap(), both);
        for text in ["manifest:a=b", "index,index-descriptor:a=b"] {
            assert!(holders(text).unwrap_err().to_string().contains("only those of index"), "{text}");
        }
    }
}
