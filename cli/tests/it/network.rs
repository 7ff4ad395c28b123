//! Networks of containers and steps: by the bridge as root, by a helper as an ordinary user. What could get into the way
//! of the machine's own network happens in a network namespace of the test.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::{base, run};
use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running, Who, cache, eventually, wrapped};

pub(crate) const BOTH: [Who; 2] = [Who::Root, Who::User];

/// Starts a container that says "ready" when it is.
pub(crate) fn start(boxwright: &Boxwright, args: &[&str], script: &str) -> Running {
    let script = format!("{script} echo ready; exec sleep 1000");
    let all = [&["run", "--rm", "--init"], args, &["busybox", "sh", "-c", &script]].concat();
    ready(&mut boxwright.command(&all))
}

/// Started, and waited for until it has said so.
pub(crate) fn ready(command: &mut Command) -> Running {
    let mut running = Running::start(command.stdout(Stdio::piped()));
    running.0.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    running
}

pub(crate) fn end(mut running: Running) {
    running.signal(Signal::TERM);
    running.wait();
}

/// A page of the server at `address`, which may take a moment to be there.
pub(crate) fn page(address: &str) -> String {
    let mut text = String::new();
    eventually(&format!("{address} gives a page"), || {
        text.clear();
        let Ok(mut stream) = TcpStream::connect(address.trim()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut text).is_ok() && text.contains("200 OK")
    });
    text
}

pub(crate) const SERVER: &str = "mkdir /www && echo the page > /www/page && httpd -p 80 -h /www;";

#[test]
fn a_container_has_a_network_of_its_own() {
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        let script = "ls /sys/class/net; ip -o -4 addr show eth0; ip route; cat /etc/hosts; hostname; cat /etc/resolv.conf; \
                      cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ip -6 addr show eth0; echo end";
        let out = boxwright.output_of("busybox", &["sh", "-c", script]);
        assert!(out.starts_with("eth0\nlo\n"), "{who:?}: {out}");
        let address = out.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap();
        let address = address.split_once('/').unwrap().0;
        let own = out.lines().find(|line| line.starts_with(&format!("{address}\t"))).unwrap();
        let name = own.split_once('\t').unwrap().1;
        assert!(out.contains(&format!("\n{name}\n")), "the hosts file has the container's name: {out}");
        assert!(out.contains("default via 10."), "{out}");
        assert!(out.contains("nameserver ") && !out.contains("nameserver 127."), "{out}");
        assert!(out.ends_with("\n0\nend\n"), "low ports are for everybody, and there is no IPv6: {out}");
        let gateway = out.split_whitespace().skip_while(|word| *word != "via").nth(1).unwrap();
        let hosts = boxwright.ok(&[
            "run",
            "--rm",
            "--add-host",
            "up:host-gateway",
            "--domainname",
            "b.test",
            "-h",
            "a",
            "--dns",
            "127.0.0.1",
            "busybox",
            "sh",
            "-c",
            "cat /etc/hosts /etc/resolv.conf; hostname; cat /etc/hostname /proc/sys/kernel/domainname; echo $HOSTNAME",
        ]);
        // Behind a helper the gateway is nobody: `network_helpers.rs` tries what is said there.
        assert!(hosts.contains("\tup\n"), "{hosts}");
        assert_eq!(hosts.contains(&format!("{gateway}\tup\n")), who == Who::Root, "{hosts}");
        assert!(
            hosts.contains("nameserver 127.0.0.1\n") && hosts.ends_with("\na\na\nb.test\na\n"),
            "{hosts}"
        );
        assert_eq!(hosts.matches("\ta.b.test a\n").count(), 1, "{hosts}");
    }
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    let server = Server::start(|_, _| Reply::new(200, "for this machine alone"));
    let address = server.address();
    let (_, port) = address.split_once(':').unwrap();
    let script = format!(
        "for host in 127.0.0.1 $(ip route | grep default | cut -d' ' -f3); do \
         timeout 10 wget -qO- http://$host:{port}/ || echo refused; done"
    );
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        assert_eq!(boxwright.output_of("busybox", &["sh", "-c", &script]), "refused\nrefused\n", "{who:?}");
        let host = ["run", "--rm", "--network", "host", "busybox", "sh", "-c", &script];
        assert!(boxwright.ok(&host).starts_with("for this machine alone"), "{who:?}");
    }
}

#[test]
fn a_container_may_share_the_network_of_another() {
    let boxwright = Boxwright::with_busybox();
    let flags = ["--name", "web", "-h", "first", "--add-host", "db:10.9.8.7"];
    let running = start(&boxwright, &flags, SERVER);
    let shared = |args: &[&str]| {
        let all = [&["run", "--rm", "--network", "container:web"], args].concat();
        boxwright.run(&all)
    };
    let script = "wget -qO- http://127.0.0.1/page; hostname; grep -c 10.9.8.7 /etc/hosts";
    assert_eq!(shared(&["busybox", "sh", "-c", script]).ok(), "the page\nfirst\n1\n");
    for (flag, value, conflict) in [
        ("-p", "80", "port publishing and the container type network mode"),
        ("-h", "x", "hostname and the network mode"),
        ("--dns", "1.1.1.1", "dns and the network mode"),
        ("--add-host", "a:1.1.1.1", "custom host-to-IP mapping and the network mode"),
    ] {
        let ran = shared(&[flag, value, "busybox", "true"]).fails_with(125);
        ran.says(&format!("conflicting options: {conflict}"));
    }
    end(running);
    shared(&["busybox", "true"]).fails_with(125).says("No such container: web");
}

#[test]
fn steps_have_a_network_of_their_own_and_share_it_in_turn() {
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        let context = Context::new(
            "FROM busybox\nRUN ip -o -4 addr show eth0 > /one; cat /etc/resolv.conf\nRUN ip -o -4 addr show eth0 > /two\n\
             RUN --network=none ls /sys/class/net > /none\nRUN grep up /etc/hosts > /hosts\n",
        );
        boxwright.build(&context, &["-t", "x", "--add-host", "up:host-gateway"]).ok();
        let out = boxwright.output_of("x", &["sh", "-c", "cmp /one /two; cat /none /hosts"]);
        assert!(out.starts_with("lo\n") && out.ends_with("\tup\n"), "{who:?}: {out}");
        let ran = boxwright.build(&context, &["--network", "host", "--no-cache"]);
        // There is no eth0 like ours, or another one.
        assert!(ran.stderr.contains("RUN ip"), "{ran}");
    }
}

#[test]
fn a_user_installs_a_package_of_debian_in_a_step_and_it_serves_the_world() {
    // An ordinary user can't make the devices that Debian's base has.
    let dir = tempfile::tempdir().unwrap();
    let debian = dir.path().join("debian.tar");
    base::debian(cache());
    let script = "mkdir root && tar -C root -xf \"$0\" --exclude './dev/*' && tar -C root -cf debian.tar .";
    run(Command::new("sh").args(["-euc", script]).arg(cache().join("debian.tar")).current_dir(dir.path()))
        .ok();
    let boxwright = Boxwright::of(Who::User);
    let context = Context::new(
        "FROM scratch\nADD debian.tar /\n\
             RUN apt-get update && apt-get install -y --no-install-recommends busybox && rm -rf /var/lib/apt/lists/*\n\
             RUN mkdir /www && echo the page > /www/page\n\
             CMD [\"busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n",
    );
    fs::hard_link(&debian, context.join("debian.tar")).unwrap();
    boxwright.build(&context, &["-t", "web"]).ok();
    let mut command =
        boxwright.command(&["run", "--rm", "--init", "--name", "web", "-p", "127.0.0.1::80", "web"]);
    let running = Running::start(&mut command);
    let mut address = String::new();
    eventually("the port is known", || {
        let ran = boxwright.run(&["port", "web", "80"]);
        address.clone_from(&ran.stdout);
        ran.status == 0
    });
    assert!(page(&address).ends_with("the page\n"));
    end(running);
}

#[test]
fn a_user_without_a_helper_has_the_hosts_network_and_is_told_once() {
    let boxwright = Boxwright::with_busybox_of(Who::User);
    // Nobody but root may open the device any more.
    let device = boxwright.scratch("tun");
    fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let says = "Containers use the host's network, as there is no other";
    let args = ["run", "--rm", "busybox", "true"];
    boxwright.run(&args).says(says).ok();
    boxwright.run(&args).says_nothing_of(says).ok();
    for flags in [&["--network", "bridge"][..], &["-p", "80"]] {
        let ran = boxwright.run(&[&["run", "--rm"], flags, &["busybox", "echo", "started"]].concat());
        ran.fails_with(125).says_nothing_of("started").says("gives a container no network of its own: ");
    }
    let context = Context::new("FROM busybox\nRUN echo one\nRUN echo two\n");
    let ran = boxwright.build(&context, &[]);
    assert_eq!(ran.stderr.matches("steps use the host's network").count(), 1, "{ran}");
    ran.ok();
}

/// What bridges keep is of this mount namespace alone.
pub(crate) const OWN_RUN: &str = "mkdir -p /run/boxwright; mount -t tmpfs none /run/boxwright;";

/// Runs a shell script in a network namespace with nothing in it, with mounts of its own; `bw` is the command. Whoever else
/// makes a bridge meanwhile sweeps what networks have left that nobody uses: not here.
pub(crate) fn apart(boxwright: &Boxwright, script: &str) -> boxwright_testdata::Ran {
    let script =
        format!("program=$0 store=$2; bw() {{ \"$program\" --root \"$store\" \"$@\"; }}; {OWN_RUN} {script}");
    let by = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-euc", &script];
    run(&mut wrapped(&by, &boxwright.command(&[])))
}

#[test]
fn the_bridge_is_made_when_it_is_needed_and_removed_when_it_is_not() {
    let boxwright = Boxwright::with_busybox();
    let script = "bw run --rm --network none busybox true; ip link show boxwright0 2>/dev/null && echo too early; \
         bw run --rm busybox true; ip -o link show boxwright0 | grep -c UP; nft list tables; cat /proc/sys/net/ipv4/ip_forward; \
         nft flush ruleset; bw run --rm busybox true; nft list tables; bw system prune -f; \
         ip link show boxwright0 2>/dev/null || echo gone; nft list tables";
    let out = apart(&boxwright, script).ok();
    let expected = "1\ntable ip boxwright\n1\ntable ip boxwright\nDeleted Networks:\nboxwright0\n\nTotal reclaimed space: 0B\ngone\n";
    assert_eq!(out, expected);
}

#[test]
fn many_containers_at_once_have_addresses_of_their_own() {
    let boxwright = Boxwright::with_busybox();
    // None ends before all have begun: an address may be had again by the time.
    let script = "mkdir $store/all; for n in $(seq 20); do bw run --rm -v $store/all:/all busybox sh -c \
         'ip -o -4 addr show eth0; mkdir /all/'$n'; while [ $(ls /all | wc -l) != 20 ]; do sleep 0.05; done' & done; \
         wait; ip -o link show type bridge | wc -l";
    let out = apart(&boxwright, script).ok();
    let addresses: BTreeSet<&str> =
        out.split_whitespace().filter(|word| word.starts_with("10.") && word.contains('/')).collect();
    assert_eq!(addresses.len(), 20, "{out}");
    assert!(out.ends_with("\n1\n"), "{out}");
}

#[test]
fn who_finds_no_free_address_is_not_let_into_the_hosts_network() {
    let boxwright = Boxwright::with_busybox();
    // A network with room for one container, which is there.
    let script = "ip link add boxwright0 type bridge; ip addr add 10.9.8.1/30 dev boxwright0; ip link set boxwright0 up; \
         \"$program\" --root \"$store\" run --rm busybox sh -c 'echo ready; sleep 1000' > $store/out & inside=$!; \
         while ! grep -q ready $store/out; do :; done; bw run --rm busybox echo started || echo $?; \
         bw build --progress plain $store/context || echo $?; kill -9 $inside";
    let context = boxwright.store().join("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo star''ted\n").unwrap();
    let ran = apart(&boxwright, script);
    assert_eq!(ran.stdout, "125\n1\n", "{ran}");
    assert_eq!(ran.stderr.matches("all 1 of the bridge are in use").count(), 3, "{ran}");
    ran.says_nothing_of(" started\n");
}

#[test]
fn nobody_else_can_lock_the_bridge() {
    let boxwright = Boxwright::with_busybox();
    let script = "bw run --rm busybox true; lock=/run/boxwright/network/$(stat -Lc %i /proc/self/ns/net)/lock; \
         setpriv --reuid 1 --regid 1 --clear-groups flock $lock echo locked || echo kept out; flock $lock echo ours";
    assert_eq!(apart(&boxwright, script).ok(), "kept out\nours\n");
}
