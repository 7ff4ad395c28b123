//! Programs as people build them: C from Debian into an empty image, a Python web application, a diamond of stages.
//! The packages come from Debian's mirror and from PyPI.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::tool::{Boxwright, Context, Running, eventually};

#[test]
fn a_c_program_is_compiled_in_debian_and_runs_alone() {
    let boxwright = Boxwright::with_debian();
    let context = Context::new(
        "FROM debian:bookworm-slim AS build\n\
         RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev\n\
         COPY hello.c /src/\n\
         RUN gcc -static -O2 -o /hello /src/hello.c\n\
         FROM scratch\n\
         COPY --from=build /hello /hello\n\
         ENTRYPOINT [\"/hello\"]\n",
    )
    .file(
        "hello.c",
        "#include <stdio.h>\nint main(int n, char **v) { printf(\"hello %s\\n\", n > 1 ? v[1] : \"nobody\"); return n; }\n",
    );
    boxwright.build(&context, &["-t", "hello"]).ok();
    let ran = boxwright.run(&["run", "--rm", "hello", "world"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, "hello world\n"), "{ran}");
    assert_eq!(boxwright.inspect("hello")["RootFS"]["Layers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_python_web_application_serves_its_page() {
    let boxwright = Boxwright::with_debian();
    // The machine's own certificates: its connection to PyPI may pass through a proxy that Debian does not know.
    let certificates = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let context = Context::new(
        "FROM debian:bookworm-slim\n\
         RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv\n\
         COPY certificates.pem /etc/ssl/certs/ca-certificates.crt\n\
         RUN useradd --create-home app\n\
         USER app\n\
         WORKDIR /home/app\n\
         ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PYTHONUNBUFFERED=1\n\
         RUN python3 -m venv venv && venv/bin/pip install --no-cache-dir --disable-pip-version-check bottle==0.13.4\n\
         COPY --chown=app app.py .\n\
         CMD [\"venv/bin/python\", \"app.py\"]\n",
    )
    .file("certificates.pem", certificates)
    .file(
        "app.py",
        "import os, bottle\n\
         @bottle.route('/')\n\
         def index(): return 'served by uid %d from %s' % (os.getuid(), os.getcwd())\n\
         bottle.run(host='0.0.0.0', port=int(os.environ['PORT']), quiet=True)\n",
    );
    boxwright.build(&context, &["-t", "web"]).ok();
    let flags = ["run", "--rm", "--name", "web", "-e", "PORT=8000", "-p", "127.0.0.1::8000", "web"];
    let mut running = Running::start(boxwright.command(&flags).stdout(Stdio::null()));
    let mut address = String::new();
    eventually("its port is told", || {
        let ran = boxwright.run(&["port", "web", "8000"]);
        address = ran.stdout.trim().to_owned();
        ran.status == 0
    });
    let mut page = String::new();
    eventually("the page is served", || {
        // Before the server listens, connections are taken and ended.
        get(&address, &mut page).is_ok() && !page.is_empty()
    });
    assert!(
        page.starts_with("HTTP/1.0 200") && page.ends_with("served by uid 1000 from /home/app"),
        "{page}"
    );
    // Of the signals that end a process, the first one of a namespace heeds those that it handles: Python does Ctrl-C.
    running.signal(rustix::process::Signal::INT);
    running.wait();
    assert!(TcpStream::connect(&address).is_err(), "the server outlived its container");
}

fn get(address: &str, page: &mut String) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    page.clear();
    stream.read_to_string(page)?;
    Ok(())
}

#[test]
fn a_diamond_of_twelve_stages_joins_again() {
    let boxwright = Boxwright::with_busybox();
    let mut dockerfile = String::from("FROM busybox AS top\nRUN echo top > /top\n");
    for n in 1..=10 {
        writeln!(dockerfile, "FROM top AS side{n}\nRUN (cat /top; echo {n}) > /side{n}").unwrap();
    }
    dockerfile += "FROM busybox\n";
    for n in 1..=10 {
        writeln!(dockerfile, "COPY --from=side{n} /side{n} /").unwrap();
    }
    dockerfile += "RUN cat /side* | sort -n | uniq -c | sort -n > /sum\n";
    let ran = boxwright.build(&Context::new(&dockerfile), &["-t", "diamond"]);
    let runs_of_top = ran.stderr.matches("RUN echo top > /top").count();
    assert_eq!(ran.status, 0, "{ran}");
    assert!(runs_of_top >= 1, "{ran}");
    let sum = boxwright.output_of("diamond", &["cat", "/sum"]);
    assert_eq!(sum.lines().count(), 11, "{sum}");
    assert!(sum.lines().last().unwrap().split_whitespace().eq(["10", "top"]), "{sum}");
}
