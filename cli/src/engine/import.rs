//! An image made of a root file system that came as one archive.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::SystemTime;

use boxwright_cache as cache;
use boxwright_frontend as frontend;
use cache::Digest;
use cache::image::Product;
use cache::oci::{ContainerConfig, History, ImageConfig, Platform, Reference};
use cache::registry::Answer;
use cache::snapshot::Snapshot;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::time;

/// The largest archive that is fetched, in bytes.
const LIMIT: u64 = 1 << 40;
/// The instructions that change a config and nothing else, as docker takes them here.
const CHANGES: [&str; 10] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "USER", "VOLUME", "WORKDIR"];

/// Where the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportSource {
    Stdin,
    File(PathBuf),
    /// `http://` or `https://`.
    Url(String),
}

/// An image to be made of an archive.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    pub source: ImportSource,
    pub name: Option<Reference>,
    /// Instructions of a Dockerfile for its config.
    pub changes: Vec<String>,
    /// What its history says.
    pub message: Option<String>,
    pub platform: Platform,
}

impl Engine {
    /// Gives the image's id.
    ///
    /// # Errors
    /// When a change is none, or the archive can't be had, read or unpacked; the store has the images that it had then.
    pub fn import_image(&self, request: &ImportRequest) -> Result<Digest> {
        let config = changed(&request.changes, &request.platform)?;
        let (from, input): (_, Box<dyn Read + Send>) = match &request.source {
            ImportSource::Stdin => ("-", Box::new(std::io::stdin())),
            // Docker's daemon sees a file as what its client sends.
            ImportSource::File(path) => ("-", Box::new(open(path)?)),
            ImportSource::Url(url) => match self.client.open_file(url, None, LIMIT, &self.cancel)? {
                Answer::File(file) => (url.as_str(), Box::new(file)),
                Answer::Unchanged => unreachable!("nothing was known that could be unchanged"),
            },
        };
        let layer = cache::import::flat(&self.store, input, &self.cancel)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let created = Some(time::rfc3339(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)));
        let comment =
            request.message.clone().unwrap_or_else(|| format!("Imported from {}", without_login(from)));
        let image = ImageConfig {
            created: created.clone(),
            architecture: request.platform.architecture.clone(),
            os: request.platform.os.clone(),
            variant: request.platform.variant.clone(),
            config,
            history: vec![History { created, comment, ..History::default() }],
            ..ImageConfig::default()
        };
        let files = Snapshot::of_image(vec![layer]);
        let product = Product { platform: request.platform.clone(), config: image, files };
        let shape = cache::image::Shape::default();
        Ok(*cache::image::assemble(&self.store, &[product], request.name.as_slice(), &shape, &self.cancel)?
            .id())
    }
}

fn open(path: &PathBuf) -> Result<File> {
    let file = File::open(path).map_err(Error::io("opening", path))?;
    let metadata = file.metadata().map_err(Error::io("opening", path))?;
    if metadata.is_dir() {
        return Err(Error::io("reading", path)(std::io::Error::from(ErrorKind::IsADirectory)));
    }
    Ok(file)
}

/// A URL as it may be shown.
fn without_login(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
        }
        None => url.to_owned(),
    }
}

/// The config that the instructions make of an empty one.
fn changed(changes: &[String], platform: &Platform) -> Result<ContainerConfig> {
    let word_of = |change: &String| change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    for change in changes {
        let word = word_of(change);
        if !CHANGES.contains(&word.as_str()) || change.trim().contains('\n') {
            let word = word.to_ascii_lowercase();
            return Err(Error::invalid(format!(
                "{word} is not a valid change command: a change is one line that begins with one of {}",
                CHANGES.join(", ")
            )));
        }
    }
    let parsed = frontend::parse(format!("FROM scratch\n{}\n", changes.join("\n")).as_bytes());
    let refused = |diagnostics: &[frontend::Diagnostic]| {
        let reasons: Vec<_> =
            diagnostics.iter().filter(|d| d.is_error()).map(|d| d.message.as_str()).collect();
        Error::invalid(format!("invalid change: {}", reasons.join("; ")))
    };
    if parsed.has_errors() {
        return Err(refused(&parsed.diagnostics));
    }
    let options = frontend::Options { platforms: vec![platform.clone()], ..frontend::Options::default() };
    let mut lowered = frontend::lower(&parsed.dockerfile, &options, &frontend::Bases::default())
        .map_err(|diagnostics| refused(&diagnostics))?;
    let mut config = lowered.images.remove(0).image.config;
    // A build sets these, an import does not.
    if !changes.iter().any(|change| word_of(change) == "WORKDIR") {
        config.working_dir.clear();
    }
    let sets_path = parsed.dockerfile.stages.iter().flat_map(|stage| &stage.commands).any(|command| {
        let is_path = |pair: &frontend::ast::Pair| pair.key.text.trim_matches(['"', '\'']) == "PATH";
        matches!(&command.kind, frontend::ast::Kind::Env(pairs) if pairs.iter().any(is_path))
    });
    if !sets_path {
        config.env.retain(|entry| !entry.starts_with("PATH="));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(changes: &[&str]) -> Result<ContainerConfig> {
        changed(&changes.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>(), &Platform::host())
    }

    #[test]
    fn changes_are_instructions_and_nothing_else_sets_anything() {
        assert_eq!(change(&[]).unwrap(), ContainerConfig::default());
        let config =
            change(&["CMD [\"a\"]", "env X=1 Y=$X", "WORKDIR /w", "USER 7", "EXPOSE 80", "LABEL a=b"])
                .unwrap();
        assert_eq!(config.cmd, Some(vec!["a".to_owned()]));
        assert_eq!(
            (config.env, config.working_dir, config.user),
            (vec!["X=1".to_owned(), "Y=".into()], "/w".into(), "7".into())
        );
        assert_eq!(change(&["ENV MYPATH=/x"]).unwrap().env, ["MYPATH=/x"]);
        assert_eq!(change(&["ENV PATH=/x MYPATH=y"]).unwrap().env, ["PATH=/x", "MYPATH=y"]);
        for bad in ["RUN x", "STOPSIGNAL 9", "FROM x", "COPY a b", "", "CMD a\nRUN b", "EXPOSE x/y"] {
            let error = change(&[bad]).unwrap_err().to_string();
            assert!(error.contains("change"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_kept() {
        assert_eq!(without_login("https://u:p@host/x@y"), "https://host/x@y");
        assert_eq!(without_login("-"), "-");
    }
}
