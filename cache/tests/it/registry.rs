//! The registry client against a server that lies, breaks off and points elsewhere (rules R6, R7, R9).

use std::io::Read;
use std::time::Duration;

use boxwright_cache::oci::descriptor::{OCI_LAYER, OCI_MANIFEST};
use boxwright_cache::oci::{Descriptor, Reference};
use boxwright_cache::registry::{Client, Options, Sent};
use boxwright_cache::{Cancel, Digest, Error, Result};

use boxwright_testdata::server::{Reply, Request, Server};

fn client() -> Client {
    Client::new(Options { idle_timeout: Duration::from_secs(5), ..Options::default() })
}

fn reference(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.address()).parse().unwrap()
}

/// Bytes that differ from place to place, so that a wrong range shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251) as u8 ^ (i % 251) as u8).collect()
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::new(OCI_LAYER, Digest::of(bytes), bytes.len() as u64)
}

fn fetch(server: &Server, blob: &Descriptor) -> Result<Vec<u8>> {
    let mut reader = client().open_blob(&reference(server, "a/b"), blob, &Cancel::new().unwrap())?;
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(e) => Err(*e.into_inner().unwrap().downcast::<Error>().unwrap()),
    }
}

const MANIFEST: &str = r#"{"schemaVersion":2}"#;

fn manifest_reply() -> Reply {
    Reply::new(200, MANIFEST).header("Content-Type", format!("{OCI_MANIFEST}; charset=utf-8"))
}

#[test]
fn a_manifest_comes_with_its_digest_and_media_type() {
    let server = Server::start(|_, _| manifest_reply());
    let fetched = client().fetch_manifest(&reference(&server, "a/b:1"), &Cancel::new().unwrap()).unwrap();
    assert_eq!(
        (fetched.bytes.as_slice(), fetched.digest),
        (MANIFEST.as_bytes(), Digest::of(MANIFEST.as_bytes()))
    );
    assert_eq!(fetched.media_type, OCI_MANIFEST);
    let request = &server.requests()[0];
    assert_eq!(request.path, "/v2/a/b/manifests/1");
    assert_eq!(request.header("accept").unwrap().split(", ").count(), 4);
}

#[test]
fn a_manifest_that_is_not_what_was_asked_for_is_refused() {
    let server = Server::start(|_, _| manifest_reply());
    let wrong = reference(&server, "a/b").with_digest(Digest::of(b"other"));
    let cancel = Cancel::new().unwrap();
    assert!(matches!(client().fetch_manifest(&wrong, &cancel), Err(Error::Mismatch { .. })));
    let server =
        Server::start(|_, _| manifest_reply().header("Docker-Content-Digest", Digest::of(b"x").to_string()));
    let announced = client().fetch_manifest(&reference(&server, "a/b"), &cancel);
    assert!(matches!(announced, Err(Error::Mismatch { .. })));
}

#[test]
fn a_giant_manifest_is_refused_whether_announced_or_not() {
    let announced = Server::start(|_, _| Reply::new(200, vec![b' '; 5 << 20]));
    let chunked = Server::start(|_, _| {
        let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 5 << 20, " ".repeat(5 << 20));
        Reply::new(200, body).header("Transfer-Encoding", "chunked")
    });
    for server in [announced, chunked] {
        let error = client().fetch_manifest(&reference(&server, "a/b"), &Cancel::new().unwrap()).unwrap_err();
        assert!(error.to_string().contains("longer than 4194304 bytes"), "{error}");
    }
}

#[test]
fn a_manifest_that_breaks_off_is_asked_for_again() {
    let server = Server::start(|_, before| match before {
        0 | 1 => manifest_reply().cut(5),
        _ => manifest_reply(),
    });
    let fetched = client().fetch_manifest(&reference(&server, "a/b:1"), &Cancel::new().unwrap()).unwrap();
    assert_eq!(fetched.bytes, MANIFEST.as_bytes());
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn an_unknown_image_is_not_found_and_asked_for_once() {
    let server = Server::start(|_, _| Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#));
    let error = client().fetch_manifest(&reference(&server, "a/b:1"), &Cancel::new().unwrap()).unwrap_err();
    assert!(matches!(&error, Error::NotFound { what: "image", name } if name.ends_with("/a/b:1")), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_passing_failure_is_tried_again_and_a_lasting_one_reported_with_its_words() {
    let server = Server::start(|_, before| match before {
        0 => Reply::new(503, "").header("Retry-After", "0"),
        1 => Reply::new(429, "").header("Retry-After", "0"),
        _ => manifest_reply(),
    });
    client().fetch_manifest(&reference(&server, "a/b"), &Cancel::new().unwrap()).unwrap();
    assert_eq!(server.requests().len(), 3);
    let body = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"slow\\u001b[31m down\"}]}";
    let server = Server::start(move |_, _| Reply::new(429, body).header("Retry-After", "3600"));
    let error =
        client().fetch_manifest(&reference(&server, "a/b"), &Cancel::new().unwrap()).unwrap_err().to_string();
    assert!(error.contains("too many requests, try again in 3600 s (slow[31m down)"), "{error:?}");
    assert_eq!(server.requests().len(), 1, "nobody waits for an hour");
}

#[test]
fn a_blob_with_other_bytes_or_another_size_is_an_error_at_its_end() {
    let good = pattern(300_000);
    let mut bad = good.clone();
    bad[150_000] ^= 1;
    let descriptor = layer(&good);
    let server = Server::start(move |_, _| Reply::new(200, bad.clone()));
    assert!(matches!(fetch(&server, &descriptor), Err(Error::Mismatch { .. })));
    let longer = pattern(300_001);
    let server = Server::start(move |_, _| Reply::new(200, longer.clone()));
    assert!(matches!(fetch(&server, &descriptor), Err(Error::Mismatch { .. })));
    let body = [b"493e1\r\n".to_vec(), pattern(300_001), b"\r\n0\r\n\r\n".to_vec()].concat();
    let server =
        Server::start(move |_, _| Reply::new(200, body.clone()).header("Transfer-Encoding", "chunked"));
    assert!(
        matches!(fetch(&server, &descriptor), Err(Error::Mismatch { .. })),
        "a length that was not announced"
    );
}

fn ranged(bytes: &[u8], request: &Request, cut: usize) -> Reply {
    let Some(range) = request.header("range") else { return Reply::new(200, bytes).cut(cut) };
    let start: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    let rest = &bytes[start..];
    let content_range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::new(206, rest).header("Content-Range", content_range).cut(cut.min(rest.len()))
}

#[test]
fn a_transfer_that_breaks_again_and_again_is_resumed_where_it_broke() {
    let bytes = pattern(1_000_000);
    let (descriptor, served) = (layer(&bytes), bytes.clone());
    let server = Server::start(move |request, _| ranged(&served, request, 150_000));
    assert_eq!(fetch(&server, &descriptor).unwrap(), bytes);
    let requests = server.requests();
    assert!(requests.len() >= 7, "{} requests", requests.len());
    assert!(requests[1..].iter().all(|r| r.header("range").is_some()));
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let bytes = pattern(500_000);
    let (descriptor, served) = (layer(&bytes), bytes.clone());
    let server = Server::start(move |_, before| match before {
        0 => Reply::new(200, served.clone()).cut(200_000),
        _ => Reply::new(200, served.clone()),
    });
    assert_eq!(fetch(&server, &descriptor).unwrap(), bytes);
}

#[test]
fn a_transfer_without_progress_is_given_up() {
    let bytes = pattern(100_000);
    let (descriptor, served) = (layer(&bytes), bytes.clone());
    let server = Server::start(move |request, _| ranged(&served, request, 0));
    let error = fetch(&server, &descriptor).unwrap_err();
    assert!(matches!(error, Error::Registry { .. }), "{error}");
    assert!(server.requests().len() < 10);
}

#[test]
fn a_transfer_that_only_trickles_is_given_up() {
    let bytes = pattern(100_000);
    let (descriptor, served) = (layer(&bytes), bytes.clone());
    let server =
        Server::start(move |_, _| Reply::new(200, served.clone()).trickling(Duration::from_millis(20)));
    let strict = Client::new(Options { idle_timeout: Duration::from_millis(500), ..Options::default() });
    let (mut read, reference) = (Vec::new(), reference(&server, "a/b"));
    let mut reader = strict.open_blob(&reference, &descriptor, &Cancel::new().unwrap()).unwrap();
    let error = reader.read_to_end(&mut read).unwrap_err();
    // A server that stalls for once is told from one that trickles; all of it would take half an hour.
    assert!(error.to_string().contains("stopped"), "{error}");
    assert!(read.len() < 1000, "{} bytes", read.len());
}

#[test]
fn a_cancelled_transfer_ends_at_once_however_silent_the_server() {
    let (asked, is_asked) = std::sync::mpsc::sync_channel(1);
    let server = Server::start(move |_, _| {
        asked.send(()).unwrap();
        std::thread::park();
        unreachable!("nobody wakes this thread")
    });
    let (cancel, reference) = (Cancel::new().unwrap(), reference(&server, "a/b"));
    let raiser = cancel.clone();
    let thread = std::thread::spawn(move || {
        is_asked.recv().unwrap();
        raiser.raise();
    });
    let started = std::time::Instant::now();
    let patient = Client::new(Options { idle_timeout: Duration::from_secs(60), ..Options::default() });
    let result = patient.open_blob(&reference, &layer(b"x"), &cancel);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert!(started.elapsed() < Duration::from_secs(30), "before the idle timeout");
    thread.join().unwrap();
}

/// A registry that wants a token for everything, and the token server beside it.
fn guarded(token_server: String, inner: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request, _| {
        if request.header("authorization") == Some("Bearer t0ken") {
            return inner(request);
        }
        let challenge = format!(r#"Bearer realm="http://{token_server}/token",service="it's"#);
        Reply::new(401, "{}").header("WWW-Authenticate", challenge + "\"")
    })
}

fn token_server() -> Server {
    Server::start(|_, _| Reply::new(200, r#"{"token":"t0ken","expires_in":300}"#))
}

#[test]
fn a_token_is_fetched_once_for_a_repository_and_anew_for_another() {
    let tokens = token_server();
    let server = guarded(tokens.address(), |_| manifest_reply());
    let (client, cancel) = (client(), Cancel::new().unwrap());
    for name in ["a/b:1", "a/b:2", "a/c:1"] {
        client.fetch_manifest(&reference(&server, name), &cancel).unwrap();
    }
    let asked: Vec<String> = tokens.requests().into_iter().map(|r| r.path).collect();
    let query = |name: &str| format!("/token?service=it%27s&scope=repository%3Aa%2F{name}%3Apull");
    assert_eq!(asked, [query("b"), query("c")]);
}

#[test]
fn no_token_follows_a_redirect() {
    let bytes = pattern(10_000);
    let (descriptor, served) = (layer(&bytes), bytes.clone());
    let elsewhere = Server::start(move |_, _| Reply::new(200, served.clone()));
    let tokens = token_server();
    let target = format!("http://{}/data?signature=s3cret", elsewhere.address());
    let server = guarded(tokens.address(), move |_| Reply::new(307, "").header("Location", target.clone()));
    assert_eq!(fetch(&server, &descriptor).unwrap(), bytes);
    assert!(server.requests().iter().any(|r| r.header("authorization").is_some()));
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].header("authorization").is_none() && seen[0].header("cookie").is_none());
}

#[test]
fn redirects_to_an_unsafe_place_or_in_a_circle_end_in_an_error_without_secrets() {
    let server = Server::start(|_, _| {
        Reply::new(302, "").header("Location", "http://registry.example/x?signature=s3cret")
    });
    let error = fetch(&server, &layer(b"x")).unwrap_err().to_string();
    assert!(error.contains("redirect to http://registry.example") && !error.contains("s3cret"), "{error}");
    let server = Server::start(|_, _| Reply::new(302, "").header("Location", "?signature=s3cret"));
    let error = fetch(&server, &layer(b"x")).unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects") && !error.contains("s3cret"), "{error}");
}

#[test]
fn a_login_that_is_not_there_is_said_to_be_needed() {
    let server = Server::start(|_, _| Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="x""#));
    let error = fetch(&server, &layer(b"x")).unwrap_err().to_string();
    assert!(error.contains("wants a login"), "{error}");
    let far = r#"Bearer realm="http://tokens.example/t""#;
    let server = Server::start(move |_, _| Reply::new(401, "").header("WWW-Authenticate", far));
    let error = fetch(&server, &layer(b"x")).unwrap_err().to_string();
    assert!(error.contains("no usable token server"), "{error}");
}

fn push(server: &Server, bytes: &[u8], descriptor: &Descriptor) -> Result<Sent> {
    let owned = bytes.to_vec();
    let mut open = move || Ok(Box::new(std::io::Cursor::new(owned.clone())) as Box<dyn Read + Send>);
    client().push_blob(&reference(server, "a/b"), descriptor, None, &mut open, &Cancel::new().unwrap())
}

#[test]
fn an_upload_that_broke_is_sent_again_whole() {
    let bytes = pattern(700_000);
    let server = Server::start(|request, before| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/upload/1?state=x"),
        _ if before < 4 => Reply::new(500, ""),
        _ => Reply::new(201, ""),
    });
    assert_eq!(push(&server, &bytes, &layer(&bytes)).unwrap(), Sent::Uploaded);
    let puts: Vec<Request> = server.requests().into_iter().filter(|r| r.method == "PUT").collect();
    assert!(puts.len() > 1);
    let last = puts.last().unwrap();
    assert_eq!(last.body, bytes);
    assert!(last.path.starts_with("/upload/1?state=x&digest=sha256%3A"), "{}", last.path);
}

#[test]
fn an_upload_elsewhere_gets_no_token() {
    let elsewhere = Server::start(|_, _| Reply::new(201, ""));
    let tokens = token_server();
    let target = format!("http://{}/up", elsewhere.address());
    let server = guarded(tokens.address(), move |request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(202, "").header("Location", target.clone()),
    });
    assert_eq!(push(&server, b"abc", &layer(b"abc")).unwrap(), Sent::Uploaded);
    assert!(elsewhere.requests()[0].header("authorization").is_none());
}

#[test]
fn what_is_pushed_must_be_what_was_promised() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        _ => Reply::new(201, ""),
    });
    for actual in [&b"abd"[..], b"ab"] {
        assert!(matches!(push(&server, actual, &layer(b"abc")), Err(Error::Mismatch { .. })));
    }
}

#[test]
fn a_blob_that_is_there_is_not_sent() {
    let server = Server::start(|_, _| Reply::new(200, ""));
    assert_eq!(push(&server, b"abc", &layer(b"abc")).unwrap(), Sent::Present);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_registry_that_takes_note_of_a_subject_needs_no_list_of_ours() {
    let server = Server::start(|_, _| Reply::new(201, "").header("OCI-Subject", "sha256:0"));
    let subject = Descriptor::new(OCI_MANIFEST, Digest::of(b"x"), 1);
    let manifest = format!(r#"{{"schemaVersion":2,"subject":{}}}"#, serde_json::to_string(&subject).unwrap());
    let (name, cancel) = (reference(&server, "a/b:1"), Cancel::new().unwrap());
    client().push_manifest(&name, OCI_MANIFEST, manifest.into_bytes(), &cancel).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn nobody_listening_is_one_clear_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference: Reference = format!("{free}/a/b").parse().unwrap();
    let error = client().fetch_manifest(&reference, &Cancel::new().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{free}: connecting: ")) && error.contains("refused"), "{error}");
}
