//! Annotations of what is built, and which of its documents and descriptors get them (OCI image-spec, "Annotations").

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::Product;
use crate::error::{Error, Result};
use crate::oci::descriptor::OCI_INDEX;
use crate::oci::{Descriptor, Index, Platform};

/// What an annotation is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Manifest,
    /// What names a manifest: the entry of the index, or of a layout where there is no index.
    ManifestDescriptor,
    Index,
    /// What names the index in a layout.
    IndexDescriptor,
}

impl FromStr for Holder {
    type Err = Error;

    fn from_str(text: &str) -> Result<Holder> {
        match text {
            "manifest" => Ok(Holder::Manifest),
            "manifest-descriptor" => Ok(Holder::ManifestDescriptor),
            "index" => Ok(Holder::Index),
            "index-descriptor" => Ok(Holder::IndexDescriptor),
            _ => {
                let known = "there are manifest, manifest-descriptor, index and index-descriptor";
                Err(Error::invalid("annotation type", text, known))
            }
        }
    }
}

impl Holder {
    pub fn is_for_a_platform(self) -> bool {
        matches!(self, Holder::Manifest | Holder::ManifestDescriptor)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    pub holder: Holder,
    /// None: all that there are.
    pub platform: Option<Platform>,
    pub name: String,
    pub value: String,
}

/// All of a build. Of those with one name the last counts, but one for a platform before those for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(pub Vec<Annotation>);

impl Annotations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes sure that what is built for these platforms has a place for each.
    ///
    /// # Errors
    /// When one is about an index and there is none, or about a platform that is not there.
    pub fn check(&self, platforms: &[Platform]) -> Result<()> {
        for Annotation { holder, platform, name, .. } in &self.0 {
            let refused = |reason: String| Err(Error::invalid("annotation", name, reason));
            if !holder.is_for_a_platform() && platforms.len() < 2 {
                return refused("index annotations not supported for single platform export".to_owned());
            }
            if let Some(platform) = platform
                && !platforms.iter().any(|built| built.is_same(platform))
            {
                return refused(format!("nothing is built for {platform}"));
            }
        }
        Ok(())
    }

    /// Those of one holder, which is for `platform` if it is for any.
    pub(crate) fn of(&self, holder: Holder, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let meant = |annotation: &&Annotation| {
            let for_it = |wanted: &Platform| platform.is_some_and(|own| own.is_same(wanted));
            annotation.holder == holder && annotation.platform.as_ref().is_none_or(for_it)
        };
        let (general, special): (Vec<_>, Vec<_>) =
            self.0.iter().filter(meant).partition(|annotation| annotation.platform.is_none());
        let all = general.into_iter().chain(special);
        all.map(|annotation| (annotation.name.clone(), annotation.value.clone())).collect()
    }

    /// The entry of an index for this manifest.
    pub(crate) fn entry(&self, manifest: Descriptor, platform: &Platform) -> Descriptor {
        let annotations = self.of(Holder::ManifestDescriptor, Some(platform));
        Descriptor { platform: Some(platform.clone()), annotations, ..manifest }
    }

    /// Adds those of the index and of its entries. One of docker's becomes one of OCI's, which alone has a place for them.
    pub fn add_to(&self, index: &mut Index) {
        index.media_type = Some(OCI_INDEX.to_owned());
        annotate(&mut index.extra, self.of(Holder::Index, None));
        for entry in &mut index.manifests {
            entry.annotations.extend(self.of(Holder::ManifestDescriptor, entry.platform.as_ref()));
        }
    }

    /// Those of what names the whole: the index, or the manifest where there is only one.
    pub fn of_the_top(&self, products: &[Product]) -> BTreeMap<String, String> {
        match products {
            [only] => self.of(Holder::ManifestDescriptor, Some(&only.platform)),
            _ => self.of(Holder::IndexDescriptor, None),
        }
    }
}

/// Adds them to the fields of a manifest or index.
pub(crate) fn annotate(document: &mut BTreeMap<String, Value>, annotations: BTreeMap<String, String>) {
    if annotations.is_empty() {
        return;
    }
    let all = document.entry("annotations".to_owned()).or_default();
    // Some writers say `null` where there are none.
    if !all.is_object() {
        *all = Map::new().into();
    }
    if let Some(all) = all.as_object_mut() {
        all.extend(annotations.into_iter().map(|(name, value)| (name, Value::from(value))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(holder: Holder, platform: &str, value: &str) -> Annotation {
        let platform = Some(platform).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap());
        Annotation { holder, platform, name: "a".to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_document_that_says_it_has_none_gets_them() {
        let mut document = BTreeMap::from([("annotations".to_owned(), Value::Null)]);
        annotate(&mut document, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(document["annotations"]["a"], "b");
    }

    #[test]
    fn one_for_a_platform_counts_before_those_for_all_and_else_the_last() {
        let of = |holder, platform| annotation(holder, platform, platform);
        let all = Annotations(vec![
            of(Holder::Manifest, "linux/arm64"),
            annotation(Holder::Manifest, "", "first"),
            annotation(Holder::Manifest, "", "last"),
            of(Holder::ManifestDescriptor, ""),
        ]);
        let found = |platform: &str| all.of(Holder::Manifest, Some(&platform.parse().unwrap()))["a"].clone();
        assert_eq!(
            (found("linux/arm64/v8").as_str(), found("linux/amd64").as_str()),
            ("linux/arm64", "last")
        );
        assert!(all.of(Holder::Index, None).is_empty());
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let platforms: Vec<Platform> = ["linux/amd64", "linux/arm64"].map(|p| p.parse().unwrap()).to_vec();
        let check = |holder, platform, built: &[Platform]| {
            Annotations(vec![annotation(holder, platform, "")])
                .check(built)
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(Holder::Index, "", &platforms), Ok(()));
        assert_eq!(check(Holder::ManifestDescriptor, "linux/arm64", &platforms), Ok(()));
        let refused = check(Holder::Manifest, "linux/s390x", &platforms).unwrap_err();
        assert!(refused.contains("nothing is built for linux/s390x"), "{refused}");
        for holder in [Holder::Index, Holder::IndexDescriptor] {
            let refused = check(holder, "", &platforms[..1]).unwrap_err();
            assert!(refused.contains("index annotations not supported for single platform"), "{refused}");
        }
        assert_eq!(check(Holder::ManifestDescriptor, "", &platforms[..1]), Ok(()));
    }
}
