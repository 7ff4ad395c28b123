//! Pushing over connections that break, to registries that mount, refuse, and want new tokens on the way.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use boxwright_cache::digest::Algorithm;
use boxwright_cache::oci::descriptor::OCI_LAYER;
use boxwright_cache::oci::{Descriptor, Reference};
use boxwright_cache::registry::{Client, Options, Sent};
use boxwright_cache::{Cancel, Digest, Error, Result};
use boxwright_testdata::dropping::Dropping;
use boxwright_testdata::peer::Registry;
use boxwright_testdata::server::{Reply, Request, Server};

fn client() -> Client {
    Client::new(Options { idle_timeout: Duration::from_secs(20), ..Options::default() })
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Arc<Vec<u8>> {
    Arc::new((0..len).map(|i| (i / 251) as u8 ^ (i % 251) as u8 ^ (i / 65_521) as u8).collect())
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(OCI_LAYER, Digest::of(bytes), bytes.len() as u64)
}

fn push(client: &Client, host: &str, bytes: &Arc<Vec<u8>>, from: Option<&str>) -> Result<Sent> {
    let reference: Reference = format!("{host}/a/b").parse().unwrap();
    let mut open = || Ok(Box::new(Cursor::new(bytes.as_ref().clone())) as Box<dyn Read + Send>);
    client.push_blob(&reference, &blob(bytes), from, &mut open, &Cancel::new().unwrap())
}

fn fetch(client: &Client, host: &str, bytes: &[u8]) -> Vec<u8> {
    let reference: Reference = format!("{host}/a/b").parse().unwrap();
    let mut reader = client.open_blob(&reference, &blob(bytes), &Cancel::new().unwrap()).unwrap();
    let mut fetched = Vec::new();
    reader.read_to_end(&mut fetched).unwrap();
    fetched
}

/// A registry of one blob that keeps what it gets of an upload when the connection breaks, as the specification would
/// have it.
#[derive(Default)]
struct Uploads {
    /// By path.
    open: HashMap<String, Vec<u8>>,
    /// Bytes that came, whatever became of them.
    came: usize,
    done: Option<Vec<u8>>,
}

impl Uploads {
    fn answer(&mut self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        self.came += request.body.len();
        match request.method.as_str() {
            "HEAD" => Reply::new(if self.done.is_some() { 200 } else { 404 }, ""),
            "POST" => {
                let path = format!("/upload/{}", self.open.len());
                self.open.insert(path.clone(), Vec::new());
                Reply::new(202, "").header("Location", path)
            }
            "GET" => located(204, path, self.open[path].len()),
            method => {
                let whole =
                    request.header("content-length").is_some_and(|n| n == request.body.len().to_string());
                let upload = self.open.get_mut(path).unwrap();
                let start = request.header("content-range").map(|range| range.split('-').next().unwrap());
                if start.is_some_and(|start| start != upload.len().to_string()) {
                    return Reply::new(416, "");
                }
                upload.extend(&request.body);
                if method == "PATCH" || !whole {
                    return located(202, path, upload.len());
                }
                assert!(query.contains(&Digest::of(upload).to_string().replace(':', "%3A")), "{query}");
                self.done = Some(upload.clone());
                Reply::new(201, "")
            }
        }
    }
}

fn located(status: u16, path: &str, has: usize) -> Reply {
    let range = format!("0-{}", has.saturating_sub(1));
    Reply::new(status, "").header("Location", path).header("Range", range)
}

#[test]
fn a_push_goes_on_where_it_broke() {
    let state = Arc::new(Mutex::new(Uploads::default()));
    let shared = Arc::clone(&state);
    let server = Server::start(move |request, _| shared.lock().unwrap().answer(request));
    let way = Dropping::start(&server.address(), 1 << 20);
    let bytes = pattern(10 << 20);
    assert_eq!(push(&client(), way.address(), &bytes, None).unwrap(), Sent::Uploaded);
    let state = state.lock().unwrap();
    assert_eq!(state.done.as_ref(), Some(bytes.as_ref()));
    assert!(way.dropped() >= 9, "{} connections broke", way.dropped());
    assert!(state.came < 13 << 20, "{} bytes came for {}", state.came, bytes.len());
}

#[test]
fn sixty_megabytes_get_through_to_a_real_registry_and_back_five_at_a_time() {
    let registry = Registry::start();
    let way = Dropping::start(&registry.host(), 5 << 20);
    let (bytes, client) = (pattern(60 << 20), client());
    assert_eq!(push(&client, way.address(), &bytes, None).unwrap(), Sent::Uploaded);
    assert!(way.dropped() > 0);
    assert_eq!(push(&client, way.address(), &bytes, None).unwrap(), Sent::Present);
    let before = way.dropped();
    assert!(fetch(&client, way.address(), &bytes) == *bytes);
    assert!(way.dropped() >= before + 11, "the way back broke {} times", way.dropped() - before);
}

#[test]
fn a_server_that_takes_no_pieces_gets_the_whole_again() {
    let bytes = pattern(1 << 20);
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        "PATCH" => Reply::new(405, ""),
        _ => Reply::new(201, ""),
    });
    let calls = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&calls);
    let address = server.address();
    let first_breaks = Server::start(move |request, _| {
        let mut calls = seen.lock().unwrap();
        *calls += usize::from(request.method == "PUT");
        match (request.method.as_str(), *calls) {
            // An answer that is none.
            ("PUT", 1) => Reply::new(200, "").header("no name", ""),
            ("POST", 0) => Reply::new(202, "").header("Location", "/up"),
            ("POST", _) => Reply::new(202, "").header("Location", format!("http://{address}/up")),
            ("HEAD", _) => Reply::new(404, ""),
            _ => Reply::new(405, ""),
        }
    });
    assert_eq!(push(&client(), &first_breaks.address(), &bytes, None).unwrap(), Sent::Uploaded);
    let methods: Vec<String> = server.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["PATCH", "PUT"]);
    assert_eq!(server.requests()[1].body, *bytes);
}

#[test]
fn a_server_may_want_larger_pieces_but_not_any() {
    for (wanted, first_piece) in [("6000000", Some(6_000_000)), ("1000000000000000000", None)] {
        let state = Arc::new(Mutex::new(Uploads::default()));
        let shared = Arc::clone(&state);
        let server = Server::start(move |request, before| {
            // HEAD, POST, and the PUT that breaks.
            if before == 2 {
                return Reply::new(200, "").header("no name", "");
            }
            shared.lock().unwrap().answer(request).header("OCI-Chunk-Min-Length", wanted)
        });
        let bytes = pattern(7 << 20);
        assert_eq!(push(&client(), &server.address(), &bytes, None).unwrap(), Sent::Uploaded);
        assert_eq!(state.lock().unwrap().done.as_ref(), Some(bytes.as_ref()));
        let requests = server.requests();
        let piece = requests.iter().find(|r| r.method == "PATCH").map(|r| r.body.len());
        assert_eq!(piece, first_piece);
    }
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(201, ""),
    });
    let (bytes, host) = (pattern(10), server.address());
    let from = format!("{host}/other/repo");
    assert_eq!(push(&client(), &host, &bytes, Some(&from)).unwrap(), Sent::Mounted("other/repo".to_owned()));
    let asked = server.requests();
    assert_eq!(asked.len(), 2);
    let digest = blob(&bytes).digest.to_string().replace(':', "%3A");
    assert_eq!(asked[1].path, format!("/v2/a/b/blobs/uploads/?mount={digest}&from=other%2Frepo"));
}

#[test]
fn a_registry_that_does_not_mount_gets_the_bytes() {
    for status in [202, 404, 403] {
        let state = Arc::new(Mutex::new(Uploads::default()));
        let shared = Arc::clone(&state);
        let server = Server::start(move |request, _| match request.path.contains("mount=") {
            true if status != 202 => Reply::new(status, ""),
            _ => shared.lock().unwrap().answer(request),
        });
        let (bytes, host) = (pattern(10), server.address());
        let from = format!("{host}/other/repo");
        assert_eq!(push(&client(), &host, &bytes, Some(&from)).unwrap(), Sent::Uploaded, "{status}");
        assert_eq!(state.lock().unwrap().done.as_ref(), Some(bytes.as_ref()));
        assert_eq!(server.requests().len(), if status == 202 { 3 } else { 4 });
    }
}

#[test]
fn nothing_is_mounted_from_elsewhere_or_from_itself() {
    let elsewhere: [fn(&str) -> String; 3] =
        [|_| "elsewhere.example/x".to_owned(), |host| format!("{host}/a/b"), |host| format!("{host}9/x")];
    for from in elsewhere {
        let state = Mutex::new(Uploads::default());
        let server = Server::start(move |request, _| state.lock().unwrap().answer(request));
        let host = server.address();
        let from = from(&host);
        assert_eq!(push(&client(), &host, &pattern(10), Some(&from)).unwrap(), Sent::Uploaded, "{from}");
        assert!(server.requests().iter().all(|r| !r.path.contains("mount=")), "{from}");
    }
}

#[test]
fn a_token_for_a_mount_is_for_both_repositories() {
    let tokens = Server::start(|_, _| Reply::new(200, r#"{"token":"t"}"#));
    let realm = format!("http://{}/token", tokens.address());
    let server =
        Server::start(move |request, _| match (request.header("authorization"), request.method.as_str()) {
            (None, _) => Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
            (_, "HEAD") => Reply::new(404, ""),
            _ => Reply::new(201, ""),
        });
    let from = format!("{}/c", server.address());
    push(&client(), &server.address(), &pattern(10), Some(&from)).unwrap();
    let asked = tokens.requests().pop().unwrap().path;
    assert_eq!(asked, "/token?scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull");
}

/// A registry whose tokens last for so many requests each.
fn expiring(uses: usize, state: Arc<Mutex<Uploads>>) -> (Server, Arc<Mutex<usize>>) {
    let given = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&given);
    let tokens = Server::start(move |_, _| {
        let mut given = counter.lock().unwrap();
        *given += 1;
        Reply::new(200, format!(r#"{{"token":"t{given}","expires_in":3600}}"#))
    });
    let realm = format!("http://{}/token", tokens.address());
    let used = Mutex::new(HashMap::<String, usize>::new());
    let server = Server::start(move |request, _| {
        let mut used = used.lock().unwrap();
        if let Some(token) = request.header("authorization") {
            let used = used.entry(token.to_owned()).or_default();
            *used += 1;
            if *used <= uses {
                return state.lock().unwrap().answer(request);
            }
        }
        Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
    });
    (server, given)
}

#[test]
fn a_token_that_ends_during_a_push_is_replaced() {
    // HEAD and POST, and then the token is over: the PUT is refused.
    let state = Arc::new(Mutex::new(Uploads::default()));
    let (server, given) = expiring(2, Arc::clone(&state));
    let bytes = pattern(300_000);
    assert_eq!(push(&client(), &server.address(), &bytes, None).unwrap(), Sent::Uploaded);
    assert_eq!(state.lock().unwrap().done.as_ref(), Some(bytes.as_ref()));
    assert!(*given.lock().unwrap() >= 2);
    // The same between the pieces of one upload, whose connections break.
    let state = Arc::new(Mutex::new(Uploads::default()));
    let (server, given) = expiring(4, Arc::clone(&state));
    let way = Dropping::start(&server.address(), 1 << 20);
    let bytes = pattern(6 << 20);
    assert_eq!(push(&client(), way.address(), &bytes, None).unwrap(), Sent::Uploaded);
    assert_eq!(state.lock().unwrap().done.as_ref(), Some(bytes.as_ref()));
    assert!(*given.lock().unwrap() >= 3);
}

#[test]
fn an_upload_waits_as_long_as_the_server_says() {
    let server = Server::start(|request, before| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        _ if before == 2 => Reply::new(503, "").header("Retry-After", "2"),
        _ => Reply::new(201, ""),
    });
    let started = Instant::now();
    push(&client(), &server.address(), &pattern(10), None).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.requests().iter().filter(|r| r.method == "PUT").count(), 2);
}

/// Gives its last byte after a pause.
struct Late(Cursor<Vec<u8>>, Duration);

impl Read for Late {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.0.get_ref().len() - usize::try_from(self.0.position()).unwrap();
        if left == 1 {
            std::thread::sleep(self.1);
        }
        let most = left.saturating_sub(1).max(1).min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_server_has_its_time_after_the_last_byte() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        _ => {
            std::thread::sleep(Duration::from_secs(3));
            Reply::new(201, "")
        }
    });
    let client = Client::new(Options { idle_timeout: Duration::from_secs(5), ..Options::default() });
    let reference: Reference = format!("{}/a/b", server.address()).parse().unwrap();
    let bytes = pattern(300_000);
    // The last byte leaves after 3 s, the answer comes 3 s later: never were 5 s without anything.
    let late = || Late(Cursor::new(bytes.as_ref().clone()), Duration::from_secs(3));
    let mut open = || Ok(Box::new(late()) as Box<dyn Read + Send>);
    let cancel = Cancel::new().unwrap();
    let sent = client.push_blob(&reference, &blob(&bytes), None, &mut open, &cancel).unwrap();
    assert_eq!(sent, Sent::Uploaded);
    let methods: Vec<String> = server.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT"]);
}

#[test]
fn a_server_that_takes_a_byte_at_a_time_is_given_up() {
    let server = Server::start(|request, before| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        "PUT" => Reply::new(200, "").header("no name", ""),
        _ => located(202, "/up", before),
    });
    let error = push(&client(), &server.address(), &pattern(1 << 20), None).unwrap_err();
    assert!(error.to_string().contains("too little at a time"), "{error}");
    let pieces = server.requests().iter().filter(|r| r.method == "PATCH").count();
    assert!(pieces < 10, "{pieces} pieces");
}

#[test]
fn a_push_that_never_moves_on_ends() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        _ => Reply::new(500, ""),
    });
    let error = push(&client(), &server.address(), &pattern(10), None).unwrap_err();
    assert!(matches!(error, Error::Registry { .. }), "{error}");
    let way = Dropping::start(&server.address(), 1000);
    let error = push(&client(), way.address(), &pattern(1 << 20), None).unwrap_err();
    assert!(matches!(error, Error::Registry { .. }), "{error}");
}

#[test]
fn a_blob_that_is_known_by_sha512_is_announced_as_that() {
    let bytes = pattern(1000);
    let mut hasher = Algorithm::Sha512.hasher();
    hasher.update(&bytes);
    let blob = Descriptor::new(OCI_LAYER, hasher.finish(), 1000);
    let push = |host: &str| {
        let reference: Reference = format!("{host}/a/b").parse().unwrap();
        let mut open = || Ok(Box::new(Cursor::new(bytes.as_ref().clone())) as Box<dyn Read + Send>);
        client().push_blob(&reference, &blob, None, &mut open, &Cancel::new().unwrap()).unwrap()
    };
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        _ => Reply::new(201, ""),
    });
    assert_eq!(push(&server.address()), Sent::Uploaded);
    assert_eq!(server.requests()[1].path, "/v2/a/b/blobs/uploads/?digest-algorithm=sha512");
    let registry = Registry::start();
    assert_eq!((push(&registry.host()), push(&registry.host())), (Sent::Uploaded, Sent::Present));
}
