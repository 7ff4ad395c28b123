//! Named contexts: what the command line puts in the place of a stage or an image of some name.

use std::collections::HashMap;

use boxwright_cache::oci::{Platform, Reference};

use super::origin::Origin;

/// Names that always mean what they say.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// What stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// Nothing at all.
    Scratch,
    /// As [`super::ImageRequest`] names it.
    Image(String),
    Files(Origin),
}

/// By name as BuildKit normalises it: `busybox` for `docker.io/library/busybox:latest`. A context that is for one
/// platform comes before one that is for any.
#[derive(Clone, Debug, Default)]
pub struct NamedContexts {
    known: HashMap<(String, Option<String>), NamedContext>,
}

impl NamedContexts {
    /// `name` as [`parse_name`] gives it; one that was there under this name is gone.
    pub fn insert(&mut self, (name, platform): (String, Option<Platform>), context: NamedContext) {
        self.known.insert((name, platform.as_ref().map(key)), context);
    }

    pub(super) fn find(&self, name: &str, platform: &Platform) -> Option<(String, &NamedContext)> {
        if self.known.is_empty() || RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return None;
        }
        let name = normalised(name).ok()?;
        let of = |platform| self.known.get(&(name.clone(), platform));
        let found = of(Some(key(platform))).or_else(|| of(None))?;
        Some((name, found))
    }
}

/// The name of a context, and after `::` the only platform that it is for.
///
/// # Errors
/// When nothing could ever have that name.
pub fn parse_name(text: &str) -> Result<(String, Option<Platform>), String> {
    let (name, platform) = match text.split_once("::") {
        Some((name, platform)) => (name, Some(platform)),
        None => (text, None),
    };
    let platform = platform.map(str::parse).transpose().map_err(|e| format!("{e}"))?;
    Ok((normalised(name)?, platform))
}

fn normalised(name: &str) -> Result<String, String> {
    let reference = name.parse::<Reference>().map_err(|e| e.to_string())?;
    let familiar = reference.familiar();
    Ok(familiar.strip_suffix(":latest").map_or_else(|| familiar.clone(), str::to_owned))
}

fn key(platform: &Platform) -> String {
    platform.normalised().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_images() {
        let mut contexts = NamedContexts::default();
        let image = |name: &str| NamedContext::Image(name.to_owned());
        for (name, value) in [
            ("docker.io/library/alpine:latest", "any"),
            ("alpine::linux/arm64/v8", "arm"),
            ("alpine:3", "three"),
            ("a.example/x:latest", "far"),
            ("scratch", "never"),
        ] {
            contexts.insert(parse_name(name).unwrap(), image(value));
        }
        let found = |name: &str, platform: &str| match contexts.find(name, &platform.parse().unwrap()) {
            Some((_, NamedContext::Image(value))) => Some(value.clone()),
            _ => None,
        };
        for (name, platform, value) in [
            ("alpine", "linux/amd64", Some("any")),
            ("alpine:latest", "linux/amd64", Some("any")),
            ("library/alpine", "linux/arm64", Some("arm")),
            ("docker.io/alpine:3", "linux/amd64", Some("three")),
            ("alpine:3.1", "linux/amd64", None),
            ("a.example/x", "linux/amd64", Some("far")),
            ("scratch", "linux/amd64", None),
            ("no name!", "linux/amd64", None),
        ] {
            assert_eq!(found(name, platform).as_deref(), value, "{name} for {platform}");
        }
        for name in ["", "Upper", "a b", "a::no/such/platform/at/all"] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }
}
