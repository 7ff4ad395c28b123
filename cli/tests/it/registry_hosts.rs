//! Registries that have to be known beforehand: with a CA of their own, for clients with certificates, without TLS,
//! and with mirrors; by the configuration file and by docker's `certs.d`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use boxwright_testdata::peer::{Certificates, PASSWORD, Registry, Setup, USER};
use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::{base, run};

use crate::tool::{Boxwright, Context, cache};

fn configure(boxwright: &Boxwright, text: &str) {
    let dir = boxwright.scratch("config/boxwright");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config.toml"), text).unwrap();
}

/// The user's directory of certificates for `host`.
fn certs_d(boxwright: &Boxwright, host: &str) -> PathBuf {
    let dir = boxwright.scratch("config/docker/certs.d").join(host);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Pushes busybox as `name`, pulls it back, and runs it.
#[track_caller]
fn there_and_back(boxwright: &Boxwright, name: &str) {
    boxwright.ok(&["tag", "busybox", name]);
    boxwright.ok(&["push", name]);
    boxwright.ok(&["rmi", name]);
    assert_eq!(boxwright.output_of(name, &["echo", "hi"]), "hi\n");
}

#[test]
fn a_ca_of_ones_own_vouches_for_its_registry_alone() {
    let (certificates, boxwright) = (Certificates::new(), Boxwright::with_busybox());
    let (one, two) = (
        Setup::default().tls(&certificates, false).start(),
        Setup::default().tls(&certificates, false).start(),
    );
    boxwright.ok(&["tag", "busybox", &one.name("a:1")]);
    let refused = boxwright.run(&["push", &one.name("a:1")]).fails_with(1);
    let refused = refused.says("x509: certificate signed by unknown authority\nhelp: ");
    refused.says(&format!("ca = [\"FILE\"] below [registry.\"{}\"]", one.host()));
    let ca = certificates.path("ca.pem");
    configure(&boxwright, &format!("[registry.\"{}\"]\nca = [{ca:?}]\n", one.host()));
    there_and_back(&boxwright, &one.name("a:1"));
    let context = Context::new(&format!("FROM {}\nRUN echo 1 > /1\n", one.name("a:1")));
    boxwright.build(&context, &["--pull"]).ok();
    boxwright.run(&["pull", &two.name("a:1")]).fails_with(1).says("certificate");
    let dir = certs_d(&boxwright, &two.host());
    fs::copy(ca, dir.join("my.crt")).unwrap();
    there_and_back(&boxwright, &two.name("a:1"));
}

/// `openssl req -x509`, as docker's documentation has it, makes a certificate of a CA.
#[test]
fn a_certificate_that_only_itself_vouches_for_may_be_trusted() {
    let (certificates, boxwright) = (Certificates::self_signed(), Boxwright::with_busybox());
    let certificate = certificates.path("server.pem");
    let start = |name| {
        let setup = Setup::default().tls(&certificates, false);
        setup.basic(&boxwright.scratch(name)).start()
    };
    let (one, two) = (start("one"), start("two"));
    let login =
        |registry: &Registry| boxwright.command(&["login", "-u", USER, "-p", PASSWORD, &registry.host()]);
    run(&mut login(&one)).fails_with(1).says("x509: certificate signed by unknown authority\nhelp: ");
    configure(&boxwright, &format!("[registry.\"{}\"]\nca = [{certificate:?}]\n", one.host()));
    run(&mut login(&one)).ok();
    there_and_back(&boxwright, &one.name("a:1"));
    run(&mut login(&two)).fails_with(1).says("certificate");
    // Where the system trusts it.
    run(login(&two).env("SSL_CERT_FILE", &certificate)).ok();
    fs::copy(certificate, certs_d(&boxwright, &two.host()).join("ca.crt")).unwrap();
    there_and_back(&boxwright, &two.name("a:1"));
}

#[test]
fn a_client_certificate_is_shown_to_the_registry_that_it_is_for() {
    let (certificates, boxwright) = (Certificates::new(), Boxwright::with_busybox());
    let registry = Setup::default().tls(&certificates, true).start();
    let name = registry.name("a:1");
    let dir = certs_d(&boxwright, &registry.host());
    fs::copy(certificates.path("ca.pem"), dir.join("ca.crt")).unwrap();
    boxwright.ok(&["tag", "busybox", &name]);
    boxwright.run(&["push", &name]).fails_with(1);
    fs::copy(certificates.path("client.pem"), dir.join("client.cert")).unwrap();
    boxwright.run(&["push", &name]).fails_with(1).says("client.key is missing");
    fs::copy(certificates.path("client.key"), dir.join("client.key")).unwrap();
    there_and_back(&boxwright, &name);

    fs::remove_dir_all(&dir).unwrap();
    let at = |name: &str| certificates.path(name);
    let (ca, cert, key) = (at("ca.pem"), at("client.pem"), at("client.key"));
    let table = format!(
        "[registry.\"{}\"]\nca = [{ca:?}]\nclient-cert = {cert:?}\nclient-key = {key:?}\n",
        registry.host()
    );
    configure(&boxwright, &table);
    there_and_back(&boxwright, &name);
}

#[test]
fn a_plain_registry_of_which_tls_is_expected_is_told_with_what_to_configure() {
    let (certificates, boxwright) = (Certificates::self_signed(), Boxwright::new());
    let registry = Registry::start();
    let (host, name) = (registry.host(), registry.name("a:1"));
    configure(&boxwright, &format!("[registry.{host:?}]\nca = [{:?}]\n", certificates.path("server.pem")));
    let help = format!("plain-http = true below [registry.{host:?}] in ");
    let context = Context::new(&format!("FROM {name}\n"));
    for refused in [boxwright.run(&["pull", &name]), boxwright.build(&context, &[])] {
        let refused = refused.fails_with(1).says("http: server gave HTTP response to HTTPS client");
        refused.says(&help);
    }
}

#[test]
fn an_insecure_registry_may_have_any_certificate() {
    let (certificates, boxwright) = (Certificates::new(), Boxwright::with_busybox());
    let registry = Setup::default().tls(&certificates, false).start();
    configure(&boxwright, &format!("[registry.\"{}\"]\ninsecure = true\n", registry.host()));
    there_and_back(&boxwright, &registry.name("a:1"));
}

#[test]
fn a_plain_registry_elsewhere_is_asked_without_tls_because_it_is_known_as_that() {
    let proxy = Server::start(|_, _| Reply::new(404, ""));
    let boxwright = Boxwright::new();
    let pull = |name: &str| {
        let mut command = boxwright.command(&["pull", name]);
        command.env("HTTP_PROXY", format!("http://{}", proxy.address())).env("HTTPS_PROXY", "");
        run(command.env_remove("NO_PROXY").env_remove("no_proxy")).fails_with(1)
    };
    configure(&boxwright, "[registry.\"plain.invalid:5000\"]\nplain-http = true\n");
    pull("plain.invalid:5000/a:1").says("not found");
    pull("other.invalid:5000/a:1");
    let asked: Vec<String> = proxy.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(asked, ["http://plain.invalid:5000/v2/a/manifests/1"]);
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_for_what_it_does_not_have() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    mirror.push(&base::busybox(cache()), "cache/both:1");
    registry.push(&base::busybox(cache()), "both:1");
    registry.push(&base::busybox(cache()), "one:1");
    let before = registry.requests().len();
    let boxwright = Boxwright::new();
    // Nobody listens at the first one.
    let mirrors = format!("[\"127.0.0.1:1\", \"{}\"]", mirror.name("cache"));
    configure(&boxwright, &format!("[registry.\"{}\"]\nmirrors = {mirrors}\n", registry.host()));
    let both = registry.name("both:1");
    assert_eq!(boxwright.output_of(&both, &["echo", "hi"]), "hi\n");
    assert!(boxwright.ok(&["images"]).contains(&registry.name("both")));
    assert_eq!(registry.requests().len(), before, "the mirror has it all");
    boxwright.ok(&["pull", &registry.name("one:1")]);
    // A push goes to the registry itself.
    boxwright.ok(&["tag", &both, &registry.name("new:1")]);
    boxwright.ok(&["push", &registry.name("new:1")]);
    assert!(!mirror.requests().iter().any(|r| r.starts_with("PUT") && r.contains("/new/")));
}

/// A proxy that connects to `target` whatever it is asked for. Gives its address, and what it saw of each connection's start.
fn connecting_proxy(target: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && (&client).read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let server = TcpStream::connect(&target).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (address, seen)
}

#[test]
fn a_registry_behind_a_proxy_is_pushed_to_and_pulled_from_through_it() {
    let (certificates, boxwright) = (Certificates::new(), Boxwright::with_busybox());
    let registry = Setup::default().tls(&certificates, false).basic(&boxwright.scratch("htpasswd")).start();
    let (proxy, seen) = connecting_proxy(registry.host());
    configure(
        &boxwright,
        &format!("[registry.\"registry.test\"]\nca = [{:?}]\n", certificates.path("ca.pem")),
    );
    let proxied = |args: &[&str]| {
        let mut command = boxwright.command(args);
        command.env_remove("https_proxy").env_remove("no_proxy").env_remove("NO_PROXY");
        run(command.env("HTTPS_PROXY", &proxy)).ok()
    };
    proxied(&["login", "-u", USER, "-p", PASSWORD, "registry.test"]);
    boxwright.ok(&["tag", "busybox", "registry.test/a:1"]);
    proxied(&["push", "registry.test/a:1"]);
    boxwright.ok(&["rmi", "registry.test/a:1"]);
    proxied(&["pull", "registry.test/a:1"]);
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 3);
    for head in seen.iter() {
        assert!(head.starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
}

#[test]
fn a_configuration_that_cannot_be_right_is_told_with_its_place() {
    let boxwright = Boxwright::new();
    configure(&boxwright, "[registry.\"r.example\"]\nplain-htpp = true\n");
    boxwright
        .run(&["pull", "r.invalid/a"])
        .fails_with(1)
        .says("config.toml: ")
        .says("line 2")
        .says("plain-htpp");
}
