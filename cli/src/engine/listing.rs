//! Listing images, and the filters that choose some of them, as docker has them.

use std::collections::BTreeSet;

use boxwright_cache as cache;
use boxwright_frontend::parse_duration;
use cache::Digest;
use cache::fs::pattern::Glob;
use cache::oci::Reference;
use cache::record::{ImageRecord, NameRecord, Stored};

use super::Engine;
use super::names::same_repository;
use crate::error::{Error, Result};
use crate::format::time;

/// A line of the list of images.
#[derive(Clone, Debug)]
pub struct Listed {
    pub stored: Stored,
    /// The one that is shown: of an index that for this machine, or else the first.
    pub image: ImageRecord,
    pub name: Option<NameRecord>,
}

/// Which images are meant. Of several references one has to match, of all else everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFilter {
    /// Whether it has no name.
    Dangling(bool),
    /// Made after this image.
    Since(String),
    /// Made before this image.
    Before(String),
    /// A pattern that the name or the repository matches.
    Reference(Glob),
    Label {
        name: String,
        value: Option<String>,
        wanted: bool,
    },
    /// Made before this time, in seconds since 1970.
    Until(i64),
}

/// Shown where an image has no name, tag or digest.
const NONE: &str = "<none>";

impl Listed {
    pub fn repository(&self) -> String {
        self.name.as_ref().map_or(NONE.to_owned(), |n| n.name.familiar_name())
    }

    pub fn tag(&self) -> String {
        self.name.as_ref().and_then(|n| n.name.tag()).unwrap_or(NONE).to_owned()
    }

    pub fn digest(&self) -> String {
        self.name.as_ref().and_then(|n| n.digest).map_or(NONE.to_owned(), |d| d.to_string())
    }
}

impl ImageFilter {
    /// # Errors
    /// [`Error::Invalid`] for a name that is not known or a value that it does not take.
    pub fn parse(name: &str, value: &str) -> Result<ImageFilter> {
        let invalid = || Error::invalid(format!("invalid filter '{name}={value}'"));
        match name {
            "dangling" => match value {
                "true" | "1" => Ok(ImageFilter::Dangling(true)),
                "false" | "0" => Ok(ImageFilter::Dangling(false)),
                _ => Err(invalid()),
            },
            "since" => Ok(ImageFilter::Since(value.to_owned())),
            "before" => Ok(ImageFilter::Before(value.to_owned())),
            "reference" => ImageFilter::reference(value),
            "label" | "label!" => {
                let (label, text) = match value.split_once('=') {
                    Some((label, text)) => (label, Some(text.to_owned())),
                    None => (value, None),
                };
                Ok(ImageFilter::Label { name: label.to_owned(), value: text, wanted: name == "label" })
            }
            "until" => Ok(ImageFilter::Until(moment(value, time::now()).ok_or_else(invalid)?)),
            _ => Err(Error::invalid(format!("invalid filter '{name}'"))),
        }
    }

    /// # Errors
    /// When it is no pattern.
    pub fn reference(pattern: &str) -> Result<ImageFilter> {
        Ok(ImageFilter::Reference(Glob::new(pattern)?))
    }

    fn is_reference(&self) -> bool {
        matches!(self, ImageFilter::Reference(_))
    }
}

/// A length of time before `now`, a date or the beginning of a time as RFC 3339 has it, or seconds since 1970.
fn moment(text: &str, now: i64) -> Option<i64> {
    let ago = || parse_duration(text).ok().map(|nanos| now - nanos / 1_000_000_000);
    completed(text).and_then(|text| time::parse(&text)).or_else(|| text.parse().ok()).or_else(ago)
}

/// A date with what it lacks of a time: what is not said is 0, and in UTC, since a static program can't rely on the data of
/// time zones.
fn completed(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked("2006-01-02".len())?;
    let (clock, zone) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
    let lacking = match clock.len() {
        0 => "T00:00:00",
        3 => ":00:00",
        6 => ":00",
        _ => "",
    };
    Some(format!("{date}{clock}{lacking}{}", if zone.is_empty() { "Z" } else { zone }))
}

impl Engine {
    /// Every name with its image, and images without a name, as far as the filters let them pass; newest first.
    ///
    /// # Errors
    /// When the store can't be read, or a filter names an image that there is not.
    pub fn images(&self, filters: &[ImageFilter]) -> Result<Vec<Listed>> {
        let mut rows = self.all_images()?;
        let order: Vec<Digest> = rows.iter().map(|row| *row.stored.id()).collect();
        let place = |id: &Digest| order.iter().position(|other| other == id);
        let find = |text: &String| {
            place(self.find(text)?.stored.id()).ok_or_else(|| Error::NoSuchImage(text.clone())).map(Some)
        };
        let (references, others): (Vec<_>, Vec<_>) = filters.iter().partition(|f| f.is_reference());
        for filter in others {
            match filter {
                ImageFilter::Since(text) => {
                    let limit = find(text)?;
                    rows.retain(|row| place(row.stored.id()) < limit);
                }
                ImageFilter::Before(text) => {
                    let limit = find(text)?;
                    rows.retain(|row| place(row.stored.id()) > limit);
                }
                filter => rows.retain(|row| passes(row, filter)),
            }
        }
        rows.retain(|row| references.is_empty() || references.iter().any(|filter| passes(row, filter)));
        Ok(rows)
    }

    fn all_images(&self) -> Result<Vec<Listed>> {
        let names = self.store.names(None)?;
        let mut images = Vec::new();
        for id in self.store.image_ids()? {
            let stored = self.store.stored(&id)?;
            let Some(stored) = stored else { continue };
            // Names of one id may stand for different manifests.
            let mut own: BTreeSet<Digest> =
                names.iter().filter(|n| n.image == id).map(|n| n.manifest).collect();
            let of_a_name = own.remove(stored.manifest()) || own.is_empty();
            let others =
                own.iter().map(|manifest| self.store.stored(manifest)).collect::<cache::Result<Vec<_>>>()?;
            let all = Some(stored).filter(|_| of_a_name).into_iter().chain(others.into_iter().flatten());
            images.extend(all.filter_map(|stored| Some((stored.main()?.clone(), stored))));
        }
        // Those of one moment stay in the order in which they came.
        images.sort_by_cached_key(|(image, _)| std::cmp::Reverse(made(image)));
        Ok(images.into_iter().flat_map(|(image, stored)| rows_of(&image, &stored, &names)).collect())
    }
}

/// Seconds since 1970, and the digits of the fraction.
fn made(image: &ImageRecord) -> (Option<i64>, String) {
    let Some(text) = image.config.created.as_deref() else { return (None, String::new()) };
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    (time::parse(text), digits.trim_end_matches('0').to_owned())
}

fn rows_of(image: &ImageRecord, stored: &Stored, names: &[NameRecord]) -> Vec<Listed> {
    let listed = |name| Listed { stored: stored.clone(), image: image.clone(), name };
    let own: Vec<&NameRecord> = names.iter().filter(|n| n.manifest == *stored.manifest()).collect();
    if own.is_empty() {
        return vec![listed(None)];
    }
    // A digest counts for all names of its repository.
    let digest = |name: &NameRecord| {
        name.digest
            .or_else(|| own.iter().filter(|n| same_repository(&n.name, &name.name)).find_map(|n| n.digest))
    };
    let named = |name: &NameRecord| NameRecord { digest: digest(name), ..name.clone() };
    own.iter().map(|name| listed(Some(named(name)))).collect()
}

/// Since and before are not for one row to tell.
fn passes(row: &Listed, filter: &ImageFilter) -> bool {
    match filter {
        ImageFilter::Dangling(dangling) => row.name.is_none() == *dangling,
        ImageFilter::Reference(pattern) => row.name.as_ref().is_some_and(|n| matches(pattern, &n.name)),
        ImageFilter::Label { name, value, wanted } => {
            let own = row.image.config.config.labels.get(name);
            own.is_some_and(|own| value.as_ref().is_none_or(|value| value == own)) == *wanted
        }
        ImageFilter::Until(limit) => made(&row.image).0.is_none_or(|made| made < *limit),
        ImageFilter::Since(_) | ImageFilter::Before(_) => true,
    }
}

/// Docker matches a pattern with the whole familiar name, or with the repository alone.
fn matches(pattern: &Glob, name: &Reference) -> bool {
    pattern.matches(name.familiar()) || pattern.matches(name.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_seconds_or_lengths_of_time() {
        for (text, expected) in [
            ("1970-01-01T00:10:00Z", Some(600)),
            ("1970-01-01T00:10:00.5Z", Some(600)),
            ("1970-01-01T00:10:00", Some(600)),
            ("1970-01-01T00:10", Some(600)),
            ("1970-01-01T02:10+02:00", Some(600)),
            ("1970-01-01T01", Some(3600)),
            ("1970-01-02", Some(86_400)),
            ("1970-01-02Z", Some(86_400)),
            ("1970-01-02-01:00", Some(90_000)),
            ("1970-13-02", None),
            ("1970-01-02T", None),
            ("1970-01-02T1", None),
            ("1234567890", Some(1_234_567_890)),
            ("600", Some(600)),
            ("10m", Some(4400)),
            ("1h10m", Some(800)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(moment(text, 5000), expected, "{text:?}");
        }
    }

    #[test]
    fn filters_that_are_none_are_refused() {
        for (name, value, refusal) in [
            ("dangling", "maybe", "invalid filter 'dangling=maybe'"),
            ("until", "soon", "invalid filter 'until=soon'"),
            ("colour", "red", "invalid filter 'colour'"),
        ] {
            assert_eq!(ImageFilter::parse(name, value).unwrap_err().to_string(), refusal);
        }
        let label = |name: &str, value: Option<&str>, wanted| ImageFilter::Label {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            wanted,
        };
        assert_eq!(ImageFilter::parse("label", "a=b=c").unwrap(), label("a", Some("b=c"), true));
        assert_eq!(ImageFilter::parse("label!", "a").unwrap(), label("a", None, false));
    }
}
