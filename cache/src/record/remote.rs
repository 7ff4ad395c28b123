//! Results of steps as other machines may have them: BuildKit's cache config (`application/vnd.buildkit.cacheconfig.v0`),
//! with what of ours has no place in it in a field that others skip. Only documents: where they lie is not known here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::{ContentDigest, DiffId, Digest};
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::oci::descriptor::OCI_LAYER_GZIP;
use crate::record::{CacheKey, Record};
use crate::snapshot::Layer;

pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The field of an image's config that holds the same (base64, by the rules of JSON in Go).
pub const INLINE_FIELD: &str = "moby.buildkit.cache.v0";

/// Layers that stand on each other, and which of them are the result of which step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    records: Vec<CacheRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CacheLayer {
    blob: Digest,
    /// The one below, by place; -1 if there is none.
    parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotations {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, rename = "diffID", skip_serializing_if = "Option::is_none")]
    diff_id: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(flatten)]
    extra: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CacheRecord {
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    results: Vec<CacheResult>,
    /// The same for results whose layers do not stand on each other in that order; bottom first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chains: Vec<CacheChain>,
    digest: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<serde_json::Value>,
    #[serde(default, rename = "boxwright", skip_serializing_if = "Option::is_none")]
    ours: Option<Ours>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CacheResult {
    layer: usize,
    #[serde(flatten)]
    extra: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CacheChain {
    layers: Vec<usize>,
    #[serde(flatten)]
    extra: BTreeMap<String, serde_json::Value>,
}

/// What BuildKit has no place for: by which contents the step is found as well, what it gave, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ours {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_key: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Digest>,
    took_us: u64,
}

/// The result of a step somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRecord {
    pub definition: CacheKey,
    pub content_key: Option<CacheKey>,
    pub content: Option<ContentDigest>,
    pub took: Duration,
    /// Bottom first, each with what its tar is.
    pub layers: Vec<(DiffId, Descriptor)>,
}

impl RemoteRecord {
    /// A record of this machine, its layers being there as `layers` says.
    pub fn of(definition: CacheKey, record: &Record, layers: Vec<(DiffId, Descriptor)>) -> RemoteRecord {
        let (content_key, content) = (record.content_key, record.snapshot.content());
        RemoteRecord { definition, content_key, content, took: record.took, layers }
    }
}

impl CacheConfig {
    /// What these records are in a cache config. Layers that several have at the bottom are written once.
    pub fn of(records: &[RemoteRecord]) -> CacheConfig {
        let mut config = CacheConfig::default();
        let mut places: HashMap<(i64, Digest), usize> = HashMap::new();
        for record in records {
            let mut top = -1;
            for (diff_id, blob) in &record.layers {
                let place = *places.entry((top, blob.digest)).or_insert_with(|| {
                    config.layers.push(CacheLayer::of(*diff_id, blob, top));
                    config.layers.len() - 1
                });
                top = i64::try_from(place).unwrap_or(i64::MAX);
            }
            let Ok(layer) = usize::try_from(top) else { continue };
            config.records.push(CacheRecord::of(record, layer));
        }
        config
    }

    /// # Errors
    /// When it is no cache config.
    pub fn parse(bytes: &[u8]) -> Result<CacheConfig> {
        serde_json::from_slice(bytes).map_err(|e| Error::malformed("cache config", e.to_string()))
    }

    /// The same bytes for the same records.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with string keys always serialise")
    }

    /// Every blob that a record needs.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = std::collections::HashSet::new();
        self.layers
            .iter()
            .filter(|layer| seen.insert(layer.blob))
            .filter_map(|layer| layer.descriptor(&[]))
            .collect()
    }

    /// The records that can be used here: those whose layers are all known, by themselves or by `known` (the blobs of
    /// the manifest). What makes no sense is left out: a cache is never a reason to fail.
    pub fn records(&self, known: &[Descriptor]) -> Vec<RemoteRecord> {
        self.records.iter().filter_map(|record| self.record(record, known)).collect()
    }

    /// The records of an image's own config, whose layers are those of the image.
    ///
    /// # Errors
    /// When they are no such records.
    pub fn parse_inline(field: &str, layers: &[(DiffId, Descriptor)]) -> Result<CacheConfig> {
        let bad = |reason: String| Error::malformed("inline cache", reason);
        let bytes = STANDARD.decode(field).map_err(|e| bad(e.to_string()))?;
        let records = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let layers = layers
            .iter()
            .enumerate()
            .map(|(i, (diff_id, blob))| CacheLayer::of(*diff_id, blob, i as i64 - 1));
        Ok(CacheConfig { layers: layers.collect(), records })
    }

    /// What an image with these layers carries in its config: the results that are a part of them, from the bottom. None
    /// if there is none.
    pub fn inline(results: &[(CacheKey, Record)], image: &[DiffId]) -> Option<String> {
        let of_image = results.iter().filter(|(_, record)| {
            let layers = record.snapshot.layers();
            !layers.is_empty()
                && layers.len() <= image.len()
                && layers.iter().map(Layer::diff_id).eq(image[..layers.len()].iter().copied())
        });
        let records: Vec<CacheRecord> = of_image
            .map(|(key, record)| {
                let top = record.snapshot.layers().len() - 1;
                CacheRecord::of(&RemoteRecord::of(*key, record, Vec::new()), top)
            })
            .collect();
        let bytes = serde_json::to_vec(&records).expect("maps with string keys always serialise");
        (!records.is_empty()).then(|| STANDARD.encode(bytes))
    }

    fn record(&self, record: &CacheRecord, known: &[Descriptor]) -> Option<RemoteRecord> {
        let places = match (record.results.first(), record.chains.first()) {
            (Some(result), _) => self.below(result.layer)?,
            (None, chain) => chain?.layers.clone(),
        };
        let layers = places.into_iter().map(|place| {
            let layer = self.layers.get(place)?;
            Some((DiffId(layer.annotations.as_ref()?.diff_id?), layer.descriptor(known)?))
        });
        let ours = record.ours.as_ref();
        Some(RemoteRecord {
            definition: CacheKey(bytes(&record.digest)?),
            content_key: ours.and_then(|ours| bytes(ours.content_key.as_ref()?)).map(CacheKey),
            content: ours.and_then(|ours| bytes(ours.content.as_ref()?)).map(ContentDigest),
            took: Duration::from_micros(ours.map_or(0, |ours| ours.took_us)),
            layers: layers.collect::<Option<_>>()?,
        })
    }

    /// A layer and those below it, bottom first; none where that makes no sense.
    fn below(&self, top: usize) -> Option<Vec<usize>> {
        let mut places = Vec::new();
        let mut at = i64::try_from(top).ok()?;
        while at >= 0 {
            let place = usize::try_from(at).ok()?;
            // A chain that is longer than there are layers goes round.
            if places.len() == self.layers.len() {
                return None;
            }
            at = self.layers.get(place)?.parent;
            places.push(place);
        }
        places.reverse();
        Some(places)
    }
}

impl CacheRecord {
    fn of(record: &RemoteRecord, layer: usize) -> CacheRecord {
        CacheRecord {
            results: vec![CacheResult { layer, extra: BTreeMap::new() }],
            chains: Vec::new(),
            digest: digest(record.definition.0),
            inputs: Vec::new(),
            ours: Some(Ours {
                content_key: record.content_key.map(|key| digest(key.0)),
                content: record.content.map(|content| digest(content.0)),
                took_us: u64::try_from(record.took.as_micros()).unwrap_or(u64::MAX),
            }),
        }
    }
}

impl CacheLayer {
    fn of(diff_id: DiffId, blob: &Descriptor, parent: i64) -> CacheLayer {
        let annotations = Annotations {
            media_type: Some(blob.media_type.clone()),
            diff_id: Some(diff_id.0),
            size: Some(blob.size),
            extra: BTreeMap::new(),
        };
        CacheLayer { blob: blob.digest, parent, annotations: Some(annotations) }
    }

    fn descriptor(&self, known: &[Descriptor]) -> Option<Descriptor> {
        if let Some(known) = known.iter().find(|known| known.digest == self.blob) {
            return Some(Descriptor::new(known.media_type.clone(), known.digest, known.size));
        }
        let annotations = self.annotations.as_ref()?;
        let media_type = annotations.media_type.as_deref().unwrap_or(OCI_LAYER_GZIP);
        Some(Descriptor::new(media_type, self.blob, annotations.size?))
    }
}

/// A key or content digest in the form that a cache config has for all digests.
fn digest(bytes: [u8; 32]) -> Digest {
    format!("sha256:{}", CacheKey(bytes)).parse().expect("64 hexadecimal digits are a digest")
}

fn bytes(digest: &Digest) -> Option<[u8; 32]> {
    digest.bytes().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: u8) -> (DiffId, Descriptor) {
        (DiffId(Digest::of(&[n])), Descriptor::new(OCI_LAYER_GZIP, Digest::of(&[n, n]), u64::from(n)))
    }

    fn record(key: u8, layers: &[u8]) -> RemoteRecord {
        RemoteRecord {
            definition: CacheKey([key; 32]),
            content_key: Some(CacheKey([key + 100; 32])),
            content: Some(ContentDigest([key + 50; 32])),
            took: Duration::from_micros(7),
            layers: layers.iter().map(|n| layer(*n)).collect(),
        }
    }

    #[test]
    fn records_come_back_and_share_the_layers_below() {
        let records = [record(1, &[1, 2]), record(2, &[1, 2, 3]), record(3, &[1, 4])];
        let config = CacheConfig::of(&records);
        assert_eq!(config.layers.len(), 4);
        let read = CacheConfig::parse(&config.to_bytes()).unwrap();
        assert_eq!(read, config);
        assert_eq!(read.records(&[]), records);
        assert_eq!(read.blobs().len(), 4);
    }

    #[test]
    fn a_cache_of_buildkit_is_read() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let text = format!(
            r#"{{"layers":[{{"blob":"{one}","parent":-1,"annotations":{{"mediaType":"{OCI_LAYER_GZIP}","diffID":"{two}","size":10,"createdAt":"2020-01-01T00:00:00Z"}}}},
                {{"blob":"{two}","parent":0,"annotations":{{"diffID":"{one}"}}}}],
               "records":[{{"digest":"{one}","layers":[{{"layer":1,"createdAt":"2020-01-01T00:00:00Z"}}],"inputs":[[{{"link":1}}]]}},
                {{"digest":"{two}"}}]}}"#
        );
        let config = CacheConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.records(&[]), [], "nothing says how large the second layer is");
        let known = [Descriptor::new(OCI_LAYER_GZIP, two, 20)];
        let [record] = &config.records(&known)[..] else { panic!("one record has a result") };
        assert_eq!(
            record.layers,
            [(DiffId(two), Descriptor::new(OCI_LAYER_GZIP, one, 10)), (DiffId(one), known[0].clone())]
        );
    }

    #[test]
    fn an_inline_cache_of_buildkit_is_read() {
        let (image, digest) = ([layer(1), layer(2), layer(3)], Digest::of(b"x"));
        let chained = format!(
            r#"[{{"digest":"{digest}","layers":[{{"layer":1}}]}},{{"digest":"{digest}","chains":[{{"layers":[2,0],"createdAt":"2020-01-01T00:00:00Z"}}]}}]"#
        );
        let config = CacheConfig::parse_inline(&STANDARD.encode(chained), &image).unwrap();
        let layers: Vec<_> = config.records(&[]).into_iter().map(|record| record.layers).collect();
        assert_eq!(layers, [vec![layer(1), layer(2)], vec![layer(3), layer(1)]]);
        assert!(CacheConfig::parse_inline("?", &image).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let digest = Digest::of(b"x");
        let config = |layers: &str, layer: i64| {
            let text = format!(
                r#"{{"layers":[{layers}],"records":[{{"digest":"{digest}","layers":[{{"layer":{layer}}}]}}]}}"#
            );
            CacheConfig::parse(text.as_bytes()).map(|config| config.records(&[]).len())
        };
        let round =
            format!(r#"{{"blob":"{digest}","parent":0,"annotations":{{"diffID":"{digest}","size":1}}}}"#);
        assert_eq!(config(&round, 0).unwrap(), 0, "it stands on itself");
        assert_eq!(config(&round, 7).unwrap(), 0, "there is no such layer");
        assert_eq!(config(&round.replace(":0,", ":5,"), 0).unwrap(), 0, "nor such a parent");
        assert!(config(&round, -1).is_err());
        assert!(CacheConfig::parse(b"1").is_err() && CacheConfig::parse(b"").is_err());
    }
}
