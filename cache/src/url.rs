//! Files behind URLs: each becomes a layer with one file, is remembered with what its server said of it, and is asked
//! for again only if the server has another one by then. How a URL is asked is the business of [`Client`].

use std::io::Write as _;
use std::path::Path;

use crate::cancel::Cancel;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::layer::{DirSink, LayerSink as _, Metadata, Summing, Timestamp};
use crate::record::local::Lookup;
use crate::record::{CacheKey, NewRecord};
use crate::registry::{Answer, Client, FileReader, Validators};
use crate::snapshot::Snapshot;
use crate::snapshot::owner::OwnerView;
use crate::store::Store;

/// The largest file that is fetched, in bytes: far above what is built from, and below what fills most disks.
pub const LIMIT: u64 = 64 << 30;
/// Only whoever builds may read it, unless it is told otherwise.
const MODE: u32 = 0o600;
const BUFFER: usize = 128 << 10;

/// Which file, and what it is to be called.
#[derive(Clone, Copy, Debug)]
pub struct UrlFile<'a> {
    pub url: &'a str,
    pub name: &'a str,
    /// What it must be.
    pub checksum: Option<&'a Digest>,
}

/// A file that is here.
#[derive(Clone, Debug)]
pub struct Downloaded {
    pub digest: Digest,
    /// When its server says that it was changed, in seconds since 1970.
    pub modified: Option<i64>,
    /// The file alone, mode 0600, with that time or that of 1970.
    pub snapshot: Snapshot,
}

/// What is remembered of a URL, as the fields of a build record.
#[derive(serde::Serialize, serde::Deserialize)]
struct Memory {
    kind: String,
    fields: Vec<(String, String)>,
}

const KIND: &str = "url/1";

impl Memory {
    fn of(digest: &Digest, validators: &Validators) -> Memory {
        let mut fields = vec![("digest".to_owned(), digest.to_string())];
        fields.extend(validators.etag.iter().map(|tag| ("etag".to_owned(), tag.clone())));
        fields.extend(validators.last_modified.iter().map(|at| ("last_modified".to_owned(), at.clone())));
        Memory { kind: KIND.to_owned(), fields }
    }

    fn field(&self, name: &str) -> Option<String> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
    }
}

/// The file as it was when it was last asked for.
///
/// # Errors
/// When the store can't be read.
pub fn known(store: &Store, file: UrlFile<'_>) -> Result<Option<(Downloaded, Validators)>> {
    let key = key_of(file);
    let Some(text) = store.fields_of(key)? else { return Ok(None) };
    let Ok(memory) = serde_json::from_str::<Memory>(&text) else { return Ok(None) };
    let Some(digest) = memory.field("digest").and_then(|d| d.parse::<Digest>().ok()) else { return Ok(None) };
    let Some(record) = store.record(Lookup::Definition(key))? else { return Ok(None) };
    let validators = Validators { etag: memory.field("etag"), last_modified: memory.field("last_modified") };
    let modified = validators.last_modified.as_deref().and_then(http_date);
    Ok(Some((Downloaded { digest, modified, snapshot: record.snapshot }, validators)))
}

/// The file as its server has it now; fetched if there is no telling that it is the one that is here.
///
/// # Errors
/// What [`Client::open_file`] returns, [`Error::Mismatch`] if it is not what it must be.
pub fn fetch(store: &Store, client: &Client, file: UrlFile<'_>, cancel: &Cancel) -> Result<Downloaded> {
    // Two that want one file fetch it once.
    let _lock = store.lock("url", &hex(key_of(file)), cancel)?;
    let known = known(store, file)?;
    let expected = |found: &Downloaded| file.checksum.is_none_or(|sum| *sum == found.digest);
    let validators = known.as_ref().filter(|(found, _)| expected(found)).map(|(_, validators)| validators);
    match (client.open_file(file.url, validators, LIMIT, cancel)?, known) {
        (Answer::Unchanged, Some((found, _))) => Ok(found),
        (Answer::Unchanged, None) => unreachable!("nothing was known that could be unchanged"),
        (Answer::File(reader), _) => download(store, file, reader, cancel),
    }
}

fn download(store: &Store, file: UrlFile<'_>, mut reader: FileReader, cancel: &Cancel) -> Result<Downloaded> {
    use std::io::Read as _;
    let algorithm = file.checksum.map_or(Algorithm::Sha256, |sum| sum.algorithm());
    let mut spool = store.new_blob(algorithm)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        cancel.check()?;
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => spool.write_all(&buffer[..n]).map_err(Error::io("writing", "a downloaded file"))?,
            Err(e) => return Err(Error::io("fetching", "a file")(e)),
        }
    }
    let spool = spool.seal()?;
    let digest = spool.digest();
    if let Some(expected) = file.checksum.filter(|sum| **sum != digest) {
        return Err(Error::Mismatch {
            what: "digest mismatch".to_owned(),
            expected: expected.to_string(),
            actual: digest.to_string(),
        });
    }
    let modified = reader.validators.last_modified.as_deref().and_then(http_date);
    let layer = store.new_layer()?;
    let dir = layer.fs().try_clone_to_owned().map_err(Error::io("opening", "a new layer"))?;
    let mut sink = DirSink::new(dir, OwnerView::current());
    let mut summing = Summing::new(&mut sink);
    let mtime = Timestamp { secs: modified.unwrap_or(0), nanos: 0 };
    let meta = |mode| Metadata { mode, mtime, ..Metadata::default() };
    summing.dir(Path::new(""), &meta(0o755))?;
    summing.file(Path::new(file.name), &meta(MODE), spool.size(), &mut spool.open()?)?;
    let summary = summing.finish()?;
    sink.finish()?;
    let layer = match summary {
        Some(summary) => layer.commit_as(&summary)?,
        None => layer.commit(cancel)?,
    };
    let snapshot = Snapshot::default().with(layer);
    let memory = serde_json::to_string(&Memory::of(&digest, &reader.validators)).expect("strings serialise");
    store.put_record(&NewRecord {
        definition: key_of(file),
        content_key: None,
        snapshot: &snapshot,
        fields: &memory,
        took: std::time::Duration::ZERO,
        origin: None,
    })?;
    Ok(Downloaded { digest, modified, snapshot })
}

/// Of the URL without what could be a password, and of the name.
fn key_of(file: UrlFile<'_>) -> CacheKey {
    let (scheme, rest) = file.url.split_once("://").unwrap_or(("", file.url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    let mut hasher = blake3::Hasher::new_derive_key("boxwright url v1");
    for part in [scheme, host, &rest[end..], file.name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    CacheKey(*hasher.finalize().as_bytes())
}

fn hex(key: CacheKey) -> String {
    key.to_string()
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.trim().split_once(", ")?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, time, "GMT"] = words[..] else { return None };
    let month = i64::try_from(MONTHS.iter().position(|m| *m == month)?).ok()? + 1;
    let number = |text: &str, most: i64| text.parse::<i64>().ok().filter(|n| (0..=most).contains(n));
    let (day, year) = (number(day, 31)?, number(year, 9999)?);
    let mut clock = time.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 23)?, number(clock.next()?, 59)?, number(clock.next()?, 60)?);
    // Days since 1970, with years that begin in March so that the leap day is the last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 01 Jan 2020 00:00:00 GMT", Some(1_577_836_800)),
            ("Sat, 29 Feb 2020 23:59:59 GMT", Some(1_583_020_799)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("yesterday", None),
            ("Sun, 06 Nov 1994 99:49:37 GMT", None),
        ] {
            assert_eq!(http_date(text), seconds, "{text}");
        }
    }

    #[test]
    fn a_password_is_not_part_of_the_key() {
        let key = |url, name| key_of(UrlFile { url, name, checksum: None });
        assert_eq!(key("https://u:p@a/b", "b"), key("https://a/b", "b"));
        assert_ne!(key("https://a/b@c", "b"), key("https://a/c", "b"));
        assert_ne!(key("https://a/b", "b"), key("https://a/b", "c"));
        assert_ne!(key("https://a/b", "b"), key("http://a/b", "b"));
    }
}
