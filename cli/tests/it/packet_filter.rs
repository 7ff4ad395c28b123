//! The bridge beside rules that others made: whoever forwards nothing is told of it, by what knows their form of rules.

use crate::network::apart;
use crate::tool::Boxwright;

/// Another machine at the other end of a cable, with a server; `reach` has a container ask it once.
const OTHER: &str = "unshare --net sleep 1000 & other=$!; trap 'kill $other' EXIT; \
    while [ $(readlink /proc/$other/ns/net) = $(readlink /proc/self/ns/net) ]; do :; done; \
    ip link set lo up; ip link add here type veth peer name there netns $other; ip addr add 198.51.100.1/24 dev here; \
    ip link set here up; there() { nsenter --net=/proc/$other/ns/net \"$@\"; }; \
    there ip addr add 198.51.100.2/24 dev there; there ip link set there up; \
    nsenter --net=/proc/$other/ns/net busybox nc -ll -p 7 -e echo found & server=$!; trap 'kill $other $server' EXIT; \
    until busybox nc -w 1 198.51.100.2 7 </dev/null >/dev/null 2>&1; do :; done; \
    reach() { bw run --rm busybox nc -w ${1:-1} 198.51.100.2 7 </dev/null || echo $?; };";

#[test]
fn containers_reach_out_past_dockers_rules_and_nobody_reaches_in() {
    for iptables in ["iptables", "iptables-legacy"] {
        let boxwright = Boxwright::with_busybox();
        let script = format!(
            "{OTHER} {iptables} -P FORWARD DROP; {iptables} -A FORWARD -j DROP; reach 30; \
             {iptables} -S FORWARD | grep -c boxwright0; reach 30; {iptables} -S FORWARD | grep -c boxwright0; \
             there ip route add 10.0.0.0/8 via 198.51.100.1; \
             \"$program\" --root \"$store\" run --rm --name in busybox sh -c 'nc -ll -p 7 -e echo reached & \
             until grep -q :0007 /proc/net/tcp /proc/net/tcp6; do usleep 1000; done; echo ready; sleep 1000' \
             > $store/ready & inside=$!; while ! grep -q ready $store/ready; do :; done; \
             address=$(grep -o '10[.][0-9.]*' $store/containers/in | head -n 1); \
             busybox nc -w 1 $address 7 </dev/null; there busybox nc -w 1 $address 7 </dev/null || echo kept out; \
             kill -9 $inside; wait $inside || true; \
             while ip -o link | grep -q master.boxwright0; do :; done; bw system prune -f | head -n 2; \
             {iptables} -S FORWARD | grep boxwright0 || echo no rules left"
        );
        let expected =
            "found\n2\nfound\n2\nreached\nkept out\nDeleted Networks:\nboxwright0\nno rules left\n";
        assert_eq!(apart(&boxwright, &script).ok(), expected, "{iptables}");
    }
}

#[test]
fn a_packet_filter_that_somebody_else_keeps_is_no_reason_for_the_hosts_network() {
    let boxwright = Boxwright::with_busybox();
    let script = "iptables-legacy -P FORWARD DROP; mount -t tmpfs none /run; flock --no-fork /run/xtables.lock sleep 1000 & \
         trap 'kill $!' EXIT; while flock --nonblock /run/xtables.lock true; do :; done; \
         bw run --rm busybox echo started || echo $?";
    let ran = apart(&boxwright, script);
    assert_eq!(ran.stdout, "125\n", "{ran}");
    ran.says("telling iptables-legacy of the bridge: ").says("holding the xtables lock");
}

#[test]
fn containers_reach_out_where_firewalld_forwards_nothing() {
    let boxwright = Boxwright::with_busybox();
    // It has a bus, a configuration and a log of its own here.
    let script = format!(
        "mkdir -p $store/firewall /run/dbus; mount -t tmpfs none /run/dbus; cp -r /etc/firewalld/. $store/firewall; \
         mount --bind $store/firewall /etc/firewalld; {OTHER} dbus-daemon --system --nofork --nopidfile & bus=$!; \
         trap 'kill $other $server $bus' EXIT; while ! test -S /run/dbus/system_bus_socket; do :; done; \
         firewalld --nofork --nopid > $store/wall & wall=$!; trap 'kill $other $server $bus $wall' EXIT; \
         until firewall-cmd --state > $store/state; do sleep 0.05; done; \
         firewall-cmd -q --zone=public --add-interface=here; reach 30; firewall-cmd --zone=trusted --list-interfaces; reach 30; \
         bw system prune -f | head -n 2; firewall-cmd --zone=trusted --list-interfaces; echo end"
    );
    let expected = "found\nboxwright0\nfound\nDeleted Networks:\nboxwright0\n\nend\n";
    let ran = apart(&boxwright, &script);
    assert_eq!(ran.stdout, expected, "{ran}");
}

#[test]
fn rules_of_a_person_that_forward_nothing_are_told_of_with_what_helps() {
    let boxwright = Boxwright::with_busybox();
    let script = format!(
        "{OTHER} nft 'add table inet guard; add chain inet guard onwards {{ type filter hook forward priority 0; policy drop; }}'; \
         reach; reach; (bw doctor || true) | grep -A1 ' network:'; \
         nft insert rule inet guard onwards iifname boxwright0 accept; \
         nft insert rule inet guard onwards oifname boxwright0 ct state established,related accept; reach 30; \
         (bw doctor || true) | grep -c 'yes *network:'"
    );
    let ran = apart(&boxwright, &script);
    let insert = "nft insert rule inet guard onwards";
    let says = format!(
        "drops what containers send beyond this machine, by the policy of chain onwards of table inet guard; this lets it \
         through: {insert} iifname boxwright0 accept; {insert} oifname boxwright0 ct state established,related accept"
    );
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((lines[0], lines[1]), ("1", "1"), "{ran}");
    assert_eq!(lines[2], "partly  network: containers reach this machine alone", "{ran}");
    assert!(lines[3].ends_with(&says), "{ran}");
    assert_eq!(lines[4..], ["found", "1"], "{ran}");
    assert_eq!(ran.stderr.matches(&says).count(), 1, "{ran}");
}

#[test]
fn what_network_namespaces_leave_that_are_gone_is_swept() {
    let boxwright = Boxwright::with_busybox();
    // As somebody leaves it who was killed. Its number is not the next one's as long as it is there.
    let script = "dir=/run/boxwright/network/$(stat -Lc %i /proc/self/ns/net); bw run --rm busybox true; \
         touch $dir/10.210.208.77; ls $dir | grep 77; \
         unshare --net \"$program\" --root \"$store\" run --rm busybox true; test -e $dir || echo swept";
    assert_eq!(apart(&boxwright, script).ok(), "10.210.208.77\nswept\n");
}
