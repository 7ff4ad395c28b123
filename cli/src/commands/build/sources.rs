//! Where a build's context and Dockerfile are: what the argument, `--file` and standard input say together.

use std::io::Read;
use std::path::Path;

use boxwright_cache::layer::tar;
use boxwright_frontend::gitref::GitRef;

use super::{Build, set};
use crate::engine::{ContextSource, DockerfileSource, Engine, MAX_TEXT, no_context};
use crate::error::{Error, Result};
use crate::stdin::Stdin;

impl Build {
    pub(super) fn sources(&self, engine: &Engine) -> Result<(ContextSource, DockerfileSource)> {
        let file = set(self.file.as_ref());
        if self.context == "-" {
            if file.is_some_and(|file| file.as_os_str() == "-") {
                return Err(Error::invalid(
                    "invalid argument: can't use stdin for both build context and dockerfile",
                ));
            }
            return self.piped(engine);
        }
        let path = Path::new(&self.context);
        // What is here is meant, whatever else its name could stand for.
        let context = if !path.is_dir() && is_remote(&self.context) {
            ContextSource::Remote(self.context.clone())
        } else {
            ContextSource::Dir(path.to_owned())
        };
        let dockerfile = match (file, &context) {
            (None, _) => DockerfileSource::Default,
            (Some(file), _) if file.as_os_str() == "-" => {
                let mut input = Stdin(engine.cancel());
                let text = read_dockerfile(&mut input, engine)?;
                if tar::is_archive(&text) {
                    return Err(Error::invalid(
                        "failed to read dockerfile: standard input is an archive; \
                         to build from one, name it as the context: `build -`",
                    ));
                }
                DockerfileSource::Text(text)
            }
            (Some(file), context) => match (file.to_str(), context) {
                (Some(url), _) if is_url(url) => DockerfileSource::Url(url.to_owned()),
                (Some(name), ContextSource::Remote(_)) if !file.is_absolute() => {
                    DockerfileSource::Inside(name.to_owned())
                }
                _ => DockerfileSource::File(file.clone()),
            },
        };
        Ok((context, dockerfile))
    }

    /// Standard input is an archive with the context, or the Dockerfile: its first bytes tell.
    fn piped(&self, engine: &Engine) -> Result<(ContextSource, DockerfileSource)> {
        let mut input = Stdin(engine.cancel());
        let mut start = Vec::new();
        read_to_end(&mut (&mut input).take(tar::BLOCK as u64), &mut start, engine)?;
        if start.is_empty() {
            return Err(Error::invalid(
                "unable to prepare context: standard input is empty, \
                 neither a Dockerfile nor an archive with one",
            ));
        }
        let is_archive = tar::is_archive(&start);
        let mut input = start.as_slice().chain(input);
        if is_archive {
            let inside = set(self.file.as_ref()).map(|file| file.to_string_lossy().into_owned());
            let dockerfile = inside.map_or(DockerfileSource::Default, DockerfileSource::Inside);
            return Ok((ContextSource::Archive(engine.receive(&mut input)?), dockerfile));
        }
        if start.contains(&0) {
            return Err(no_context("standard input"));
        }
        if set(self.file.as_ref()).is_some() {
            return Err(Error::invalid(
                "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            ));
        }
        Ok((ContextSource::Empty, DockerfileSource::Text(read_dockerfile(&mut input, engine)?)))
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether a context is to be fetched; what is wrong with the name of a repository is told then.
fn is_remote(text: &str) -> bool {
    is_url(text) || !matches!(GitRef::parse(text), Ok(None))
}

/// A Dockerfile that comes in on standard input.
pub(in crate::commands) fn read_dockerfile(input: &mut dyn Read, engine: &Engine) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    read_to_end(&mut input.take(MAX_TEXT + 1), &mut text, engine)?;
    if text.len() as u64 > MAX_TEXT {
        return Err(Error::invalid(format!("standard input is larger than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

fn read_to_end(input: &mut dyn Read, into: &mut Vec<u8>, engine: &Engine) -> Result<()> {
    let read = input.read_to_end(into);
    engine.cancel().check()?;
    read.map(drop).map_err(Error::io("reading", "standard input"))
}
