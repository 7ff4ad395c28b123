//! `-o`, in the forms of buildx.

use std::path::{Path, PathBuf};

use super::fields::Fields;
use crate::engine::Output;
use crate::error::{Error, Result};

/// All of a build's outputs. Only one of them can be standard output.
pub(crate) fn parse(texts: &[String]) -> Result<Vec<Output>> {
    let outputs: Vec<Output> = texts.iter().map(|text| output(text)).collect::<Result<_>>()?;
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
        return directory(text.to_owned()).map(Output::Local);
    };
    let kind = fields.kind()?;
    let output = match kind.as_str() {
        "local" => {
            let dest = fields.take("dest").filter(|dest| !dest.is_empty());
            let dest = dest.ok_or_else(|| Error::invalid("dest is required for local exporter"))?;
            in_one_place(&mut fields)?;
            Output::Local(directory(dest)?)
        }
        "tar" => {
            in_one_place(&mut fields)?;
            Output::Tar(file(&mut fields, &kind)?)
        }
        "cacheonly" => Output::CacheOnly,
        kind => return Err(Error::Later(format!("the output type {kind:?}"))),
    };
    fields.finish().map(|()| output)
}

/// A build has one platform so far, which gets no directory of its own unless that is asked for.
fn in_one_place(fields: &mut Fields<'_>) -> Result<()> {
    match fields.boolean("platform-split")? {
        Some(true) => Err(Error::Later("platform-split=true".to_owned())),
        _ => Ok(()),
    }
}

fn directory(dest: String) -> Result<PathBuf> {
    if dest == "-" {
        return Err(Error::invalid("dest cannot be stdout for local exporter"));
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
        let mut outputs = parse(&[text.to_owned()]).unwrap();
        assert_eq!(outputs.len(), 1);
        outputs.remove(0)
    }

    #[track_caller]
    fn refused(texts: &[&str], words: &str) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let error = parse(&texts).unwrap_err().to_string();
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

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        refused(&["type=local"], "dest is required for local exporter");
        refused(&["type=local,dest=-"], "dest cannot be stdout for local exporter");
        refused(&["type=local,dest=/dev/../etc/passwd"], "/etc/passwd is a file");
        refused(&["type=tar,dest=/"], "destination file / is a directory");
        refused(&["type=local,dest=x,platform-split=true"], "platform-split=true is not supported yet");
        refused(&["type=tar,dest=x,compression=zstd"], "\"compression\" of --output is not supported yet");
        refused(&["type=nix,dest=x"], "output type \"nix\" is not supported yet");
        refused(&["a=x,dest=x"], "type is required");
        refused(&["-", "-"], "only one output can be standard output");
    }
}
