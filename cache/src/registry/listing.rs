//! What a repository has: its tags, and what refers to a manifest (distribution-spec, "Content Discovery"). Lists come in
//! pages that name the next one; whatever a registry says, reading them ends.

use std::collections::HashSet;
use std::sync::Arc;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::auth::Actions;
use super::transport::Ask;
use super::{Client, content_type, referrers};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::descriptor::{MediaType, OCI_INDEX};
use crate::oci::manifest::MAX_DOCUMENT;
use crate::oci::{Descriptor, Document, Reference};

const MAX_PAGES: usize = 1000;
/// Bytes of all pages.
const MAX_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
struct Tags {
    /// Some say null for none.
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of the repository of `reference`, each once, in the registry's order.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such repository; [`Error::Registry`], [`Error::Malformed`] or
    /// [`Error::Cancelled`].
    pub fn tags(&self, reference: &Reference, cancel: &Cancel) -> Result<Vec<String>> {
        let what = format!("the tags of {}", reference.familiar_name());
        let repository = ("repository", reference.familiar_name());
        let (mut tags, mut seen) = (Vec::new(), HashSet::new());
        for page in self.pages(reference, "tags/list", &what, repository, cancel)? {
            let page: Tags =
                serde_json::from_slice(&page.bytes).map_err(|e| Error::malformed(&what, e.to_string()))?;
            for tag in page.tags.unwrap_or_default() {
                // It is going to be printed, and used in names.
                if !Reference::is_tag(&tag) {
                    return Err(Error::malformed(&what, format!("{tag:?} is none")));
                }
                if seen.insert(tag.clone()) {
                    tags.push(tag);
                }
            }
        }
        Ok(tags)
    }

    /// The manifests in the repository of `reference` that refer to `subject`, of the kind `artifact_type` if there is one:
    /// by the registry's own list, or else by that which clients keep under a tag. What these say is verified by nobody
    /// before it is fetched.
    ///
    /// # Errors
    /// [`Error::Registry`], [`Error::Malformed`] or [`Error::Cancelled`].
    pub fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Vec<Descriptor>> {
        let name = reference.by_digest(*subject);
        let what = format!("what refers to {}", name.familiar());
        let path = format!("referrers/{subject}");
        let found = match self.pages(&name, &path, &what, ("list", what.clone()), cancel) {
            // Servers without that list may have any page there.
            Ok(pages) if pages.iter().all(|page| page.media_type == OCI_INDEX) => {
                let entries = pages.into_iter().map(|page| manifests(&page.bytes, &what));
                entries.collect::<Result<Vec<_>>>()?.concat()
            }
            Ok(_) | Err(Error::NotFound { .. }) => referrers::by_tag(self, reference, subject, cancel)?,
            Err(error) => return Err(error),
        };
        let mut seen = HashSet::new();
        let wanted = |entry: &Descriptor| {
            let kind = entry.extra.get("artifactType").and_then(|kind| kind.as_str());
            matches!(entry.kind(), MediaType::Manifest | MediaType::Index)
                && artifact_type.is_none_or(|wanted| kind == Some(wanted))
        };
        Ok(found.into_iter().filter(|entry| wanted(entry) && seen.insert(entry.digest)).collect())
    }

    fn pages(
        &self,
        reference: &Reference,
        path: &str,
        what: &str,
        thing: (&'static str, String),
        cancel: &Cancel,
    ) -> Result<Vec<Page>> {
        let (transport, reference, doing) =
            (Arc::clone(&self.0.transport), reference.clone(), format!("listing {what}"));
        let path = path.to_owned();
        self.0.runtime.call(cancel, async move {
            let mut ask = transport.ask(&reference, Method::GET, Actions::Pull, &path, doing).await?;
            ask.thing = thing;
            let (mut pages, mut bytes, mut seen) = (Vec::new(), 0, HashSet::new());
            loop {
                if pages.len() == MAX_PAGES || bytes > MAX_BYTES {
                    return Err(
                        ask.error(format!("the list has more than {MAX_PAGES} pages or {MAX_BYTES} bytes"))
                    );
                }
                seen.insert(ask.url.clone());
                let (headers, body) = transport.fetch(&ask, MAX_DOCUMENT).await?;
                bytes += body.len();
                pages.push(Page { bytes: body, media_type: content_type(&headers) });
                let Some(next) = next_page(&ask, &headers)? else { return Ok(pages) };
                // The token is for this registry alone.
                if !transport.is_own(&ask, &next) {
                    return Err(ask.error("the list goes on at another server"));
                }
                if seen.contains(&next) {
                    return Err(ask.error("the list goes in a circle"));
                }
                ask.url = next;
            }
        })
    }
}

struct Page {
    bytes: Vec<u8>,
    media_type: String,
}

fn manifests(bytes: &[u8], what: &str) -> Result<Vec<Descriptor>> {
    match Document::parse(bytes, Some(OCI_INDEX))? {
        Document::Index(index) => Ok(index.manifests),
        Document::Manifest(_) => Err(Error::malformed(what, "it is a manifest and no list")),
    }
}

/// What the `Link` of relation `next` names (RFC 8288), relative to the page that has it.
fn next_page(ask: &Ask, headers: &HeaderMap) -> Result<Option<Url>> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let Some(target) = links.flat_map(targets_of_next).next() else { return Ok(None) };
    ask.url.join(&target).map(Some).map_err(|_| ask.error("the list goes on at what is no URL"))
}

/// The targets of all links of this header that say they are the next page: `<URL>; rel="next", …`.
pub(super) fn targets_of_next(header: &str) -> Vec<String> {
    let mut found = Vec::new();
    for link in header.split('<').skip(1) {
        let Some((target, parameters)) = link.split_once('>') else { continue };
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split(' ').any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        found.extend(is_next.then(|| target.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_what_the_link_of_that_relation_names() {
        for (header, expected) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, &["/v2/a/tags/list?last=b&n=2"][..]),
            ("<x>;rel=next", &["x"]),
            (r#"<a>; rel="prev", <b>; title="c"; REL="first Next""#, &["b"]),
            (r#"<a>; rel="previous""#, &[]),
            (r#"<a>; rel="nextish""#, &[]),
            ("<a", &[]),
            ("", &[]),
        ] {
            assert_eq!(targets_of_next(header), expected, "{header}");
        }
    }
}
