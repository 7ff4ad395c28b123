//! A file of `/etc/cdi`: devices of one kind, and what of the host a container gets with each. A file with anything that
//! is not understood is refused as a whole: half of what a device needs helps nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::yaml;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edits {
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) device_nodes: Vec<Node>,
    #[serde(default)]
    pub(super) mounts: Vec<Mount>,
    #[serde(default)]
    pub(super) hooks: Vec<Hook>,
    #[serde(default, rename = "additionalGids")]
    pub(super) groups: Vec<u32>,
    #[serde(default)]
    pub(super) net_devices: Vec<Value>,
    pub(super) intel_rdt: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) host_path: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    #[serde(rename = "fileMode")]
    pub(super) mode: Option<u32>,
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

/// A program that is to be run on the host; only named.
#[derive(Debug, Deserialize)]
pub(super) struct Hook {
    #[serde(default)]
    pub(super) path: String,
}

/// YAML has numbers where names without quotes look like them.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!("{other} is no name"))),
    }
}

impl Document {
    pub(super) fn parse(text: &str, is_json: bool) -> Result<Document, String> {
        let value =
            if is_json { serde_json::from_str(text).map_err(|e| e.to_string())? } else { yaml::parse(text)? };
        let document: Document = serde_json::from_value(value).map_err(|e| e.to_string())?;
        if !["0.", "1."].iter().any(|known| document.cdi_version.starts_with(known)) {
            return Err(format!("cdiVersion {:?} is not known", document.cdi_version));
        }
        if split_kind(&document.kind).is_none() {
            return Err(format!("{:?} is no kind of devices (VENDOR/CLASS)", document.kind));
        }
        if let Some(device) = document.devices.iter().find(|device| !is_name(&device.name)) {
            return Err(format!("{:?} is no name of a device", device.name));
        }
        Ok(document)
    }

    /// An annotation of the device, or of all of the file.
    pub(super) fn annotation<'a>(&'a self, device: &'a Device, name: &str) -> Option<&'a str> {
        device.annotations.get(name).or_else(|| self.annotations.get(name)).map(String::as_str)
    }
}

/// Vendor and class.
pub(super) fn split_kind(kind: &str) -> Option<(&str, &str)> {
    let word = |text: &str, more: &[char]| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    kind.split_once('/')
        .filter(|(vendor, class)| word(vendor, &['_', '-', '.']) && word(class, &['_', '-', '.']))
}

pub(super) fn is_name(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(ends)
        && name.ends_with(ends)
        && name.chars().all(|c| ends(c) || matches!(c, '_' | '-' | '.' | ':'))
}
