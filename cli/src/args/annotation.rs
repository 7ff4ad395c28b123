//! Annotations, as flags (`--annotation`) and among the options of `-o` (`annotation-index.NAME=VALUE`).

use boxwright_cache::image::{Annotation, Annotations, Holder};

use super::fields::Fields;
use crate::error::{Error, Result};

/// The beginning of the options' names.
const OPTION: &str = "annotation";

/// `[TYPE[PLATFORM],TYPE:]NAME=VALUE`, one for each type.
pub(crate) fn flag(text: &str, default: Holder) -> Result<Vec<Annotation>> {
    let invalid = |reason: &str| Error::invalid(format!("invalid annotation {text:?}: {reason}"));
    let (left, value) = text.split_once('=').ok_or_else(|| invalid("expected NAME=VALUE"))?;
    let (kinds, name) = match left.split_once(':') {
        Some((kinds, name)) => (Some(kinds), name),
        None => (None, left),
    };
    if name.is_empty() {
        return Err(invalid("empty name"));
    }
    let annotation = |kind: Option<&str>| {
        let (holder, platform) = kind.map_or(Ok((default, None)), |kind| place(kind, default, &invalid))?;
        Ok(Annotation { holder, platform, name: name.to_owned(), value: value.to_owned() })
    };
    match kinds {
        Some(kinds) => kinds.split(',').map(|kind| annotation(Some(kind))).collect(),
        None => annotation(None).map(|one| vec![one]),
    }
}

/// `TYPE[PLATFORM]`, both of which may be missing.
fn place(
    text: &str,
    default: Holder,
    invalid: &dyn Fn(&str) -> Error,
) -> Result<(Holder, Option<boxwright_cache::oci::Platform>)> {
    let (kind, platform) = match text.split_once('[') {
        Some((kind, rest)) => (kind, Some(rest.strip_suffix(']').ok_or_else(|| invalid("expected `]`"))?)),
        None => (text, None),
    };
    let holder = if kind.is_empty() { default } else { kind.parse()? };
    if platform.is_some() && !holder.is_for_a_platform() {
        return Err(invalid("an index is for no platform"));
    }
    Ok((holder, platform.map(str::parse).transpose()?))
}

/// `annotation[-TYPE][PLATFORM].NAME=VALUE` of an output.
pub(super) fn options(fields: &mut Fields<'_>) -> Result<Annotations> {
    let mut all = Vec::new();
    for (option, value) in fields.take_annotations() {
        let invalid = |reason: &str| fields.invalid(&format!("{option}: {reason}"));
        // A platform may have a point in it, a type has none.
        let from = option.find(']').unwrap_or(0);
        let point = option[from..].find('.').map(|at| from + at);
        let (left, name) =
            point.map(|at| (&option[..at], &option[at + 1..])).ok_or_else(|| invalid("expected .NAME"))?;
        if name.is_empty() {
            return Err(invalid("empty name"));
        }
        let kind = left[OPTION.len()..].strip_prefix('-').unwrap_or(&left[OPTION.len()..]);
        let (holder, platform) = place(kind, Holder::Manifest, &invalid)?;
        all.push(Annotation { holder, platform, name: name.to_owned(), value });
    }
    Ok(Annotations(all))
}

/// Whether an option of `-o` is one of these, whose names keep their case.
pub(super) fn is_option(name: &str) -> bool {
    name.strip_prefix(OPTION).is_some_and(|rest| rest.starts_with(['.', '-', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(holder: Holder, platform: Option<&str>, name: &str, value: &str) -> Annotation {
        let platform = platform.map(|platform| platform.parse().unwrap());
        Annotation { holder, platform, name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn flags_name_types_and_platforms() {
        for (text, expected) in [
            ("a=b=c", vec![one(Holder::Manifest, None, "a", "b=c")]),
            ("index:a=", vec![one(Holder::Index, None, "a", "")]),
            ("[linux/arm64]:a:b=c", vec![one(Holder::Manifest, Some("linux/arm64"), "a:b", "c")]),
            (
                "index,manifest-descriptor[linux/arm64]:a.B=c",
                vec![
                    one(Holder::Index, None, "a.B", "c"),
                    one(Holder::ManifestDescriptor, Some("linux/arm64"), "a.B", "c"),
                ],
            ),
        ] {
            assert_eq!(flag(text, Holder::Manifest).unwrap(), expected, "{text}");
        }
        assert_eq!(flag("a=b", Holder::Index).unwrap(), [one(Holder::Index, None, "a", "b")]);
        for (text, reason) in [
            ("a", "expected NAME=VALUE"),
            ("=a", "empty name"),
            ("config:a=b", "invalid annotation type \"config\""),
            ("index[linux/arm64]:a=b", "for no platform"),
            ("manifest-descriptor[x:a=b", "expected `]`"),
            ("manifest[a/b/c/d]:a=b", "more than three components"),
        ] {
            let error = flag(text, Holder::Manifest).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn options_of_outputs_keep_the_case_of_names() {
        let read = |text: &'static str| {
            let mut fields = Fields::read(text, "--output").unwrap().unwrap();
            let all = options(&mut fields);
            fields.finish().and(all).map(|all| all.0).map_err(|error| error.to_string())
        };
        let found = read(
            "annotation.org.X=1,annotation-index-descriptor.b=2,annotation[linux/arm64].c=3,annotation-manifest[linux/arm64].d=4",
        );
        let expected = [
            one(Holder::Manifest, None, "org.X", "1"),
            one(Holder::IndexDescriptor, None, "b", "2"),
            one(Holder::Manifest, Some("linux/arm64"), "c", "3"),
            one(Holder::Manifest, Some("linux/arm64"), "d", "4"),
        ];
        assert_eq!(found.unwrap(), expected);
        for (text, reason) in [
            ("annotation-config.a=b", "invalid annotation type \"config\""),
            ("annotation-index=b", "expected .NAME"),
            ("annotation.=b", "empty name"),
            ("annotation-index[linux/arm64].a=b", "for no platform"),
            ("annotations.a=b", "option \"annotations.a\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
