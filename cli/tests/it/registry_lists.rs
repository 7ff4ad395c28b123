//! What repositories have besides images by name: tags, what refers to an image, and what others wrote there to be shown.

use boxwright_cache::oci::descriptor::OCI_MANIFEST;
use boxwright_cache::oci::{Descriptor, Reference};
use boxwright_cache::registry::{Client, Options};
use boxwright_cache::{Cancel, Digest};
use boxwright_testdata::peer::Registry;
use boxwright_testdata::server::{Reply, Server};
use serde_json::{Value, json};

use crate::terminal::Terminal;
use crate::tool::{Boxwright, Context};

const KIND: &str = "application/x.signature";

/// Pushes a manifest that refers to what has this name, as tools for signatures do; gives its digest.
fn sign(name: &str) -> String {
    let (client, cancel) = (Client::new(Options::default()), Cancel::new().unwrap());
    let name: Reference = name.parse().unwrap();
    let subject = client.fetch_manifest(&name, &cancel).unwrap();
    let subject = Descriptor::new(subject.media_type, subject.digest, subject.bytes.len() as u64);
    let empty = Descriptor::new("application/vnd.oci.empty.v1+json", Digest::of(b"{}"), 2);
    let mut open = || Ok(Box::new(std::io::Cursor::new(b"{}")) as Box<dyn std::io::Read + Send>);
    client.push_blob(&name, &empty, None, &mut open, &cancel).unwrap();
    let manifest =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": KIND, "config": empty,
        "layers": [], "subject": subject, "annotations": { "by": "me" }})
        .to_string();
    let digest = Digest::of(manifest.as_bytes());
    client.push_manifest(&name.by_digest(digest), OCI_MANIFEST, manifest.into(), &cancel).unwrap();
    digest.to_string()
}

#[test]
fn tags_and_what_refers_to_an_image_are_listed_and_copied() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let (name, repository) = (registry.name("app:1"), registry.name("app"));
    boxwright.build(&Context::new("FROM scratch\nLABEL a=b\n"), &["--push", "-t", &name]).ok();
    let tools = |args: &[&str]| boxwright.ok(&[&["imagetools"], args].concat());
    assert_eq!(tools(&["tags", &repository]), "1\n");
    let plain = tools(&["inspect", &name]);
    assert_eq!(tools(&["inspect", "--referrers", &name]), plain, "nothing refers to it yet");
    let signature = sign(&name);
    let expected = format!(
        "{plain}               \nReferrers: \n  Name:         {name}@{signature}\n  MediaType:    {OCI_MANIFEST}\n\
         \x20 ArtifactType: {KIND}\n  Annotations:  \n    by:         me\n"
    );
    let shown = tools(&["inspect", "--referrers", "--artifact-type", KIND, &name]);
    assert_eq!(shown.replace(' ', ""), expected.replace(' ', ""));
    assert_eq!(tools(&["inspect", "--referrers", "--artifact-type", "application/x", &name]), plain);
    let referrers = tools(&["inspect", "--referrers", "--format", "{{json .Referrers}}", &name]);
    let referrers: Value = serde_json::from_str(&referrers).unwrap();
    assert_eq!((&referrers[0]["digest"], &referrers[1]), (&signature.as_str().into(), &Value::Null));
    let (copy, bare) = (registry.name("copy:1"), registry.name("bare:1"));
    tools(&["create", "--prefer-index=false", "--referrers", "-t", &copy, &name]);
    tools(&["create", "--prefer-index=false", "-t", &bare, &name]);
    assert!(tools(&["inspect", "--referrers", &copy]).contains(&signature));
    assert!(!tools(&["inspect", "--referrers", &bare]).contains("Referrers"));
    boxwright.run(&["imagetools", "tags", &name]).fails_with(1).says("a repository is wanted");
    boxwright.run(&["imagetools", "tags", &registry.name("none")]).fails_with(1).says("none");
    boxwright.run(&["imagetools", "inspect", "--raw", "--referrers", &name]).fails_with(125);
}

#[test]
fn what_a_registry_says_stays_in_its_line_and_drives_no_terminal() {
    let digest = format!("sha256:{:064}", 0);
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "annotations":
        { "a": "b\n  Name: trusted\u{9b}2J\u{1b}]0;title\u{7}" }});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry]});
    let server = Server::start(move |_, _| {
        Reply::new(200, index.to_string()).header("Content-Type", "application/vnd.oci.image.index.v1+json")
    });
    let shown = Boxwright::new().ok(&["imagetools", "inspect", &format!("{}/a:1", server.address())]);
    assert!(shown.contains("b\u{fffd}  Name: trusted\u{fffd}2J\u{fffd}]0;title\u{fffd}\n"), "{shown:?}");
}

#[test]
fn what_an_image_says_drives_no_terminal_and_comes_unchanged_out_of_a_pipe() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nLABEL a=\"b\u{1b}]0;title\u{7}c\"\n");
    boxwright.build(&context, &["-t", "a"]).ok();
    let inspect = ["image", "inspect", "--format", "{{.Config.Labels.a}}", "a"];
    assert_eq!(boxwright.ok(&inspect), "b\u{1b}]0;title\u{7}c\n");
    let mut terminal = Terminal::new();
    let mut running = terminal.start(&boxwright.command(&inspect));
    assert_eq!(terminal.wait_for("\n"), "b\u{fffd}]0;title\u{fffd}c\r\n");
    assert_eq!(running.wait(), 0);
}

#[test]
fn a_config_has_an_end() {
    let (boxwright, label) = (Boxwright::new(), "x".repeat(60_000));
    let labels: String = (0..150).map(|n| format!("LABEL l{n}={label}\n")).collect();
    let context = Context::new(&format!("FROM scratch\n{labels}"));
    boxwright.build(&context, &["-t", "a"]).fails_with(1).says("and 8388608 is the most");
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
}
