//! Variables and labels of a container: `-e`, `--env-file`, `--label`, `--label-file`, by docker's rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config;
use crate::error::{Error, Result};

/// Those of a container: what it is told of proxies, but for what is [`given`].
pub(crate) fn variables(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>> {
    let given = given(files, flags)?;
    let names: BTreeSet<&str> = given.iter().filter_map(|variable| variable.split('=').next()).collect();
    let proxies =
        config::proxies_of_containers().into_iter().filter(|(name, _)| !names.contains(name.as_str()));
    let proxies: Vec<String> = proxies.map(|(name, value)| format!("{name}={value}")).collect();
    Ok([proxies, given].concat())
}

/// Those of the files come first, so that flags win. One that a flag names alone and that is not set here is given by its
/// name alone: it is to be removed.
fn given(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for file in files {
        variables.extend(read(file, "env")?.iter().filter_map(|line| variable(line)));
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {flag}")));
        }
        variables.push(variable(flag).unwrap_or_else(|| flag.clone()));
    }
    Ok(variables)
}

/// As pairs; a label without a value has an empty one.
pub(crate) fn labels(files: &[PathBuf], flags: &[String]) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for file in files {
        labels.extend(read(file, "label")?);
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(Error::invalid(format!("invalid label format: {flag:?}")));
        }
        labels.push(flag.clone());
    }
    let pair = |text: String| {
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(labels.into_iter().map(pair).collect())
}

/// None where it is named alone and not set here.
fn variable(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    config::variable(text).map(|value| format!("{text}={value}"))
}

fn read(file: &Path, what: &str) -> Result<Vec<String>> {
    let bytes = super::file::read(file, "reading")?;
    lines(&bytes)
        .map_err(|reason| Error::invalid(format!("invalid {what} file ({}): {reason}", file.display())))
}

/// Blanks before a line and lines that begin with `#` do not count; values are taken as they are, quotes and all.
fn lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut found = Vec::new();
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = str::from_utf8(line).map_err(|_| format!("invalid utf8 bytes at line {}", n + 1))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        // Other blanks are part of a name to docker as well.
        if name.contains([' ', '\t']) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        found.push(line.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_named_alone_is_taken_from_here() {
        assert_eq!(variable("A=b"), Some("A=b".into()));
        assert_eq!(variable("PATH"), config::variable("PATH").map(|p| format!("PATH={p}")));
        assert_eq!(variable("NO_SUCH_VARIABLE_HERE"), None);
    }

    #[test]
    fn files_are_read_as_docker_reads_them() {
        let text = "\u{feff}A=1\r\n# comment\n\n  B = 2\n";
        assert_eq!(lines(text.as_bytes()).unwrap_err(), "variable 'B ' contains whitespaces");
        let text = "\u{feff}A=1\r\n  # comment\n\n \tQ=\"x y\" # kept \nALONE\nE=\nU=a=b";
        let expected = ["A=1", "Q=\"x y\" # kept ", "ALONE", "E=", "U=a=b"];
        assert_eq!(lines(text.as_bytes()).unwrap(), expected);
        assert_eq!(lines("A\u{a0}B=1\n".as_bytes()).unwrap(), ["A\u{a0}B=1"]);
        assert_eq!(lines(b"=x").unwrap_err(), "no variable name on line '=x'");
        assert_eq!(lines(b"A=1\nB=\xff").unwrap_err(), "invalid utf8 bytes at line 2");
    }

    #[test]
    fn flags_come_after_files_and_need_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "A=file\nNO_SUCH_VARIABLE_HERE\n").unwrap();
        let files = [file];
        assert_eq!(given(&files, &["A=flag".into()]).unwrap(), ["A=file", "A=flag"]);
        assert_eq!(given(&[], &["NO_SUCH_VARIABLE_HERE".into()]).unwrap(), ["NO_SUCH_VARIABLE_HERE"]);
        assert!(given(&[], &["=x".into()]).unwrap_err().to_string().contains("invalid environment variable"));
        assert!(given(&[dir.path().join("none")], &[]).is_err());
        assert_eq!(
            labels(&[], &["a".into(), "b=c=d".into()]).unwrap(),
            [("a".to_owned(), String::new()), ("b".to_owned(), "c=d".to_owned())]
        );
    }
}
