//! Steps beyond what they were given: a context that is to be changed, bases and homes that pretend to be others.

use std::fs;

use boxwright_testdata::archive::docker;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::program::Program;
use boxwright_testdata::{base, tar::Tar};
use serde_json::json;

use super::{Canary, PATH, SECRET, load, load_bytes, patient};
use crate::tool::{Boxwright, Context, Who, cache};

fn what_a_step_writes_to_its_context_is_gone_and_what_it_reads_counts(who: Who) {
    // CVE-2025-4953; a bind whose files changed has once been taken for the same
    let boxwright = Boxwright::with_busybox_of(who);
    let context = Context::new(
        "FROM busybox\nRUN --mount=target=/b,rw cat /b/sub/f && echo new > /b/sub/new && echo x > /b/sub/f && rm /b/gone && chmod 777 /b\n",
    );
    context.write("gone", "here");
    context.write("sub/f", "first of all\n");
    let before = Listing::of_dir(&context.join(""));
    let built = || boxwright.build(&context, &[]);
    built().says("first of all").ok();
    let after = Listing::of_dir(&context.join(""));
    assert_eq!((&after.entries, &after.mtimes), (&before.entries, &before.mtimes));
    built().says_nothing_of(" first of all").ok();
    context.write("sub/f", "another text\n");
    built().says(" another text").ok();
}

fn an_image_that_pretends_to_be_a_base_is_told_from_it(who: Who) {
    // CVE-2024-24557: same layers, same name, and another config
    let boxwright = Boxwright::of(who);
    let layer = fs::read({
        base::busybox(cache());
        cache().join("busybox.tar")
    })
    .unwrap();
    let context = Context::new("FROM base\nRUN echo \"told: $V $(id -u) $(pwd) $(cat /by-trigger)\"\n");
    let configs = [
        json!({ "Env": [PATH, "V=one"] }),
        json!({ "Env": [PATH, "V=two"] }),
        json!({ "Env": [PATH, "V=two"], "User": "7" }),
        json!({ "Env": [PATH, "V=two"], "User": "7", "WorkingDir": "/tmp" }),
        json!({ "Env": [PATH, "V=two"], "WorkingDir": "/tmp", "OnBuild": ["RUN echo evil > /by-trigger"] }),
        json!({ "Env": [PATH, "V=two"], "WorkingDir": "/tmp", "Shell": ["/bin/ash", "-c"], "Healthcheck": { "Test": ["CMD", "x"] } }),
    ];
    let told = ["one 0 / ", "two 0 / ", "two 7 / ", "two 7 /tmp ", "two 0 /tmp evil", "two 0 /tmp "];
    for (config, told) in configs.iter().zip(told) {
        load_bytes(&boxwright, &docker("base:latest", config, std::slice::from_ref(&layer))).ok();
        let ran = boxwright.build(&context, &["-t", "built"]);
        assert!(ran.stderr.lines().any(|line| line.ends_with(&format!("told: {told}"))), "{config}: {ran}");
        let health = &boxwright.inspect("built")["Config"]["Healthcheck"]["Test"];
        assert_eq!(health.is_null(), config["Healthcheck"].is_null(), "{config}");
    }
}

fn a_number_in_a_users_place_and_a_link_in_a_homes_stay_inside(who: Who) {
    // The home of a user is what the image says, and never a place of the host.
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let passwd = format!("root:x:0:0::{}:/bin/sh\nup:x:5:5::../../../../../..{0}:/bin/sh\n", canary.path());
    load(&boxwright, "home", Tar::new().file("etc/passwd", 0o644, passwd).symlink("root", canary.path()));
    for user in ["root", "up", "5"] {
        let script = "cd; cat file ~/file $HOME/file /root/file; touch ~/new; true";
        let ran = patient(&boxwright.command(&["run", "--rm", "-u", user, "home", "sh", "-c", script]));
        canary.assert_unknown_to(&ran);
        assert!(!ran.stdout.contains(SECRET), "{ran}");
        let step = Context::new(&format!("FROM home\nUSER {user}\nRUN {script}\n"));
        canary.assert_unknown_to(&patient(&boxwright.command(&[
            "build",
            "--progress",
            "plain",
            step.path(),
        ])));
    }
}

/// What says of a layer that its marks are ours is an attribute that who runs in there may set as well.
fn an_attribute_of_ours_on_the_root_changes_nothing(who: Who) {
    const MARK: &str = r#"
#include <sys/xattr.h>
int main(void) { return setxattr("/", "user.boxwright.marks", "y", 1, 0) != 0; }
"#;
    let boxwright = Boxwright::with_busybox_of(who);
    let mark = Program::compile(MARK, &[]);
    let context = Context::new(
        "FROM busybox\nCOPY mark /\nRUN /mark && rm /etc/group && rm -r /root && mkdir /root && touch /root/new\n\
         RUN test ! -e /etc/group && ls -A /root\n",
    );
    fs::copy(mark.path(), context.join("mark")).unwrap();
    let said = boxwright.built(&context, &[]);
    assert!(said.lines().any(|line| line.ends_with(" new")) && !said.contains("in copies"), "{said}");
    let failed = Context::new("FROM x\nRUN /mark && exit 3\n");
    boxwright.build(&failed, &[]).fails_with(1);
    let layers = fs::read_dir(boxwright.store().join("layers")).unwrap();
    let marked =
        |path: &std::path::Path| rustix::fs::getxattr(path, c"user.boxwright.marks", &mut [0; 8]).is_ok();
    let layers: Vec<_> = layers.map(|layer| layer.unwrap().path()).collect();
    assert!(layers.len() >= 4 && !layers.iter().any(|layer| marked(layer)), "{layers:?}");
}

super::by_both!(
    an_attribute_of_ours_on_the_root_changes_nothing,
    what_a_step_writes_to_its_context_is_gone_and_what_it_reads_counts,
    an_image_that_pretends_to_be_a_base_is_told_from_it,
    a_number_in_a_users_place_and_a_link_in_a_homes_stay_inside,
);
