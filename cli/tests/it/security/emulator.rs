//! Lists of emulators of a user's command: a container that may mount can write into it who runs programs of this machine.
//! The programs of the host that the command itself starts are not to be among them.

use boxwright_testdata::program::Program;

use super::{Canary, patient};
use crate::tool::{Boxwright, Context, Who};

/// Says where it was run, to whoever looks at the host.
const IMPOSTOR: &str = r#"
#include <fcntl.h>
#include <unistd.h>
int main(void) { close(open(CANARY "/impostor", O_CREAT | O_WRONLY, 0644)); return 1; }
"#;

/// Programs of the host are position-independent, as all of a distribution are; busybox and the impostor are not.
const REGISTER: &str = r"mkdir /list && mount -t binfmt_misc none /list && \
    printf '%s' ':impostor:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff:/impostor:F' > /list/register && \
    ls /list";

#[test]
fn no_step_has_its_own_program_run_in_the_place_of_one_of_the_host() {
    let (boxwright, canary) = (Boxwright::with_busybox_of(Who::User), Canary::of(Who::User));
    let flags = [format!("-DCANARY=\"{}\"", canary.path()), "-no-pie".to_owned()];
    let impostor = Program::compile(IMPOSTOR, &[&flags[0], &flags[1]]);
    // Two steps at once need one helper for networks more than one: it starts while the list is in place.
    let context = Context::new(&format!(
        "FROM busybox AS sly\nCOPY impostor /\nRUN --security=insecure {REGISTER} && sleep 3 && touch /done\n\
         FROM busybox AS slow\nRUN sleep 1\n\
         FROM slow AS one\nRUN sleep 1 && touch /one\n\
         FROM slow AS two\nRUN sleep 1 && touch /two\n\
         FROM scratch\nCOPY --from=sly /done /\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    ))
    .file("impostor", "");
    std::fs::copy(impostor.path(), context.join("impostor")).unwrap();
    let args =
        ["build", "--progress", "plain", "--jobs", "8", "--allow", "security.insecure", context.path()];
    let ran = patient(&boxwright.command(&args));
    canary.assert_intact(&ran.to_string());
    // Where a namespace has a list of its own, the step did make the entry.
    assert!(ran.stderr.contains(" impostor\n") || ran.stderr.contains("unknown filesystem"), "{ran}");
    ran.ok();
}
