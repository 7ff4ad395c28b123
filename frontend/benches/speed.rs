//! How long parsing and lowering take, by the number of lines: `cargo bench -p boxwright-frontend`. Prints the median
//! of several runs, in milliseconds, and microseconds a line, which stay the same where the work is linear.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use boxwright_cache::Digest;
use boxwright_cache::oci::ImageConfig;
use boxwright_frontend::{Bases, ImageRequest, Options, ResolvedBase, lower, needed_images, parse};
use boxwright_solver::ir::ImageSource;

/// What stages are made of. Each copies from the one before it.
const STAGE: &str = "\
FROM debian:bookworm AS stage
ARG VERSION=1.2.3
ENV APP_VERSION=${VERSION} LANG=C.UTF-8 PATH=/opt/app/bin:$PATH
LABEL org.opencontainers.image.version=\"${VERSION}\" org.opencontainers.image.title='An app'
# What the build needs.
RUN apt-get update && \\
    apt-get install -y --no-install-recommends \\
        build-essential \\
        ca-certificates \\
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY package.json package-lock.json ./
COPY --chown=1000:1000 src/ src/
RUN <<EOF
set -e
make -j\"$(nproc)\" VERSION=${VERSION:-none}
make install DESTDIR=/out
EOF
EXPOSE 8080/tcp 8443
ENTRYPOINT [\"/out/app\", \"--listen\", \"0.0.0.0:8080\"]
";

/// Many stages, of long instructions.
fn stages(lines: usize) -> String {
    let stages = lines / STAGE.lines().count();
    let stage = |n: usize| {
        let from = n.checked_sub(1).map_or(String::new(), |before| format!("--from=stage{before} "));
        STAGE
            .replace("AS stage", &format!("AS stage{n}"))
            .replace("COPY package", &format!("COPY {from}package"))
    };
    (0..stages).map(stage).collect()
}

/// One stage, of short instructions.
fn variables(lines: usize) -> String {
    let env = (1..lines).map(|n| format!("ENV A{n}=b{n}\n"));
    std::iter::once("FROM debian:bookworm\n".to_owned()).chain(env).collect()
}

/// From the text to the image, all checks included. Gives the number of its history entries.
fn compile(text: &str) -> usize {
    let options = Options { all_stages: true, ..Options::default() };
    let parsed = parse(text);
    let mut bases = Bases::default();
    for request in needed_images(&parsed.dockerfile, &options, &bases).expect("the stages are right") {
        bases.insert(&request, base(&request));
    }
    lower(&parsed.dockerfile, &options, &bases).expect("the Dockerfile is right").images[0]
        .image
        .history
        .len()
}

fn base(request: &ImageRequest) -> ResolvedBase {
    let source = ImageSource {
        name: request.name.clone(),
        manifest: Digest::of(b"image"),
        chain: None,
        platform: request.platform.clone(),
    };
    ResolvedBase { source, config: ImageConfig::default() }
}

fn median(runs: usize, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}

fn measure(what: &str, dockerfile: fn(usize) -> String) {
    for (lines, runs) in [(1_000, 101), (10_000, 21), (100_000, 5)] {
        let text = dockerfile(lines);
        let took = median(runs, || assert!(compile(&text) > 0));
        let (ms, each) = (took.as_secs_f64() * 1e3, took.as_secs_f64() * 1e6 / lines as f64);
        println!("{lines:>7} lines of {what:<9}: {ms:8.2} ms, {each:.2} us a line");
    }
}

fn main() {
    measure("stages", stages);
    measure("variables", variables);
}
