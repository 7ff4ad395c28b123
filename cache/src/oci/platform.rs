//! Platforms as `os/architecture[/variant]`, normalised as containerd does.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `os.version`, `os.features` and whatever else a document carries.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// A JSON value that can be hashed and ordered, by its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl std::hash::Hash for Json {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_string().hash(state);
    }
}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Json {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = normalise(architecture, variant);
        Platform { os: os.to_ascii_lowercase(), architecture, variant, extra: BTreeMap::new() }
    }

    /// The platform this binary was built for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// Whether an image for `self` runs where `wanted` is asked for.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        let (mine, theirs) = (self.normalised(), wanted.normalised());
        mine.os == theirs.os && mine.architecture == theirs.architecture && mine.variant == theirs.variant
    }

    fn normalised(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
    let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", v) => {
            ("amd64".to_owned(), v.filter(|v| *v != "v1").map(str::to_owned))
        }
        ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386".to_owned(), None),
        ("aarch64" | "arm64", v) => {
            ("arm64".to_owned(), v.filter(|v| !matches!(*v, "v8" | "8")).map(str::to_owned))
        }
        ("armhf", _) => ("arm".to_owned(), Some("v7".to_owned())),
        ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
        ("arm", None | Some("7")) => ("arm".to_owned(), Some("v7".to_owned())),
        ("arm", Some(v @ ("5" | "6" | "8"))) => ("arm".to_owned(), Some(format!("v{v}"))),
        ("powerpc64le", v) => ("ppc64le".to_owned(), v.map(str::to_owned)),
        (other, v) => (other.to_owned(), v.map(str::to_owned)),
    };
    (architecture, variant)
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let ok = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        // As containerd has it: `windows(10.0.20348.1)/amd64`.
        if let Some((os, rest)) = text.split_once('(') {
            let invalid = |reason: &str| Error::invalid("platform", text, reason);
            let (version, rest) = rest.split_once(')').ok_or_else(|| invalid("expected `)`"))?;
            if !ok(version) || !(rest.is_empty() || rest.starts_with('/')) {
                return Err(invalid("expected OS(VERSION)/ARCHITECTURE"));
            }
            let mut platform: Platform = format!("{os}{rest}").parse()?;
            platform.extra.insert("os.version".to_owned(), Json(version.into()));
            return Ok(platform);
        }
        let parts: Vec<&str> = text.split('/').collect();
        if let Some(bad) = parts.iter().find(|p| !ok(p)) {
            return Err(Error::invalid("platform", text, format!("invalid component {bad:?}")));
        }
        match parts[..] {
            ["linux"] => Ok(Platform::host()),
            [os @ ("windows" | "darwin" | "freebsd")] => Ok(Platform::new(os, std::env::consts::ARCH, None)),
            [architecture] => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(Error::invalid("platform", text, "more than three components")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_machine_are_one_platform() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/ARM/6", "linux/arm/v6"),
            ("linux/i686", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
        let versioned: Platform = "windows(10.0.20348.1)/amd64".parse().unwrap();
        assert_eq!((versioned.to_string().as_str(), versioned.extra.len()), ("windows/amd64", 1));
        for bad in
            ["linux/a/b/c", "windows(10/amd64", "windows()/amd64", "windows(1)x/amd64", "windows(1)(2)/amd64"]
        {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
