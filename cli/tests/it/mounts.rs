//! RUN with its flags: what a step sees for as long as it runs, what outlives it, and what is asked for first.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use boxwright_testdata::Ran;

use crate::tool::{Boxwright, Context, Running, eventually};

/// A build that must fail and say this.
#[track_caller]
fn refused(boxwright: &Boxwright, dockerfile: &str, args: &[&str], says: &[&str]) -> Ran {
    let ran = boxwright.build(&Context::new(dockerfile), args);
    assert_eq!(ran.status, 1, "{ran}");
    for words in says {
        assert!(ran.stderr.contains(words), "{words:?} in {ran}");
    }
    ran
}

#[test]
fn a_bind_mount_shows_contexts_stages_and_images_and_forgets_what_is_written() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS made\n\
         RUN mkdir /d && echo stage > /d/f\n\
         FROM busybox\n\
         WORKDIR /w\n\
         RUN --mount=target=rel --mount=type=bind,from=made,source=/d,target=/d,rw \
             --mount=from=busybox,source=bin/busybox,target=/b/busybox \
             cat rel/sub/f /d/f > /seen && ls rel >> /seen && echo lost > /d/f && /b/busybox true && \
             ! touch rel/new 2>/dev/null\n\
         RUN [ ! -e /d/f ] && [ ! -e /b ] && [ ! -e rel/sub ]\n",
    )
    .file("sub/f", "context\n")
    .file("ignored", "x")
    .file(".dockerignore", "ignored\n");
    boxwright.built(&context, &[]);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "context\nstage\nDockerfile\nsub\n");
    let again = boxwright.built(&context, &[]);
    assert_eq!(again.matches(" CACHED").count(), 6, "{again}");
    context.write("ignored", "y");
    assert_eq!(boxwright.built(&context, &[]).matches(" CACHED").count(), 6, "what is ignored is no input");
}

#[test]
fn a_cache_outlives_builds_and_is_in_no_image() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         ARG N\n\
         RUN --mount=type=cache,target=/c,mode=1777,uid=5,gid=6 \
             stat -c '%a %u:%g' /c > /top && cat /c/log 2>/dev/null; echo $N >> /c/log && cp /c/log /seen\n",
    );
    for (n, seen) in [("1", "1\n"), ("2", "1\n2\n")] {
        boxwright.built(&context, &["--build-arg", &format!("N={n}")]);
        assert_eq!(boxwright.output_of("x", &["cat", "/top", "/seen"]), format!("1777 5:6\n{seen}"));
        boxwright.output_of("x", &["test", "!", "-e", "/c"]);
    }
    boxwright.ok(&["builder", "prune", "-f"]);
    boxwright.built(&context, &["--build-arg", "N=3"]);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "3\n", "pruned");
}

#[test]
fn builds_of_another_namespace_have_caches_of_their_own() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         ARG N\n\
         RUN --mount=type=cache,target=/c echo $N >> /c/log && cp /c/log /seen\n",
    );
    for (namespace, number, seen) in
        [("", "1", "1\n"), ("a", "2", "2\n"), ("a", "3", "2\n3\n"), ("", "4", "1\n4\n")]
    {
        let namespace = format!("BUILDKIT_CACHE_MOUNT_NS={namespace}");
        boxwright.built(&context, &["--build-arg", &namespace, "--build-arg", &format!("N={number}")]);
        assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), seen, "{namespace}");
    }
}

#[test]
fn a_new_cache_starts_as_a_part_of_a_stage() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS seed\n\
         RUN mkdir -p /a/b && echo seed > /a/b/f && ln /a/b/f /a/b/g && chown 7:8 /a/b/f\n\
         FROM busybox\n\
         ARG N\n\
         RUN --mount=type=cache,id=x,from=seed,source=/a,target=/c \
             stat -c '%u:%g %h' /c/b/g > /seen && cat /c/b/f >> /seen && echo $N > /c/b/f\n",
    );
    boxwright.built(&context, &["--build-arg", "N=1"]);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "7:8 2\nseed\n");
    boxwright.built(&context, &["--build-arg", "N=2"]);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "7:8 2\n1\n");
}

#[test]
fn a_locked_cache_is_freed_by_a_kill() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nARG N\n\
         RUN --mount=type=cache,target=/c,sharing=locked echo $N >> /c/log && [ $N != 1 ] || sleep 1000\n",
    );
    let slow = ["build", "-q", "--build-arg", "N=1", context.path()];
    let mut holder = Running::start(&mut boxwright.command(&slow));
    let log = || {
        let caches = fs::read_dir(boxwright.store().join("caches")).into_iter().flatten().flatten();
        caches.filter_map(|cache| fs::read_to_string(cache.path().join("data/log")).ok()).next()
    };
    eventually("the first step has the cache", || log().is_some_and(|log| log == "1\n"));
    let mut waiting =
        Running::start(&mut boxwright.command(&["build", "-q", "--build-arg", "N=2", context.path()]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(waiting.0.try_wait().unwrap().is_none(), "it waits");
    assert_eq!(log().unwrap(), "1\n");
    holder.signal(rustix::process::Signal::KILL);
    holder.wait();
    assert_eq!(waiting.wait(), 0);
    assert_eq!(log().unwrap(), "1\n2\n", "nothing of the cache is lost");
}

#[test]
fn secrets_are_there_for_their_step_alone() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         RUN --mount=type=secret,id=file,required --mount=type=secret,id=own,target=/own,uid=5,gid=6,mode=0440 \
             --mount=type=secret,id=file,env=TOKEN --mount=type=secret,id=none \
             sha256sum < /run/secrets/file > /sum && echo -n \"$TOKEN\" | sha256sum >> /sum && \
             stat -c '%a %u:%g' /own /run/secrets/file >> /sum && [ ! -e /run/secrets/none ] && \
             ! echo x 2>/dev/null > /own\n",
    );
    let (value, other) = ("correct-horse-battery-staple", "another-word");
    let file = boxwright.scratch("secret");
    fs::write(&file, value).unwrap();
    let flags = [format!("id=file,src={}", file.display()), "id=own,env=OWN_SECRET".to_owned()];
    let build = |flags: &[String]| {
        let mut command = boxwright.command(&["build", "--progress", "plain", "-t", "x"]);
        command.args(flags.iter().flat_map(|flag| ["--secret", flag])).env("OWN_SECRET", other);
        boxwright_testdata::run(command.arg(context.path()))
    };
    let first = build(&flags);
    assert_eq!(first.status, 0, "{first}");
    let sum = boxwright_testdata::run(std::process::Command::new("sha256sum").arg(&file)).ok();
    let sum = format!("{}  -\n", &sum[..64]);
    assert_eq!(boxwright.output_of("x", &["cat", "/sum"]), format!("{sum}{sum}440 5:6\n400 0:0\n"));
    for word in [value, other] {
        assert!(!first.stderr.contains(word));
        let found = boxwright_testdata::run(
            std::process::Command::new("grep").args(["-rlaF", word]).arg(boxwright.store()),
        );
        assert_eq!((found.stdout.as_str(), found.status), ("", 1), "{word} is kept nowhere");
    }
    fs::write(&file, "changed").unwrap();
    let again = build(&flags);
    assert!(again.stderr.contains(" CACHED") && again.status == 0, "a secret is in no key: {again}");
    let missing = build(&[]);
    assert!(missing.status == 0, "a cached step needs none: {missing}");
    refused(
        &boxwright,
        "FROM busybox\nRUN --mount=type=secret,id=gone,required true\n",
        &[],
        &["ERROR: failed to solve: secret gone: not found", "Dockerfile:2"],
    );
}

/// An agent that answers requests for its keys with none.
fn agent(listener: &UnixListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = [0; 5];
        while stream.read_exact(&mut request).is_ok() {
            assert_eq!(request, [0, 0, 0, 1, 11], "only the request for keys comes through");
            stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
        }
    }
}

#[test]
fn an_ssh_agent_answers_behind_its_mount_but_takes_no_keys() {
    let boxwright = Boxwright::with_debian();
    let socket = boxwright.scratch("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || agent(&listener));
    let ask = r#"my $s = IO::Socket::UNIX->new(Peer => $ENV{SSH_AUTH_SOCK}) or die $!;
        for my $kind (11, 17, 19) { print $s pack("NC", 1, $kind); $s->flush;
            read($s, my $l, 4); read($s, my $a, unpack("N", $l)); print ord($a), "\n"; }"#;
    let context = Context::new(
        "FROM debian:bookworm-slim\n\
         COPY ask /ask\n\
         RUN --mount=type=ssh perl -MIO::Socket::UNIX /ask > /answers && echo $SSH_AUTH_SOCK >> /answers && \
             stat -c '%a %u' $SSH_AUTH_SOCK >> /answers\n\
         RUN [ -z \"$SSH_AUTH_SOCK\" ] && [ ! -S /run/buildkit/ssh_agent.0 ]\n",
    )
    .file("ask", ask);
    boxwright.built(&context, &["--ssh", &format!("default={}", socket.display())]);
    assert_eq!(
        boxwright.output_of("x", &["cat", "/answers"]),
        "12\n5\n5\n/run/buildkit/ssh_agent.0\n600 0\n"
    );
    refused(
        &boxwright,
        "FROM debian:bookworm-slim\nRUN --mount=type=ssh,required true\n",
        &[],
        &["no SSH key \"default\" forwarded from the client", "Dockerfile:2"],
    );
}

#[test]
fn what_goes_beyond_the_sandbox_has_to_be_allowed() {
    let boxwright = Boxwright::with_busybox();
    for (flag, entitlement) in
        [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
    {
        let dockerfile =
            format!("FROM busybox\nRUN echo ran-$((1))\nRUN {flag} grep CapEff /proc/self/status > /caps\n");
        let ran = refused(
            &boxwright,
            &dockerfile,
            &[],
            &[&format!("{entitlement} is not allowed"), "Dockerfile:3"],
        );
        assert!(!ran.stderr.contains("ran-1"), "{ran}");
        boxwright.built(&Context::new(&dockerfile), &["--allow", entitlement]);
        let caps = boxwright.output_of("x", &["cat", "/caps"]);
        assert_eq!(caps.contains("a80425fb"), entitlement == "network.host", "{caps}");
    }
    let dockerfile = "FROM busybox\nRUN --network=none ls /sys/class/net > /net\n";
    boxwright.built(&Context::new(dockerfile), &[]);
    assert_eq!(boxwright.output_of("x", &["cat", "/net"]), "lo\n");
    let ran = boxwright.build(&Context::new(dockerfile), &["--allow", "everything"]);
    assert!(ran.status == 1 && ran.stderr.contains("everything"), "{ran}");
}

#[test]
fn hosts_limits_and_shared_memory_are_as_asked_for() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         RUN --mount=type=tmpfs,target=/t,size=1m \
             grep build.test /etc/hosts > /seen && ulimit -n >> /seen && \
             df -k /dev/shm | awk 'NR==2{print $2}' >> /seen && df -k /t | awk 'NR==2{print $2}' >> /seen && \
             echo x > /t/x\n\
         RUN [ -z \"$(ls /t)\" ] && ! grep build.test /etc/hostname\n",
    );
    let flags = ["--add-host", "build.test:10.1.2.3", "--ulimit", "nofile=321:321", "--shm-size", "2m"];
    boxwright.built(&context, &flags);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "10.1.2.3\tbuild.test\n321\n2048\n1024\n");
    let other = ["--add-host", "build.test:10.9.9.9", "--ulimit", "nofile=300:300", "--shm-size", "3m"];
    let again = boxwright.built(&context, &other);
    assert_eq!(again.matches(" CACHED").count(), 3, "limits and addresses are in no key: {again}");
}

#[test]
fn a_build_argument_names_the_machine_that_steps_run_on() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         RUN hostname > /seen && grep -c box.test /etc/hosts >> /seen || true\n",
    );
    boxwright.built(&context, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=box.test"]);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "box.test\n1\n");
    // Steps that could tell are other steps, and an empty name is none.
    boxwright.built(&context, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME="]);
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "buildkitsandbox\n0\n");
}

#[test]
fn what_is_no_host_name_is_refused() {
    let boxwright = Boxwright::with_busybox();
    let long = "a".repeat(65);
    for name in ["a b", "a\n10.0.0.1 registry.test", "\u{1b}[31m", &long] {
        let argument = format!("BUILDKIT_SANDBOX_HOSTNAME={name}");
        refused(&boxwright, "FROM busybox\nRUN true\n", &["--build-arg", &argument], &["is no host name"]);
    }
}
