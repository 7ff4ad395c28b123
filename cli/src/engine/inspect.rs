//! An image as `docker inspect` shows it.

use std::collections::{BTreeMap, BTreeSet};

use boxwright_cache::image::described;
use boxwright_cache::oci::{ContainerConfig, Descriptor, ImageConfig, Platform};
use boxwright_cache::record::{ImageRecord, NameRecord};
use serde_json::{Map, Value, json};

use super::{Engine, size_of};
use crate::error::Result;

impl Engine {
    /// Docker's JSON for the image that a word stands for, of an index the one for `platform`, or that
    /// for this machine with the id of the index.
    ///
    /// # Errors
    /// As [`Engine::find`].
    pub fn inspect(&self, text: &str, platform: Option<&Platform>) -> Result<Value> {
        let found = self.find(text)?;
        let names = self.store.names(Some(found.stored.id()))?;
        let (id, own) = (*found.stored.id(), *found.stored.manifest());
        let mut image = found.image(platform)?;
        let document = self.store.document(if platform.is_none() { &own } else { &image.manifest })?;
        if platform.is_none() {
            // Whoever asks for nothing else means what the name stands for.
            image.id = id;
        }
        // Other names may be those of the same image with other annotations, or otherwise compressed.
        let digests = names.iter().filter(|n| n.manifest == own);
        let digests: BTreeSet<String> =
            digests.filter_map(|n| Some(format!("{}@{}", n.name.familiar_name(), n.digest?))).collect();
        let mut value = describe(&image, &names, &digests);
        if let Some(document) = document {
            let Descriptor { media_type, size, .. } = described(&document)?;
            let digest = if platform.is_none() { own } else { image.manifest };
            value["Descriptor"] = json!({ "mediaType": media_type, "digest": digest, "size": size });
        }
        Ok(value)
    }
}

fn describe(image: &ImageRecord, names: &[NameRecord], digests: &BTreeSet<String>) -> Value {
    let config = &image.config;
    let tags: Vec<String> =
        names.iter().filter(|n| n.name.tag().is_some()).map(|n| n.name.familiar()).collect();
    let text = |name: &str| config.extra.get(name).cloned().unwrap_or_else(|| json!(""));
    let mut value = json!({
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment_of(config),
        "Created": config.created,
        "DockerVersion": text("docker_version"),
        "Author": config.author,
        "Config": container_config(&config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": size_of([image]),
        "GraphDriver": { "Data": null, "Name": "overlayfs" },
        "RootFS": { "Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
    });
    // Docker has them where the image has them.
    let version = config.platform().and_then(|platform| platform.os_version().map(str::to_owned));
    for (name, text) in [("Variant", config.variant.clone()), ("OsVersion", version)] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            value[name] = json!(text);
        }
    }
    value
}

/// The image's own, as docker's first builder wrote it, or that of its last step.
fn comment_of(config: &ImageConfig) -> &str {
    let own = config.extra.get("comment").and_then(Value::as_str).filter(|comment| !comment.is_empty());
    own.unwrap_or_else(|| config.history.last().map_or("", |step| &step.comment))
}

/// Docker shows the usual fields even when they are empty, so that scripts can ask for them.
fn container_config(config: &ContainerConfig) -> Value {
    let Ok(Value::Object(known)) = serde_json::to_value(config) else { return Value::Null };
    let defaults: BTreeMap<&str, Value> = BTreeMap::from([
        ("User", json!("")),
        ("Env", Value::Null),
        ("Cmd", Value::Null),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Entrypoint", Value::Null),
        ("OnBuild", Value::Null),
        ("Labels", Value::Null),
        ("ExposedPorts", Value::Null),
        ("StopSignal", json!("")),
        ("Image", json!("")),
    ]);
    let mut map: Map<String, Value> = defaults.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    map.extend(known);
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use boxwright_cache::oci::History;

    use super::*;

    #[test]
    fn the_comment_is_the_images_own_or_that_of_its_last_step() {
        let step = |comment: &str| History { comment: comment.into(), ..History::default() };
        let mut config = ImageConfig { history: vec![step("a"), step("b")], ..ImageConfig::default() };
        assert_eq!(comment_of(&config), "b");
        config.extra.insert("comment".into(), json!(""));
        assert_eq!(comment_of(&config), "b");
        config.extra.insert("comment".into(), json!("own"));
        assert_eq!(comment_of(&config), "own");
        assert_eq!(comment_of(&ImageConfig::default()), "");
    }

    #[test]
    fn fields_that_scripts_ask_for_are_always_there() {
        let mut config = ContainerConfig { env: vec!["A=1".into()], ..ContainerConfig::default() };
        config.extra.insert("Hostname".into(), json!("x"));
        let value = container_config(&config);
        assert_eq!((&value["Env"], &value["Hostname"]), (&json!(["A=1"]), &json!("x")));
        for (field, empty) in [("Cmd", Value::Null), ("Labels", Value::Null), ("WorkingDir", json!(""))] {
            assert_eq!(value.get(field), Some(&empty), "{field}");
        }
    }
}
