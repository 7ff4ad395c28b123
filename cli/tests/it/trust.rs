//! `--ca-cert`: a company's certificates are trusted in containers, and nothing of them is left in an image.

use std::fs;
use std::process::{Command, Stdio};

use boxwright_testdata::peer::{Certificates, port_in};
use boxwright_testdata::run;

use crate::tool::{Boxwright, Context, Running, eventually};

/// A part of the authority's certificate that nothing else has.
fn canary(certificates: &Certificates) -> String {
    let pem = fs::read_to_string(certificates.path("ca.pem")).unwrap();
    pem.lines().nth(5).unwrap().to_owned()
}

/// Images `bundle`, with certificates at two names of which one is a link, and `fedora`, with Fedora's chain of links.
fn with_bundles() -> Boxwright {
    let boxwright = Boxwright::with_busybox();
    let make = |name: &str, dockerfile: &str| {
        boxwright.build(&Context::new(dockerfile).file("pem", "# the image's own\n"), &["-t", name]).ok();
    };
    make(
        "bundle",
        "FROM busybox\nCOPY --chmod=640 --chown=5:6 pem /etc/ssl/certs/ca-certificates.crt\n\
         RUN ln -s certs/ca-certificates.crt /etc/ssl/cert.pem && chmod 751 /etc/ssl/certs && \
             touch -d '2001-02-03 04:05:06' /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs /etc/ssl /etc\n",
    );
    make(
        "fedora",
        "FROM busybox\nCOPY pem /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem\n\
         RUN mkdir -p /etc/pki/tls/certs /etc/ssl && ln -s /etc/pki/tls/certs /etc/ssl/certs && \
             ln -s ../../ca-trust/extracted/pem/tls-ca-bundle.pem /etc/pki/tls/certs/ca-bundle.crt\n",
    );
    boxwright
}

#[test]
fn certificates_are_trusted_while_a_step_runs_and_no_layer_has_them() {
    let (certificates, boxwright) = (Certificates::new(), with_bundles());
    let ca = certificates.path("ca.pem");
    let flags = ["--ca-cert", ca.to_str().unwrap()];
    let canary = canary(&certificates);
    for (base, bundle, variable) in [
        ("busybox", "/etc/ssl/certs/ca-certificates.crt", "SSL_CERT_FILE=/run/boxwright/ca.crt"),
        ("bundle", "/etc/ssl/cert.pem", "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"),
        ("fedora", "/etc/ssl/certs/ca-bundle.crt", "REQUESTS_CA_BUNDLE=/etc/pki/tls/certs/ca-bundle.crt"),
    ] {
        // What the step itself leaves is the same, whether it is trusted or not.
        let dockerfile = format!(
            "FROM {base}\nRUN echo trusted-$(cat {bundle} | grep -c '{canary}')-$((1)) && \
             echo own-$(grep -c own {bundle}) && env | grep -e _CERT -e CA_BUNDLE; \
             mkdir -p /made && touch -d @1 /made\n\
             RUN [ ! -e /run/boxwright ] && true || ! env | grep CERT; touch -d @1 /made\n"
        );
        let context = Context::new(&dockerfile);
        let ran = boxwright.build(&context, &[&flags[..], &["-t", "x"]].concat());
        for words in ["trusted-1-1", variable, "NODE_EXTRA_CA_CERTS=/run/boxwright/ca.crt"] {
            assert!(ran.stderr.contains(words), "{words} in {ran}");
        }
        assert!(base == "busybox" || ran.stderr.contains("own-1"), "{ran}");
        let again = boxwright.build(&context, &["-t", "y"]);
        assert!(again.stderr.contains("CACHED") && !again.stderr.contains("trusted-0-1"), "no key: {again}");
        boxwright.build(&context, &["--no-cache", "-t", "y"]).says("trusted-0-1").ok();
        let layers = |image: &str| boxwright.inspect(image)["RootFS"]["Layers"].clone();
        assert_eq!(layers("x"), layers("y"), "{base}");
        assert!(!boxwright.inspect("x").to_string().contains("CERT"));
    }
}

#[test]
fn what_a_step_does_to_the_bundle_stays_without_the_certificates() {
    let (certificates, boxwright) = (Certificates::new(), with_bundles());
    let ca = certificates.path("ca.pem");
    let flags = ["--ca-cert", ca.to_str().unwrap(), "-t", "x"];
    let canary = canary(&certificates);
    const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
    for (base, change, content) in [
        ("bundle", "echo more >> B", "# the image's own\nmore\n"),
        ("bundle", "sed -i s/own/other/ B", "# the image's other\n"),
        ("bundle", "echo new > /n && mv -f /n B", "new\n"),
        ("bundle", "(cat B; echo more) > /n && mv -f /n B", "# the image's own\nmore\n"),
        ("bundle", "chmod 600 B", "# the image's own\n"),
        ("bundle", "mv /etc/ssl/certs /etc/ssl/was && mkdir /etc/ssl/certs && echo new > B", "new\n"),
        ("busybox", "echo more >> B", "more\n"),
        ("busybox", "echo new > /n && mv -f /n B", "new\n"),
    ] {
        let change = change.replace('B', BUNDLE);
        let context = Context::new(&format!("FROM {base}\nRUN grep -q '{canary}' {BUNDLE} && {change}\n"));
        boxwright.build(&context, &flags).ok();
        let left = boxwright.output_of("x", &["cat", BUNDLE]);
        assert_eq!(left, content, "{base}: {change}");
    }
    for (change, left) in [
        ("rm B", "! ls /etc/ssl/certs/*"),
        ("rm -r /etc/ssl", "[ ! -e /etc/ssl ]"),
        ("rm -r /etc/ssl && ln -s /canary /etc/ssl", "[ -L /etc/ssl ]"),
        ("rm B && ln -s /canary B", "[ -L /etc/ssl/certs/ca-certificates.crt ]"),
        ("rm B && mknod B c 1 3", "[ -c /etc/ssl/certs/ca-certificates.crt ]"),
        ("rm B && mkfifo B", "[ -p /etc/ssl/certs/ca-certificates.crt ]"),
        ("chmod 700 /etc/ssl/certs", "[ $(stat -c %a /etc/ssl/certs) = 700 ]"),
        ("touch /etc/ssl/certs/a", "[ -e /etc/ssl/certs/a ]"),
    ] {
        let change = change.replace('B', BUNDLE);
        boxwright.build(&Context::new(&format!("FROM bundle\nRUN {change}\n")), &flags).ok();
        let script = format!("{left} && ! find /etc -type f | xargs grep -q '{canary}'");
        boxwright.output_of("x", &["sh", "-c", &script]);
    }
    let script = format!("grep -q '{canary}' {BUNDLE} && stat -c '%a %u %g %y' {BUNDLE}");
    let seen =
        boxwright.ok(&["run", "--rm", "--read-only", flags[0], flags[1], "bundle", "sh", "-c", &script]);
    assert!(seen.starts_with("640 5 6 2001-02-03 04:05:06"), "{seen}");
}

/// They are in no key: so a build without them must not be given what was made with them.
#[test]
fn what_has_copies_of_the_certificates_is_for_one_build_alone() {
    let (certificates, boxwright) = (Certificates::new(), with_bundles());
    let (ca, canary) = (certificates.path("ca.pem"), canary(&certificates));
    let cache = boxwright.scratch("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    for (base, copy) in [
        ("bundle", "cp /etc/ssl/certs/ca-certificates.crt /app.crt"),
        (
            "busybox",
            "mkdir -p /etc/ssl/certs && mv /etc/ssl/certs /moved && ln -s moved/ca-certificates.crt /app.crt",
        ),
        ("fedora", "cat $NODE_EXTRA_CA_CERTS > /app.crt"),
    ] {
        let context = Context::new(&format!(
            "FROM {base} AS copied\nRUN echo before {base} > /before\nRUN {copy}\n\
             FROM busybox AS other\nCOPY --from=copied /app.crt /\n\
             FROM copied\nRUN --mount=from=other,target=/m grep BEGIN /m/app.crt > /later || :\n"
        ));
        let file = if base == "busybox" { "/moved/ca-certificates.crt" } else { "/app.crt" };
        let warning = format!("warning: {file} has certificates of --ca-cert");
        let flags = ["--ca-cert", ca.to_str().unwrap(), "--cache-to", &to, "-t", "x"];
        boxwright.build(&context, &flags).says(&warning).ok();
        boxwright.output_of("x", &["sh", "-c", &format!("grep -q '{canary}' /app.crt && [ -s /later ]")]);
        let blobs = format!("for b in {}/blobs/sha256/*; do zcat -f $b; done", cache.display());
        let sent = run(Command::new("sh").args(["-c", &blobs]));
        assert!(sent.stdout.contains(&format!("before {base}")), "nothing was sent");
        assert!(!sent.stdout.contains(&canary), "they left with the cache");
        let plain = boxwright.build(&context, &["-t", "y"]);
        assert!(plain.stderr.contains("CACHED") && !plain.stderr.contains("warning:"), "{plain}");
        boxwright.output_of("y", &["sh", "-c", &format!("! grep -q '{canary}' /app.crt && [ ! -s /later ]")]);
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN true\n").file("none", "nothing");
    let none = context.join("none").display().to_string();
    for (file, words) in [(&*none, "no certificate in PEM"), ("/no/such/file", "/no/such/file: No such file")]
    {
        let ran = boxwright.build(&context, &["--ca-cert", file]);
        assert!(ran.status == 1 && ran.stderr.contains(words), "{ran}");
        let ran = boxwright.run(&["run", "--rm", "--ca-cert", file, "busybox", "true"]);
        assert!(ran.status == 125 && ran.stderr.contains(words), "{ran}");
    }
    let count = "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt";
    let seen = boxwright.ok(&["run", "--rm", "--ca-cert", "host", "busybox", "sh", "-c", count]);
    assert!(seen.trim().parse::<u32>().unwrap() > 10, "{seen}");
}

/// Debian's own packages, a bundle that one of them makes anew while it is in use, and servers that only the test's
/// authority vouches for.
#[test]
fn debians_programs_trust_it_also_when_they_were_just_installed() {
    let (certificates, boxwright) = (Certificates::new(), Boxwright::with_debian());
    let mut server = Command::new("openssl");
    server.args(["s_server", "-WWW", "-accept", "127.0.0.1:0"]);
    server.arg("-cert").arg(certificates.path("server.pem")).arg("-key").arg(certificates.path("server.key"));
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("page"), "it is trusted\n").unwrap();
    let said = root.path().join("said");
    server.current_dir(root.path()).stdout(fs::File::create(&said).unwrap());
    let _server = Running::start(server.stderr(Stdio::null()).stdin(Stdio::null()));
    let mut port = None;
    eventually("the server listens", || {
        port = port_in(&said, "ACCEPT 127.0.0.1:");
        port.is_some()
    });
    let port = port.unwrap();
    let context = Context::new(&format!(
        "FROM debian:bookworm-slim\n\
         RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl wget openssl && \
             rm -rf /var/lib/apt/lists && \
             curl -sS https://127.0.0.1:{port}/page\n\
         RUN curl -sS https://127.0.0.1:{port}/page > /curl && wget -qO /wget https://127.0.0.1:{port}/page && \
             openssl s_client -connect 127.0.0.1:{port} -verify_return_error < /dev/null > /openssl && \
             update-ca-certificates --fresh\n"
    ));
    let ca = certificates.path("ca.pem");
    let flags = ["--network", "host", "--ca-cert", ca.to_str().unwrap(), "-t", "x"];
    boxwright.build(&context, &flags).says("it is trusted").ok();
    assert_eq!(boxwright.output_of("x", &["cat", "/curl", "/wget"]), "it is trusted\nit is trusted\n");
    let script = format!(
        "! grep -rqF '{}' /etc /usr/share /usr/local /usr/lib && grep -c BEGIN /etc/ssl/certs/ca-certificates.crt && \
         ! curl -sS https://127.0.0.1:{port}/page",
        canary(&certificates)
    );
    let refused = boxwright.run(&["run", "--rm", "--network", "host", "x", "bash", "-c", &script]);
    let refused = refused.says("SSL certificate problem").ok();
    assert!(refused.trim().parse::<u32>().unwrap() > 100, "the bundle is Debian's: {refused}");
    let mut trusted = boxwright.command(&["run", "--rm", "--network", "host", flags[2], flags[3]]);
    trusted.args(["x", "curl", "-sS", &format!("https://127.0.0.1:{port}/page")]);
    assert_eq!(run(&mut trusted).ok(), "it is trusted\n");
}
