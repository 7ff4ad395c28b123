//! Networks of an ordinary user's containers: what pasta and slirp4netns carry, and what happens when they don't work. In
//! network and mount namespaces of the test, so that it decides what the machine's network and its programs are.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use boxwright_testdata::{Ran, run};

use crate::tool::{Boxwright, Who, wrapped};

/// Runs a script for bash in namespaces of its own. `bw` is the command by an ordinary user, `$dir` a directory that they
/// may look into, `until_it` retries what follows.
fn apart(boxwright: &Boxwright, script: &str) -> Ran {
    let script = format!(
        "all=(\"$0\" \"$@\"); bw() {{ \"${{all[@]}}\" \"$@\"; }}; bw_aside() {{ \"${{all[@]}}\" \"$@\" & }}; dir={}; cd $dir; \
         until_it() {{ until \"$@\" > $dir/tried 2>&1; do sleep 0.01; done; }}\n{script}",
        boxwright.scratch("").display()
    );
    let by = ["unshare", "--net", "--mount", "--propagation", "private", "bash", "-euc", &script];
    run(&mut wrapped(&by, &boxwright.command(&[])))
}

fn executable(boxwright: &Boxwright, name: &str, content: impl AsRef<[u8]>) {
    let path = boxwright.scratch(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A machine in the very network that helpers give to containers, as virtual machines often are, with servers of pages and
/// of names.
const MACHINE: &str = "ip link set lo up; ip link add world type veth peer name wire; ip link set wire up; ip addr add 10.0.2.15/24 dev world; \
    ip link set world up; ip route add default via 10.0.2.2; echo nameserver 10.0.2.15 > servers; \
    mount --bind servers /etc/resolv.conf; mkdir www; head -c 3000000 /dev/urandom > www/page; \
    busybox httpd -f -p 10.0.2.15:80 -h www & pages=$!; python3 names.py & names=$!; trap 'kill $pages $names' EXIT; \
    until_it busybox nslookup any.test 10.0.2.15; until_it busybox wget -qO /dev/null http://10.0.2.15/page;";

/// All names are those of the machine.
const NAMES: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.0.2.15', 53))
while True:
    query, client = s.recvfrom(512)
    end = query.index(0, 12) + 5
    known = query[end - 4:end - 2] == b'\\0\\1'
    head = query[:2] + b'\\x81\\x80\\0\\1\\0' + (b'\\1' if known else b'\\0') + b'\\0\\0\\0\\0' + query[12:end]
    answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + socket.inet_aton('10.0.2.15')
    s.sendto(head + (answer if known else b''), client)
";

#[test]
fn either_helper_leads_to_the_host_to_its_name_servers_and_back() {
    for (helper, hide) in [("pasta", ""), ("slirp4netns", "mount --bind none $(command -v pasta);")] {
        let boxwright = Boxwright::with_busybox_of(Who::User);
        fs::write(boxwright.scratch("none"), "").unwrap();
        fs::write(boxwright.scratch("names.py"), NAMES).unwrap();
        let inside = "wget -qO- http://up/page | md5sum; mkdir /www; wget -qO /www/page http://any.test/page; \
                      httpd -p 80 -h /www; echo ready; exec sleep 1000";
        let script = format!(
            "{hide} {MACHINE} md5sum < www/page; bw doctor | grep -o 'network: [a-z0-9]* joined'; \
             printf 'FROM busybox\\nRUN wget -qO- http://up/page | md5sum > /sum\\n' | \
             bw build -q -t x --add-host up=host-gateway - > built; bw run --rm x cat /sum; \
             bw_aside run --rm --init --add-host up:host-gateway -p 127.0.0.1:8080:80 busybox sh -c '{inside}' > out; \
             until_it grep ready out; head -n 1 out; busybox wget -qO- http://127.0.0.1:8080/page | md5sum; kill $!; wait $! || true"
        );
        let out = apart(&boxwright, &script).ok();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[1], format!("network: {helper} joined"), "{out}");
        assert_eq!(lines[2..], [lines[0]; 3], "{out}");
        assert!(lines[0].ends_with("  -"), "{out}");
    }
}

/// slirp4netns in the mood that the file `mood` has; pasta is of no use.
fn moody(boxwright: &Boxwright) -> &'static str {
    let real = run(std::process::Command::new("sh").args(["-c", "command -v slirp4netns"])).ok();
    executable(boxwright, "real", fs::read(real.trim()).unwrap());
    executable(boxwright, "no", "#!/bin/sh\necho not today >&2\nexit 1\n");
    let dir = boxwright.scratch("").display().to_string();
    let script = format!(
        "#!/bin/sh\nread mood < {dir}/mood\ncase $mood in\nfails) echo broken today >&2; exit 1;;\n\
         loops) while :; do :; done;;\nsleeps) sleep 3.1;;\n\
         talks) head -c 1000000 /dev/zero | tr '\\0' x >&2; stat -Lc %s /proc/self/fd/2 > {dir}/home/said;;\nhangs) echo $$ > {dir}/home/hanging; mv {dir}/home/hanging {dir}/home/hangs; exec sleep 1000;;\nesac\n\
         echo $$ > {dir}/home/pid\nexec {dir}/real \"$@\"\n"
    );
    executable(boxwright, "slirp", script);
    "mount --bind no $(command -v pasta); mount --bind slirp $(command -v slirp4netns); mood() { echo $1 > mood; }; \
     address() { bw run --rm busybox ip -o -4 addr show eth0 | grep -o '10.0.2.[0-9]*/'; };"
}

#[test]
fn a_helper_that_is_slow_is_waited_for_and_one_that_worked_is_not_replaced_by_the_hosts_network() {
    let boxwright = Boxwright::with_busybox_of(Who::User);
    let moods = moody(&boxwright);
    let script = format!(
        "{moods} mood sleeps; address; mood talks; address; cat home/said; mood fails; bw run --rm busybox echo started || echo $?; \
         printf 'FROM busybox\\nRUN echo sta$(echo rted)\\n' | bw build --progress plain - || echo $?; mood works; address; \
         mood hangs; bw_aside run --rm busybox echo started; until_it ls home/hangs; kill $!; wait $! || echo $?; \
         kill -0 $(cat home/hangs) || echo ended; rm home/hangs; mkdir c; printf 'FROM busybox\nRUN true\n' > c/Dockerfile; \
         bw_aside build c; until_it ls home/hangs; kill -INT $!; wait $! || echo $?; kill -0 $(cat home/hangs) || echo ended"
    );
    let ran = apart(&boxwright, &script);
    assert_eq!(
        ran.stdout, "10.0.2.100/\n10.0.2.100/\n16384\n125\n1\n10.0.2.100/\n143\nended\n130\nended\n",
        "{ran}"
    );
    let says = "slirp4netns: broken today; pasta: not today; the host's network is used in its place only with --network host";
    let told = ran.stderr.lines().filter(|line| line.contains(says)).count();
    assert!(told >= 2, "by run and by build: {ran}");
    ran.says_nothing_of("use the host's network, as").says_nothing_of(" started\n");
}

#[test]
fn a_helper_that_never_starts_is_not_tried_again_until_it_is_another_one() {
    let boxwright = Boxwright::with_busybox_of(Who::User);
    let moods = moody(&boxwright);
    let script = format!(
        "{moods} mood loops; bw run --rm busybox echo one; mood works; bw run --rm busybox echo two; \
         touch -d 2020-01-01 slirp; address"
    );
    let ran = apart(&boxwright, &script);
    assert_eq!(ran.stdout, "one\ntwo\n10.0.2.100/\n", "{ran}");
    let says = "Containers use the host's network, as there is no other: pasta: not today; slirp4netns";
    ran.says(&format!("{says}: it was not ready after 3 seconds of work\n"))
        .says(&format!("{says} did not work here before\n"));
}

#[test]
fn a_step_has_a_network_when_the_helper_of_the_step_before_has_gone() {
    let boxwright = Boxwright::with_busybox_of(Who::User);
    let moods = moody(&boxwright);
    fs::write(boxwright.scratch("names.py"), NAMES).unwrap();
    // Whoever asks at port 7 loses the network by which they asked.
    executable(
        &boxwright,
        "end",
        format!("#!/bin/sh\ntouch {0}/asked; kill $(cat {0}/home/pid)\n", boxwright.scratch("").display()),
    );
    let script = format!(
        "{moods} {MACHINE} mood works; busybox nc -ll -p 7 -e ./end & trap 'kill $pages $names $!' EXIT; \
         until_it grep -q ':0007 ' /proc/net/tcp /proc/net/tcp6; \
         printf 'FROM busybox\\nRUN timeout 1 nc up 7; true\\nRUN wget -qO /page http://up/page\\n' | \
         bw build --progress plain --add-host up=host-gateway -"
    );
    apart(&boxwright, &script).says_nothing_of("Connection refused").ok();
    assert!(boxwright.scratch("asked").exists(), "the helper was not killed");
}
