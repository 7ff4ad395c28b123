//! What a push sends, and how much of it at once, counted by the registries that it goes to.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxwright_testdata::dropping::Dropping;
use boxwright_testdata::peer::Registry;
use boxwright_testdata::server::{Reply, Server};

use crate::tool::{Boxwright, Context};

/// How often blobs and manifests were sent to the registry so far.
fn sent(registry: &Registry) -> (usize, usize) {
    let asked = registry.requests();
    let puts = |part: &str| asked.iter().filter(|r| r.starts_with("PUT") && r.contains(part)).count();
    (puts("/blobs/uploads/"), puts("/manifests/"))
}

#[test]
fn after_one_layer_changed_that_layer_is_sent_alone() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    let context = Context::new("FROM busybox\nCOPY a /a\nCOPY b /b\n").file("a", "a").file("b", "1");
    boxwright.build(&context, &["-t", &name]).ok();
    boxwright.ok(&["push", &name]);
    assert_eq!(sent(&registry), (4, 1), "three layers, a config and a manifest");
    context.write("b", "2");
    boxwright.build(&context, &["-t", &name]).ok();
    let said = boxwright.ok(&["push", &name]);
    assert_eq!(said.matches(": Layer already exists").count(), 2, "{said}");
    assert_eq!(said.matches(": Pushed").count(), 1, "{said}");
    assert_eq!(sent(&registry), (6, 2), "that layer, the config that names it, and the manifest");
}

#[test]
fn a_layer_of_another_repository_is_not_sent_again() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (base, name) = (registry.name("team/base:1"), registry.name("other/app:1"));
    boxwright.ok(&["tag", "busybox", &base]);
    boxwright.ok(&["push", &base]);
    let before = sent(&registry);
    // Another store, which has only named the layer so far.
    let other = Boxwright::new();
    let context = Context::new(&format!("FROM {base}\nCOPY --link a /a\n")).file("a", "a");
    other.build(&context, &["-t", &name]).ok();
    let said = other.ok(&["push", &name]);
    assert!(said.contains(": Mounted from team/base"), "{said}");
    assert_eq!(sent(&registry), (before.0 + 2, before.1 + 1));
    let asked = registry.requests();
    let blobs: Vec<&String> =
        asked.iter().filter(|r| r.starts_with("GET") && r.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 1, "the base's config was read, its layer was not: {asked:#?}");
    assert_eq!(Boxwright::new().output_of(&name, &["cat", "/a"]), "a");
}

/// The registry answers to a layer only after what it was told of the push could be read.
#[test]
fn a_push_tells_what_it_does_while_it_does_it() {
    let (may_answer, answers) = std::sync::mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let server = Server::start(move |request, _| match request.method.as_str() {
        "POST" => {
            let _ = answers.lock().unwrap().recv();
            Reply::new(403, "")
        }
        _ => Reply::new(404, ""),
    });
    let boxwright = Boxwright::with_busybox();
    let repository = format!("{}/app", server.address());
    boxwright.ok(&["tag", "busybox", &repository]);
    let mut push = boxwright.command(&["push", &repository]);
    let mut push = push.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(push.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "Using default tag: latest");
    assert_eq!(lines.next().unwrap(), format!("The push refers to repository [{repository}]"));
    assert!(lines.next().unwrap().ends_with(": Preparing"));
    drop(may_answer);
    assert!(!push.wait().unwrap().success());
}

#[test]
fn layers_are_pushed_side_by_side_but_not_all_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (there, highest) = (Arc::new(Mutex::new(HashSet::new())), Arc::clone(&most));
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/up"),
        _ if request.path.contains("/manifests/") => Reply::new(201, ""),
        _ => {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(200));
            now.fetch_sub(1, Ordering::SeqCst);
            assert!(there.lock().unwrap().insert(request.path.clone()), "{} came twice", request.path);
            Reply::new(201, "")
        }
    });
    let boxwright = Boxwright::with_busybox();
    let copies: String = (0..9).map(|n| format!("COPY {n} /{n}\n")).collect();
    let context = (0..9).fold(Context::new(&format!("FROM scratch\n{copies}")), |context, n| {
        context.file(&n.to_string(), n.to_string())
    });
    let name = format!("{}/app:1", server.address());
    boxwright.build(&context, &["-t", &name]).ok();
    boxwright.ok(&["push", &name]);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");
}

#[test]
fn an_image_gets_there_and_back_over_connections_that_break() {
    let registry = Registry::start();
    let way = Dropping::start(&registry.host(), 3 << 20);
    let boxwright = Boxwright::with_busybox();
    // Bytes that can't be compressed.
    let mut state = 1u64;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    });
    let bytes: Vec<u8> = bytes.take(12 << 20).collect();
    let context = Context::new("FROM busybox\nCOPY big /big\n").file("big", &bytes);
    let name = format!("{}/app:1", way.address());
    boxwright.build(&context, &["-t", &name]).ok();
    boxwright.ok(&["push", &name]);
    let pushed = way.dropped();
    assert!(pushed > 0);
    let other = Boxwright::new();
    let sum = other.output_of(&name, &["sha256sum", "/big"]);
    assert_eq!(sum.split(' ').next().unwrap(), boxwright_testdata::archive::sha256(&bytes));
    assert!(way.dropped() >= pushed + 3);
}

#[test]
fn an_index_that_was_pushed_is_pulled_for_one_platform_and_the_name_is_whole() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = registry.name("app:1");
    let context =
        Context::new("FROM scratch\nARG TARGETARCH\nENV FOR=$TARGETARCH\nCOPY a /a\n").file("a", "a");
    let platforms = || boxwright.ok(&["image", "inspect", "--format", "{{.Architecture}}", &name]);
    for architecture in ["amd64", "arm64"] {
        boxwright.build(&context, &["--platform", "linux/amd64,linux/arm64", "--push", "-t", &name]).ok();
        // Compressed on their way, the manifests are others there than here.
        boxwright.ok(&["pull", "--platform", &format!("linux/{architecture}"), &name]);
        assert_eq!(platforms(), format!("{architecture}\n"));
        boxwright.ok(&["push", &name]);
        boxwright.ok(&["rmi", "--platform", &format!("linux/{architecture}"), &name]);
        boxwright.run(&["inspect", &name]).fails_with(1).says("No such object");
    }
}
