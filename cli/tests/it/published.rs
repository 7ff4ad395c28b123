//! Published ports: what arrives there, and how much of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use boxwright_testdata::run;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::network::{BOTH, SERVER, apart, end, page, ready, start};
use crate::tool::{Boxwright, Context, Running, eventually, wrapped};

/// A program of the host in the network of a container: no image here has one like it.
fn serve_in(boxwright: &Boxwright, name: &str, program: &str) -> Running {
    let record = fs::read(boxwright.store().join("containers").join(name)).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let network = format!("--net=/proc/{}/ns/net", record["process"]["id"]);
    Running::start(Command::new("nsenter").args([&network, "python3", "-c", program]))
}

/// Datagrams come back.
const ECHO: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 53))
while True:
    data, client = s.recvfrom(99)
    s.sendto(data, client)
";

fn client_of(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address.trim()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

fn comes_back(socket: &UdpSocket) {
    let mut answer = [0; 16];
    eventually("the datagram comes back", || {
        let _ = socket.send(b"over and out");
        socket.recv(&mut answer).is_ok_and(|length| answer[..length] == *b"over and out")
    });
}

#[test]
fn published_ports_lead_to_the_container() {
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        let flags = ["--name", "web", "-p", "127.0.0.1::80", "-p", "127.0.0.1::53/udp", "-p", "[::1]::80"];
        let running = start(&boxwright, &flags, SERVER);
        let port = |which: &str| boxwright.ok(&["port", "web", which]);
        let tcp = port("80");
        let mut addresses: Vec<&str> = tcp.lines().collect();
        addresses.sort();
        assert!(addresses[0].starts_with("127.0.0.1:") && addresses[1].starts_with("[::1]:"), "{tcp}");
        for address in addresses {
            assert!(page(address).ends_with("the page\n"), "{who:?} {address}");
        }
        let _echo = serve_in(&boxwright, "web", ECHO);
        comes_back(&client_of(&port("53/udp")));
        assert_eq!(boxwright.ok(&["port", "web"]).lines().count(), 3);
        boxwright.run(&["port", "web", "81"]).fails_with(1).says("no public port '81' published for web");
        end(running);
        boxwright.run(&["port", "web"]).fails_with(1).says("No such container: web");
        let gone = TcpStream::connect(tcp.lines().next().unwrap());
        assert!(gone.is_err(), "the port outlived its container");
    }
}

#[test]
fn many_bytes_go_both_ways_and_each_side_may_end_first() {
    let boxwright = Boxwright::with_busybox();
    let count = "nc -ll -p 7 -e sh -c 'head -c 5000000 | md5sum; head -c 3000000 /dev/zero' & \
                 until grep -q ':0007 ' /proc/net/tcp /proc/net/tcp6; do usleep 1000; done;";
    let running = start(&boxwright, &["--name", "sum", "-p", "127.0.0.1::7"], count);
    let address = boxwright.ok(&["port", "sum", "7"]);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address.trim()).unwrap();
        let mut writing = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            writing.write_all(&vec![b'x'; 5_000_000]).unwrap();
            writing.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        writer.join().unwrap();
        assert_eq!(answer.len(), 3_000_000 + "0123456789abcdef0123456789abcdef  -\n".len());
        answers.push(answer);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    end(running);
}

#[test]
fn a_port_in_use_is_told_as_docker_does_and_nothing_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        let ran = boxwright.run(&["run", "--rm", "-p", &format!("{port}:80"), "busybox", "echo", "started"]);
        let says = format!("failed to bind host port 0.0.0.0:{port}/tcp: address already in use");
        ran.says_nothing_of("started").says(&says).fails_with(125);
    }
    let boxwright = Boxwright::with_busybox();
    for (flag, says) in [
        ("1-2:3-5", "invalid ranges"),
        ("80/sctp", "publishing a port of sctp is not supported yet"),
        ("x:1:2", "invalid IP address: x"),
        ("0", "port 0 of a container can't be published"),
    ] {
        boxwright.run(&["run", "--rm", "-p", flag, "busybox", "true"]).says(says).fails_with(125);
    }
    let host = boxwright.run(&["run", "--rm", "--network=host", "-p", "80", "busybox", "true"]);
    host.says("WARNING: Published ports are discarded").ok();
}

#[test]
fn all_ports_that_the_image_names_are_published_on_request() {
    let boxwright = Boxwright::with_busybox();
    boxwright.build(&Context::new("FROM busybox\nEXPOSE 80 53/udp\n"), &["-t", "busybox"]).ok();
    let running = start(&boxwright, &["-P", "--expose", "7-8", "--name", "all"], SERVER);
    let ports = boxwright.ok(&["port", "all"]);
    let published: BTreeSet<&str> = ports.lines().map(|line| line.split_once(" -> ").unwrap().0).collect();
    assert_eq!(published, BTreeSet::from(["53/udp", "7/tcp", "8/tcp", "80/tcp"]), "{ports}");
    let web = boxwright.ok(&["port", "all", "80"]);
    let any = web.lines().find_map(|line| line.strip_prefix("0.0.0.0:")).unwrap();
    assert!(page(&format!("127.0.0.1:{any}")).ends_with("the page\n"));
    end(running);
}

/// A client that was promised an answer from there takes none that comes from elsewhere.
#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        let running = start(&boxwright, &["--name", "echo", "-p", "53/udp", "-p", "127.0.0.3::53/udp"], "");
        let _echo = serve_in(&boxwright, "echo", ECHO);
        let ports = boxwright.ok(&["port", "echo", "53/udp"]);
        let port = |prefix: &str| {
            let found = ports.lines().find_map(|line| line.strip_prefix(prefix));
            found.unwrap_or_else(|| panic!("no {prefix} in {ports}")).to_owned()
        };
        let any = port("0.0.0.0:");
        for host in ["127.0.0.1", "127.0.0.2"] {
            comes_back(&client_of(&format!("{host}:{any}")));
        }
        comes_back(&client_of(&format!("127.0.0.3:{}", port("127.0.0.3:"))));
        let six = UdpSocket::bind("[::1]:0").unwrap();
        six.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        six.connect(format!("[::1]:{}", port("[::]:"))).unwrap();
        comes_back(&six);
        // One client that asks at two addresses has each answer from its own.
        let both = UdpSocket::bind("127.0.0.1:0").unwrap();
        both.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        for host in ["127.0.0.1", "127.0.0.2", "127.0.0.1"] {
            let asked = format!("{host}:{any}");
            let mut answer = [0; 16];
            eventually("the datagram comes back", || {
                both.send_to(host.as_bytes(), &asked).unwrap();
                let Ok((length, from)) = both.recv_from(&mut answer) else { return false };
                assert_eq!(from.to_string(), format!("{}:{any}", String::from_utf8_lossy(&answer[..length])));
                from.to_string() == asked
            });
        }
        end(running);
    }
}

#[test]
fn no_number_of_clients_keeps_others_out() {
    let boxwright = Boxwright::with_busybox();
    let running = start(&boxwright, &["--name", "echo", "-p", "127.0.0.1::53/udp"], "");
    let _echo = serve_in(&boxwright, "echo", ECHO);
    let address = boxwright.ok(&["port", "echo", "53/udp"]);
    let first = client_of(&address);
    comes_back(&first);
    // More than are kept. Each is another one, as if senders were made up.
    (0..1100).for_each(|_| comes_back(&client_of(&address)));
    comes_back(&first);
    end(running);
}

/// The connections that a command passes on at a time.
const CONNECTIONS: usize = 1024;
/// Where the command may open this many files at first, and at most.
const FILES: [&str; 2] = ["prlimit", "--nofile=1024:8192"];

#[test]
fn who_comes_when_there_is_no_room_waits_until_somebody_has_gone() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    let boxwright = Boxwright::with_busybox();
    // Sends back what it gets, from as many at once as may come.
    let echo = "import asyncio, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
async def echo(reader, writer):
    while data := await reader.read(99):
        writer.write(data)
    writer.close()
async def main():
    await (await asyncio.start_server(echo, '0.0.0.0', 7)).serve_forever()
asyncio.run(main())
";
    let args = ["run", "--rm", "--init", "--name", "many", "-p", "127.0.0.1::7", "busybox", "sh", "-c"];
    let command = boxwright.command(&[&args[..], &["echo ready; exec sleep 1000"]].concat());
    let running = ready(&mut wrapped(&FILES, &command));
    let _echo = serve_in(&boxwright, "many", echo);
    let address = boxwright.ok(&["port", "many", "7"]);
    let connected = || {
        let stream = TcpStream::connect(address.trim()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let answers =
        |mut stream: &TcpStream| stream.write_all(b"here").is_ok() && stream.read_exact(&mut [0; 4]).is_ok();
    eventually("the server is there", || answers(&connected()));
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connected()).collect();
    assert!(streams.iter().all(answers));
    let late = connected();
    late.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(!answers(&late), "there is room for one more");
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    streams.truncate(CONNECTIONS / 2);
    (&late).read_exact(&mut [0; 4]).unwrap();
    end(running);
}

#[test]
fn a_thousand_ports_may_be_published_and_the_container_opens_no_more_files_for_that() {
    let boxwright = Boxwright::with_busybox();
    let flags = ["run", "--rm", "--name", "wide", "-p", "127.0.0.1::1-1100", "busybox", "sh", "-c"];
    let script = "ulimit -Sn; ulimit -Hn; read wait";
    let command = boxwright.command(&[&flags[..], &[script]].concat());
    let ran = run(&mut wrapped(&FILES, &command));
    assert_eq!(ran.stdout, "1024\n8192\n", "{ran}");
    let limited =
        boxwright.command(&["run", "--rm", "-p", "127.0.0.1::1-1100", "busybox", "echo", "started"]);
    let ran = run(&mut wrapped(&["prlimit", "--nofile=512:512"], &limited));
    ran.fails_with(125)
        .says("failed to bind host port 127.0.0.1:0/tcp: Too many open files")
        .says_nothing_of("started");
}

#[test]
fn an_address_of_one_kind_stands_for_that_and_none_for_both() {
    let boxwright = Boxwright::with_busybox();
    let script = "echo 1 > /proc/sys/net/ipv6/bindv6only; ip link set lo up; \
         \"$program\" --root \"$store\" run --rm -p 8080:80 -p 0.0.0.0:8081:80 -p [::]:8081:80 busybox sh -c \
         'mkdir /www; echo the page > /www/page; httpd -p 80 -h /www; echo ready; sleep 1000' > $store/out & inside=$!; \
         while ! grep -q ready $store/out; do :; done; \
         for host in 127.0.0.1 [::1]; do for port in 8080 8081; do busybox wget -qO- http://$host:$port/page; done; done; \
         kill -9 $inside";
    assert_eq!(apart(&boxwright, script).ok(), "the page\n".repeat(4));
}
