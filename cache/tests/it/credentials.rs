//! Where a login goes, and where it must not: rule R7, with servers that want it although it is not for them.

use std::fs;
use std::io::Read;
use std::sync::{Arc, Mutex};

use boxwright_cache::oci::descriptor::{OCI_LAYER, OCI_MANIFEST};
use boxwright_cache::oci::{Descriptor, Reference};
use boxwright_cache::registry::{Client, Logins, Options};
use boxwright_cache::{Cancel, Digest, Error};
use boxwright_testdata::server::{Reply, Request, Server};
use tempfile::TempDir;

/// `me:s3cret`.
const BASIC: &str = "Basic bWU6czNjcmV0";

/// A client with a login for one host alone.
fn client(host: &str) -> (TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6czNjcmV0"}}}}}}"#);
    fs::write(dir.path().join("config.json"), config).unwrap();
    let logins = Logins { dir: dir.path().to_owned(), programs: Vec::new(), remark: |_| {} };
    (dir, Client::new(Options { logins: Some(logins), ..Options::default() }))
}

/// Wants a password for everything.
fn guarded(inner: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request, _| match request.header("authorization") {
        Some(BASIC) => inner(request),
        _ => Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="here""#),
    })
}

fn reference(server: &Server) -> Reference {
    format!("{}/a/b:1", server.address()).parse().unwrap()
}

fn manifest() -> Reply {
    Reply::new(200, r#"{"schemaVersion":2}"#).header("Content-Type", OCI_MANIFEST)
}

fn blob() -> Descriptor {
    Descriptor::new(OCI_LAYER, Digest::of(b"layer"), 5)
}

fn said(server: &Server) -> String {
    format!("{:?}", server.requests())
}

#[test]
fn a_password_opens_its_registry_and_is_not_given_to_another() {
    let (own, other) = (guarded(|_| manifest()), guarded(|_| manifest()));
    let (_dir, client) = client(&own.address());
    let cancel = Cancel::new().unwrap();
    client.fetch_manifest(&reference(&own), &cancel).unwrap();
    let error = client.fetch_manifest(&reference(&other), &cancel).unwrap_err().to_string();
    assert!(error.contains("wants a login"), "{error}");
    assert!(other.requests().iter().all(|r| r.header("authorization").is_none()));
    // What it is for is remembered: the second request is not refused first.
    let before = own.requests().len();
    client.fetch_manifest(&reference(&own), &cancel).unwrap();
    assert_eq!(own.requests().len(), before + 1);
}

#[test]
fn a_server_that_a_registry_redirects_to_asks_in_vain() {
    let thief = guarded(|_| Reply::new(200, "layer"));
    let target = format!("http://{}/blob", thief.address());
    let registry = guarded(move |_| Reply::new(307, "").header("Location", target.clone()));
    let (_dir, client) = client(&registry.address());
    let error = client.open_blob(&reference(&registry), &blob(), &Cancel::new().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Registry { .. }), "{error}");
    assert_eq!(thief.requests().len(), 1, "it was asked once, and not again with a password");
    assert!(!said(&thief).contains("authorization"), "{}", said(&thief));
}

#[test]
fn a_server_that_takes_an_upload_asks_in_vain() {
    let thief = guarded(|_| Reply::new(201, ""));
    let target = format!("http://{}/up", thief.address());
    let registry = guarded(move |request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(202, "").header("Location", target.clone()),
    });
    let (_dir, client) = client(&registry.address());
    let mut open = || Ok(Box::new(&b"layer"[..]) as Box<dyn Read + Send>);
    let cancel = Cancel::new().unwrap();
    client.push_blob(&reference(&registry), &blob(), None, &mut open, &cancel).unwrap_err();
    assert!(!thief.requests().is_empty());
    assert!(!said(&thief).contains("authorization"), "{}", said(&thief));
}

#[test]
fn a_token_server_gets_the_password_of_its_registry_and_does_not_pass_it_on() {
    let thief = Server::start(|_, _| Reply::new(200, r#"{"token":"t"}"#));
    let tokens = Arc::new(Mutex::new(String::new()));
    let target = Arc::clone(&tokens);
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer t") => manifest(),
        _ => {
            let realm = format!("Bearer realm=\"http://{}/token\"", target.lock().unwrap());
            Reply::new(401, "").header("WWW-Authenticate", realm)
        }
    });
    let honest = Server::start(|request, _| match request.header("authorization") {
        Some(BASIC) => Reply::new(200, r#"{"token":"t"}"#),
        _ => Reply::new(401, ""),
    });
    *tokens.lock().unwrap() = honest.address();
    let cancel = Cancel::new().unwrap();
    let (_dir, first) = client(&registry.address());
    first.fetch_manifest(&reference(&registry), &cancel).unwrap();
    assert!(honest.requests()[0].path.contains("account=me"), "{}", said(&honest));
    assert!(!said(&registry).contains("czNjcmV0"), "the registry itself gets the token alone");

    let elsewhere = format!("http://{}/token", thief.address());
    let redirecting = Server::start(move |_, _| Reply::new(307, "").header("Location", elsewhere.clone()));
    *tokens.lock().unwrap() = redirecting.address();
    let (_dir, second) = client(&registry.address());
    let error = second.fetch_manifest(&reference(&registry), &cancel).unwrap_err().to_string();
    assert!(error.contains("307") && !error.contains("s3cret"), "{error}");
    assert!(thief.requests().is_empty());
}

#[test]
fn a_token_server_without_tls_on_another_machine_is_not_asked() {
    let realm = r#"Bearer realm="http://tokens.example/token""#;
    let registry = Server::start(move |_, _| Reply::new(401, "").header("WWW-Authenticate", realm));
    let (_dir, client) = client(&registry.address());
    let error =
        client.fetch_manifest(&reference(&registry), &Cancel::new().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no usable token server"), "{error}");
}

#[test]
fn what_is_public_is_pulled_where_the_login_cannot_be_found_and_nothing_is_pushed() {
    let tokens = Server::start(|_, _| Reply::new(200, r#"{"token":"t"}"#));
    let realm = format!("Bearer realm=\"http://{}/token\"", tokens.address());
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer t") => manifest(),
        _ => Reply::new(401, "").header("WWW-Authenticate", realm.clone()),
    });
    let (dir, client) = client(&registry.address());
    fs::write(dir.path().join("config.json"), r#"{"credsStore":"nosuch"}"#).unwrap();
    let (reference, cancel) = (reference(&registry), Cancel::new().unwrap());
    client.fetch_manifest(&reference, &cancel).unwrap();
    let error = client.push_manifest(&reference, OCI_MANIFEST, b"{}".to_vec(), &cancel).unwrap_err();
    assert!(error.to_string().contains("docker-credential-nosuch"), "{error}");
    client.fetch_manifest(&reference, &cancel).unwrap();
}

#[test]
fn a_wrong_password_is_tried_once() {
    let registry =
        Server::start(|_, _| Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="here""#));
    let (_dir, client) = client(&registry.address());
    let error =
        client.fetch_manifest(&reference(&registry), &Cancel::new().unwrap()).unwrap_err().to_string();
    assert!(error.contains("denied") && !error.contains("s3cret"), "{error}");
    assert_eq!(registry.requests().len(), 2);
}

#[test]
fn a_token_that_ends_during_a_pull_is_replaced() {
    let given = Arc::new(Mutex::new(0));
    let count = Arc::clone(&given);
    let tokens = Server::start(move |_, _| {
        let mut given = count.lock().unwrap();
        *given += 1;
        Reply::new(200, format!(r#"{{"token":"t{given}","expires_in":3600}}"#))
    });
    let realm = format!("Bearer realm=\"http://{}/token\"", tokens.address());
    let bytes: Vec<u8> = (0..500_000).map(|i| (i % 251) as u8).collect();
    let layer = Descriptor::new(OCI_LAYER, Digest::of(&bytes), bytes.len() as u64);
    let (served, last) = (bytes.clone(), Arc::clone(&given));
    // Each token is good for one request, and each answer breaks off.
    let used = Mutex::new(0);
    let registry = Server::start(move |request, _| {
        let mut used = used.lock().unwrap();
        let now = *last.lock().unwrap();
        if request.header("authorization") != Some(&format!("Bearer t{now}")) || *used == now {
            return Reply::new(401, "").header("WWW-Authenticate", realm.clone());
        }
        *used = now;
        let start = request.header("range").map_or(0, |r| r[6..r.len() - 1].parse().unwrap());
        let range = format!("bytes {start}-{}/{}", served.len() - 1, served.len());
        let rest = &served[start..];
        let status = if start == 0 { 200 } else { 206 };
        Reply::new(status, rest).header("Content-Range", range).cut(rest.len().min(200_000))
    });
    let client = Client::new(Options::default());
    let mut reader = client.open_blob(&reference(&registry), &layer, &Cancel::new().unwrap()).unwrap();
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    assert_eq!(*given.lock().unwrap(), 3);
}

#[test]
fn a_token_of_the_user_s_is_for_its_registry_and_no_token_server() {
    let thief = Server::start(|_, _| Reply::new(200, r#"{"token":"other"}"#));
    let realm = format!(r#"Bearer realm="http://{}/token",service="x""#, thief.address());
    let guarded = |realm: String| {
        Server::start(move |request, _| match request.header("authorization") {
            Some("Bearer t0ken") => manifest(),
            _ => Reply::new(401, "").header("WWW-Authenticate", realm.clone()),
        })
    };
    let (own, basic) = (guarded(realm), guarded(r#"Basic realm="x""#.to_owned()));
    let (dir, cancel) = (tempfile::tempdir().unwrap(), Cancel::new().unwrap());
    let entry = r#"{"registrytoken":"t0ken"}"#;
    let config = format!(r#"{{"auths":{{"{}":{entry},"{}":{entry}}}}}"#, own.address(), basic.address());
    fs::write(dir.path().join("config.json"), config).unwrap();
    let logins = Logins { dir: dir.path().to_owned(), programs: Vec::new(), remark: |_| {} };
    let client = Client::new(Options { logins: Some(logins), ..Options::default() });
    client.fetch_manifest(&reference(&own), &cancel).unwrap();
    assert!(thief.requests().is_empty());
    // It is no password.
    let error = client.fetch_manifest(&reference(&basic), &cancel).unwrap_err().to_string();
    assert!(error.contains("wants a login") && !error.contains("t0ken"), "{error}");
    assert!(!said(&basic).contains("t0ken"));
}
