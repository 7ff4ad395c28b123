//! Registries that want more of us than they should get: work without end, or to reach others through us.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use boxwright_cache::image::combine::{Combined, look_up};
use boxwright_cache::oci::descriptor::{OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use boxwright_cache::oci::{Descriptor, Reference};
use boxwright_cache::registry::{Client, Host, Hosts, Options, Proxies};
use boxwright_cache::{Cancel, Digest, Error, Result};
use boxwright_testdata::peer::Certificates;
use boxwright_testdata::server::{Reply, Server};

fn fetch(options: Options, name: &str) -> Error {
    let reference: Reference = name.parse().unwrap();
    Client::new(options).fetch_manifest(&reference, &Cancel::new().unwrap()).unwrap_err()
}

fn push_blob(options: Options, server: &Server) -> Result<()> {
    let reference: Reference = format!("{}/a/b", server.address()).parse().unwrap();
    let blob = Descriptor::new(OCI_LAYER, Digest::of(b"layer"), 5);
    let mut open = || Ok(Box::new(&b"layer"[..]) as Box<dyn Read + Send>);
    let cancel = Cancel::new().unwrap();
    Client::new(options).push_blob(&reference, &blob, None, &mut open, &cancel).map(drop)
}

#[test]
fn a_list_of_referrers_that_refers_to_something_is_written_once() {
    let subject =
        |bytes: &[u8]| serde_json::to_value(Descriptor::new(OCI_MANIFEST, Digest::of(bytes), 1)).unwrap();
    let server = Server::start(move |request, before| match request.method.as_str() {
        "GET" => {
            let next = subject(&before.to_be_bytes());
            let list = serde_json::json!({ "schemaVersion": 2, "manifests": [], "subject": next });
            Reply::new(200, list.to_string()).header("Content-Type", OCI_INDEX)
        }
        // An end for the client that would go on.
        _ if before > 20 => Reply::new(400, ""),
        _ => Reply::new(201, ""),
    });
    let name: Reference = format!("{}/a/b:1", server.address()).parse().unwrap();
    let manifest = serde_json::json!({ "schemaVersion": 2, "subject": subject(b"x") }).to_string();
    let client = Client::new(Options::default());
    client.push_manifest(&name, OCI_MANIFEST, manifest.into_bytes(), &Cancel::new().unwrap()).unwrap();
    let requests = server.requests();
    let methods: Vec<&str> = requests.iter().map(|r| r.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "GET", "PUT"]);
    let list: serde_json::Value = serde_json::from_slice(&requests[2].body).unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(list.get("subject"), None);
}

#[test]
fn what_changes_something_is_not_redirected_to_another_server() {
    let victim = Server::start(|_, _| Reply::new(201, ""));
    let target = format!("http://{}/v1/secrets", victim.address());
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(307, "").header("Location", target.clone()),
    });
    let error = push_blob(Options::default(), &server).unwrap_err().to_string();
    assert!(error.contains("a redirect of a POST"), "{error}");
    let name: Reference = format!("{}/a/b:1", server.address()).parse().unwrap();
    let pushed = Client::new(Options::default()).push_manifest(
        &name,
        OCI_MANIFEST,
        b"{}".to_vec(),
        &Cancel::new().unwrap(),
    );
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("a redirect of a PUT"), "{error}");
    assert!(victim.requests().is_empty());
}

/// A server that closes each connection after its first bytes, which it keeps.
fn listener() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut first = [0; 16];
            let _ = connection.read_exact(&mut first);
            log.lock().unwrap().extend(first);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, seen)
}

#[test]
fn a_registry_on_this_machine_that_has_a_certificate_is_never_asked_without_tls() {
    let (certificates, dir) = (Certificates::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| certificates.path(name);
    let known = |host: Host, certs: Vec<PathBuf>| {
        let (address, seen) = listener();
        std::fs::create_dir(dir.path().join(&address)).unwrap();
        let mut hosts = Hosts::default();
        hosts.known.insert(address.clone(), host);
        hosts.certs.extend(certs);
        fetch(Options { hosts, ..Options::default() }, &format!("{address}/a/b:1"));
        let seen = seen.lock().unwrap().clone();
        // The type of a handshake's record (RFC 8446, 5.1).
        assert_eq!(seen.first(), Some(&0x16), "{}", String::from_utf8_lossy(&seen));
        assert!(!String::from_utf8_lossy(&seen).contains("GET"));
    };
    known(Host { ca: vec![at("ca.pem")], ..Host::default() }, Vec::new());
    known(Host { client: Some((at("client.pem"), at("client.key"))), ..Host::default() }, Vec::new());
    known(Host { insecure: true, ..Host::default() }, Vec::new());
    known(Host::default(), vec![dir.path().into()]);
}

/// What becomes of an answer of `registry.invalid`, a registry elsewhere that is known to be plain.
fn elsewhere(answer: Reply) -> String {
    let proxy = Server::start(move |_, _| answer.clone());
    let plain = Host { plain_http: true, ..Host::default() };
    let options = Options {
        hosts: Hosts { known: [("registry.invalid".to_owned(), plain)].into(), ..Hosts::default() },
        proxies: Proxies { http: Some(format!("http://{}", proxy.address())), ..Proxies::default() },
        ..Options::default()
    };
    let error = fetch(options, "registry.invalid/a/b:1").to_string();
    assert_eq!(proxy.requests()[0].path, "http://registry.invalid/v2/a/b/manifests/1");
    error
}

#[test]
fn a_registry_elsewhere_cannot_send_us_to_this_machine() {
    let here = Server::start(|_, _| Reply::new(200, r#"{"token":"t"}"#));
    let realm = format!("Bearer realm=\"http://{}/token\"", here.address());
    let error = elsewhere(Reply::new(401, "").header("WWW-Authenticate", realm));
    assert!(error.contains("no usable token server"), "{error}");
    let target = format!("http://{}/x", here.address());
    let error = elsewhere(Reply::new(307, "").header("Location", target));
    assert!(error.contains("not safe to follow"), "{error}");
    assert!(here.requests().is_empty());
}

#[test]
fn a_manifest_that_only_trickles_is_given_up() {
    let server =
        Server::start(|_, _| Reply::new(200, " ".repeat(10_000)).trickling(Duration::from_millis(50)));
    let started = Instant::now();
    let strict = Options { idle_timeout: Duration::from_millis(500), ..Options::default() };
    let error = fetch(strict, &format!("{}/a/b:1", server.address())).to_string();
    assert!(error.contains("stopped"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60), "all of it would take 500 s, and four times that");
}

#[test]
fn the_words_of_a_refusal_are_not_waited_for_without_end() {
    let server =
        Server::start(|_, _| Reply::new(400, " ".repeat(10_000)).trickling(Duration::from_millis(50)));
    let started = Instant::now();
    let error = fetch(Options::default(), &format!("{}/a/b:1", server.address())).to_string();
    assert!(error.contains("400"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60), "all of it would take 500 s");
}

/// Copies the index `top` of a registry, where `documents` are, to another repository.
fn copied(documents: Vec<String>, top: &str) -> (Result<Descriptor>, usize) {
    let path = |document: String| (format!("/v2/a/manifests/{}", Digest::of(document.as_bytes())), document);
    let documents: HashMap<String, String> = documents.into_iter().map(path).collect();
    let server = Server::start(move |request, _| {
        if request.method != "GET" {
            return Reply::new(201, "");
        }
        match documents.get(&request.path) {
            Some(document) => Reply::new(200, document.as_str()).header("Content-Type", OCI_INDEX),
            None => Reply::new(404, ""),
        }
    });
    let name = |name: &str| -> Reference { format!("{}/{name}", server.address()).parse().unwrap() };
    let (client, cancel) = (Client::new(Options::default()), Cancel::new().unwrap());
    let found = look_up(&client, &name(&format!("a@{}", Digest::of(top.as_bytes()))), &cancel).unwrap();
    let pushed = Combined::of(&[found], true).unwrap().push(&client, &name("b:1"), false, &cancel);
    (pushed, server.requests().len())
}

fn index_of(entries: &[Descriptor]) -> String {
    serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string()
}

fn entry(document: &str) -> Descriptor {
    Descriptor::new(OCI_INDEX, Digest::of(document.as_bytes()), document.len() as u64)
}

#[test]
fn an_index_that_names_indexes_many_times_is_copied_once() {
    let mut documents = vec![index_of(&[])];
    for _ in 0..3 {
        let below = entry(documents.last().unwrap());
        documents.push(index_of(&vec![below; 30]));
    }
    let top = documents.last().unwrap().clone();
    let (pushed, requests) = copied(documents, &top);
    assert_eq!(pushed.unwrap().digest, Digest::of(top.as_bytes()));
    assert_eq!(requests, 1 + 2 * 3 + 1, "the index, those below it fetched and put, and itself");
}

/// Whatever is asked for, something refers to it, and something to that.
#[test]
fn a_chain_of_referrers_without_end_is_not_followed() {
    let top = index_of(&[]);
    let made =
        Mutex::new(HashMap::from([(Digest::of(top.as_bytes()).to_string(), (OCI_INDEX, top.clone()))]));
    let server = Server::start(move |request, _| {
        let path = request.path.strip_prefix("/v2/a/").and_then(|path| path.split_once('/'));
        let (kind, document) = match (request.method.as_str(), path) {
            ("PUT", _) => return Reply::new(201, "").header("OCI-Subject", "noted"),
            ("HEAD", _) => return Reply::new(200, ""),
            (_, Some(("referrers", subject))) => {
                let next = referring_to(subject);
                let digest = Digest::of(next.as_bytes());
                made.lock().unwrap().insert(digest.to_string(), (OCI_MANIFEST, next.clone()));
                (OCI_INDEX, index_of(&[Descriptor::new(OCI_MANIFEST, digest, next.len() as u64)]))
            }
            (_, Some((_, digest))) => made.lock().unwrap()[digest].clone(),
            (_, None) => return Reply::new(404, ""),
        };
        Reply::new(200, document).header("Content-Type", kind)
    });
    let name = |name: &str| -> Reference { format!("{}/{name}", server.address()).parse().unwrap() };
    let (client, cancel) = (Client::new(Options::default()), Cancel::new().unwrap());
    let found = look_up(&client, &name(&format!("a@{}", Digest::of(top.as_bytes()))), &cancel).unwrap();
    let pushed = Combined::of(&[found], true).unwrap().push(&client, &name("b:1"), true, &cancel);
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("what refers to it has no end"), "{error}");
    let asked = |part: &str| server.requests().iter().filter(|request| request.path.contains(part)).count();
    assert_eq!((asked("/v2/a/referrers/"), asked("/v2/b/manifests/sha256:")), (5, 4));
}

fn referring_to(subject: &str) -> String {
    let empty = Descriptor::new("application/vnd.oci.empty.v1+json", Digest::of(b"{}"), 2);
    let subject = Descriptor::new(OCI_MANIFEST, subject.parse().unwrap(), 1);
    serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [], "subject": subject })
        .to_string()
}

#[test]
fn an_index_of_more_than_anybody_has_is_not_copied() {
    let documents: Vec<String> = (0..1001).map(|n| format!("{} {}", index_of(&[]), " ".repeat(n))).collect();
    let top = index_of(&documents.iter().map(|document| entry(document)).collect::<Vec<_>>());
    let (pushed, _) = copied([documents, vec![top.clone()]].concat(), &top);
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("more than 1000 images"), "{error}");
}
