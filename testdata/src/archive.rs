//! Image archives made from layer tars: the docker layout and the OCI layout, each as one tar.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tar::Tar;

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// What `docker save` of the releases before 25 writes, as far as readers need it.
pub fn docker(name: &str, config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = image_config(config, layers);
    let config_name = format!("{}.json", sha256(&config));
    let layer_names: Vec<_> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": layer_names }]);
    let mut tar = Tar::new().file(&config_name, 0o644, &config);
    for (name, layer) in layer_names.iter().zip(layers) {
        tar = tar.file(name, 0o644, layer);
    }
    tar.file("manifest.json", 0o644, manifest.to_string()).finish()
}

/// An OCI image layout whose only image is called `name`. `layers` are stored as they are, with `layer_type`.
pub fn oci(name: &str, config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = image_config(config, layers);
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", sha256(bytes)),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|l| descriptor("layer.v1.tar", l)).collect::<Vec<_>>(),
    })
    .to_string();
    let mut entry = descriptor("manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    let mut tar = Tar::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#).file(
        "index.json",
        0o644,
        index.to_string(),
    );
    for blob in [manifest.as_bytes(), &config].into_iter().chain(layers.iter().map(Vec::as_slice)) {
        tar = tar.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob);
    }
    tar.finish()
}

/// An image config whose `config` member is the one given.
fn image_config(config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|l| format!("sha256:{}", sha256(l))).collect();
    let history: Vec<_> = layers.iter().map(|_| json!({ "created_by": "fixture" })).collect();
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
    .to_string()
    .into_bytes()
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
