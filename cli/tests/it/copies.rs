//! Stores on a file system where no overlay can be mounted (here: another overlay): containers get copies of their
//! image's files, and nobody sees a difference in what comes out. `equality.rs` compares images, these the rest.

use std::fs;

use boxwright_testdata::peer::Certificates;
use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running, Who, eventually};

#[track_caller]
pub(crate) fn assert_sound(boxwright: &Boxwright) {
    assert!(boxwright.ok(&["system", "check"]).ends_with(": 0 wrong\n"));
}

pub(crate) fn in_use(boxwright: &Boxwright) -> usize {
    fs::read_dir(boxwright.store().join("tmp")).unwrap().count()
}

#[test]
fn what_a_container_changes_is_its_own_and_goes_with_it() {
    for who in [Who::Root, Who::User, Who::Single] {
        let boxwright = Boxwright::on_overlay(who);
        let said = boxwright
            .output_of("busybox", &["sh", "-c", "echo x >> /etc/passwd; rm -r /etc/group /home; echo $?"]);
        assert_eq!(said, "0\n", "{who:?}");
        let said =
            boxwright.output_of("busybox", &["sh", "-c", "grep -c x$ /etc/passwd; ls -d /etc/group /home"]);
        assert_eq!(said, "0\n/etc/group\n/home\n", "{who:?}");
        let read_only = boxwright.run(&["run", "--rm", "--read-only", "busybox", "touch", "/x"]);
        read_only.fails_with(1).says("Read-only file system");
        assert_eq!(in_use(&boxwright), 0, "{who:?}");
        assert_sound(&boxwright);
    }
}

#[test]
fn volumes_have_what_the_image_has_there() {
    for who in [Who::Root, Who::User] {
        let boxwright = Boxwright::on_overlay(who);
        let context = Context::new(
            "FROM busybox\nRUN mkdir -p /d/sub && echo low > /d/a && echo low > /d/b\n\
             RUN rm /d/b && echo high > /d/sub/c && ln -s /d /link\nVOLUME /d\n",
        );
        boxwright.built(&context, &[]);
        let look = "find /d | sort; echo new > /d/a; rm -r /d/sub; ls /d";
        for _ in 0..2 {
            assert_eq!(
                boxwright.output_of("x", &["sh", "-c", look]),
                "/d\n/d/a\n/d/sub\n/d/sub/c\na\n",
                "{who:?}"
            );
        }
        let named = ["run", "--rm", "-v", "vol:/d", "x", "sh", "-c", "cat /d/a /d/sub/c; echo kept > /d/a"];
        assert_eq!(boxwright.ok(&named), "low\nhigh\n", "{who:?}");
        assert_eq!(boxwright.ok(&["run", "--rm", "-v", "vol:/v:ro", "busybox", "cat", "/v/a"]), "kept\n");
    }
}

#[test]
fn steps_see_what_others_made_and_write_it_only_for_themselves() {
    for who in [Who::Root, Who::User] {
        let boxwright = Boxwright::on_overlay(who);
        let context = Context::new(
            "FROM busybox AS other\nRUN mkdir /o && echo one > /o/one && echo two > /o/two\nRUN rm /o/two && ln -s /o /link\n\
             FROM busybox\n\
             RUN --mount=from=other,target=/m,source=/link ls /m > /seen; touch /m/x 2> /dev/null || echo refused >> /seen\n\
             RUN --mount=from=other,target=/m,rw rm /m/o/one && echo w > /m/w && ls /m/o /m/w >> /seen\n\
             RUN --mount=from=other,target=/one,source=o/one --mount=target=/c cat /one /c/file >> /seen; ls -d /m /one /c || :\n\
             RUN --mount=type=cache,target=/cache echo cached > /cache/f\n\
             RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t cat /cache/f >> /seen; df /t | grep -c tmpfs >> /seen\n",
        );
        context.write("file", "of the context\n");
        boxwright.built(&context, &[]);
        let seen = "one\nrefused\n/m/w\n\n/m/o:\none\nof the context\ncached\n1\n";
        assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), seen, "{who:?}");
        assert_eq!(boxwright.output_of("x", &["ls", "-A", "/"]).matches("cache").count(), 0, "{who:?}");
        boxwright.run(&["build", "-t", "x", context.path()]).ok();
        assert_sound(&boxwright);
    }
}

/// Both ways: deletions are stored in another form here, and are those of any archive.
#[test]
fn images_go_to_other_stores_and_come_back_as_they_were() {
    let context = Context::new(
        "FROM busybox\nRUN mkdir -p /d/sub && touch /d/a /d/sub/b /empty && chmod 0 /empty\n\
         RUN rm -r /d && mkdir /d && touch /d/new && rm /etc/group\nCOPY --link Dockerfile /d/\n",
    );
    let (there, here) = (Boxwright::on_overlay(Who::Root), Boxwright::with_busybox());
    let look = ["sh", "-c", "find /d /etc/group /empty 2> /dev/null | sort; stat -c '%a %s' /empty"];
    for (from, to) in [(&there, &here), (&here, &there)] {
        from.built(&context, &[]);
        let id = from.ok(&["images", "-q", "--no-trunc", "x"]);
        let archive = from.scratch("x.tar");
        from.ok(&["save", "-o", archive.to_str().unwrap(), "x"]);
        to.run(&["rmi", "x"]);
        to.ok(&["builder", "prune", "-af"]);
        to.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
        assert_eq!(to.ok(&["images", "-q", "--no-trunc", "x"]), id);
        assert_eq!(to.output_of("x", &look), "/d\n/d/Dockerfile\n/d/new\n/empty\n0 0\n");
        assert_sound(to);
    }
}

/// The bundle of the image, and one that is made where there was none, as where it is appended to over a layer.
#[test]
fn certificates_leave_what_they_leave_elsewhere() {
    let context = Context::new(
        "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN ls /etc/ssl/certs; echo done > /done\n\
         RUN mkdir -p /etc/ssl/certs && echo bundle > /etc/ssl/certs/ca-certificates.crt\n\
         RUN grep -c MII /etc/ssl/certs/ca-certificates.crt && echo again > /again || :\n\
         RUN echo own >> /etc/ssl/certs/ca-certificates.crt\n",
    );
    let certificates = Certificates::new();
    let (there, here) = (Boxwright::on_overlay(Who::Root), Boxwright::with_busybox());
    let pem = certificates.path("ca.pem");
    for more in [&[][..], &["--ca-cert", pem.to_str().unwrap()]] {
        let ids = [&there, &here].map(|boxwright| {
            let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache"];
            boxwright.built(&context, &[&epoch, more].concat());
            boxwright.ok(&["images", "-q", "--no-trunc", "x"])
        });
        assert_eq!(ids[0], ids[1], "{more:?}");
    }
    let seen = there.output_of("x", &["sh", "-c", "cat /etc/ssl/certs/ca-certificates.crt; ls -d /again"]);
    assert_eq!(seen, "bundle\nown\n/again\n");
}

#[test]
fn what_a_failed_step_left_can_be_looked_into() {
    let boxwright = Boxwright::on_overlay(Who::Root);
    let context = Context::new("FROM busybox\nRUN rm -r /home && echo left > /left && false\n");
    let ran = boxwright.build(&context, &[]).fails_with(1);
    let (_, words) = ran.stderr.split_once(" debug shell ").unwrap();
    let words: Vec<&str> = words.lines().next().unwrap().split(' ').collect();
    let look = "cat /left; ls -d /home 2> /dev/null || echo gone";
    let said = boxwright.ok(&["debug", "shell", words[0], words[1], "sh", "-c", look]);
    assert_eq!(said, "left\ngone\n");
}

#[test]
fn a_device_of_the_image_or_the_container_cannot_be_opened() {
    let boxwright = Boxwright::on_overlay(Who::Root);
    let context = Context::new("FROM busybox\nRUN mknod /zero c 1 5\n");
    boxwright.built(&context, &[]);
    let tries = "for d in /zero /own; do test -c $d || mknod $d c 1 5; head -c 1 $d | wc -c; done";
    let ran = boxwright.run(&["run", "--rm", "x", "sh", "-c", tries]).says("Permission denied");
    assert_eq!(ran.stdout, "0\n0\n");
}

#[test]
fn what_was_killed_is_collected() {
    let boxwright = Boxwright::on_overlay(Who::Root);
    let mut running = Running::start(&mut boxwright.command(&["run", "--rm", "busybox", "sleep", "1000"]));
    eventually("the files are copied", || in_use(&boxwright) > 0);
    running.signal(Signal::KILL);
    running.wait();
    boxwright.ok(&["system", "prune", "-f"]);
    assert_eq!(in_use(&boxwright), 0);
    assert_sound(&boxwright);
}
