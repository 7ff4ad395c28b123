//! Lists of emulators of a user's containers: one that may mount can write into such a list who runs programs of this
//! machine. Those that the command itself starts are not to be among them, nor those of other containers.

use boxwright_testdata::program::Program;

use super::{Canary, patient};
use crate::tool::{Boxwright, Context, Who};

/// Says where it was run, to whoever looks at the host, and to whoever started it.
const IMPOSTOR: &str = r#"
#include <fcntl.h>
#include <unistd.h>
int main(void) {
    close(open(CANARY "/impostor", O_CREAT | O_WRONLY, 0644));
    write(1, "impostor\n", 9);
    return 0;
}
"#;

/// `send SOCKET LIST` hands a list over, and waits until nobody has the connection any more. `hold SOCKET NAME ENTRY` takes one, says
/// what its entry NAME is, makes ENTRY as well, and keeps it for as long as it may take to start a program of the host.
const COURIER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_un at = { AF_UNIX };
    char byte = 'x', room[CMSG_SPACE(sizeof(int))] = "", text[512];
    struct iovec io = { &byte, 1 };
    struct msghdr msg = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
    int fd, s = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(at.sun_path, argv[2]);
    if (!strcmp(argv[1], "send")) {
        if (bind(s, (void *)&at, sizeof at) || listen(s, 1)) return 1;
        s = accept(s, 0, 0);
        fd = open(argv[3], O_PATH | O_DIRECTORY);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
        if (sendmsg(s, &msg, 0) < 1) return 2;
        read(s, &byte, 1);
        return 0;
    }
    for (int n = 0; connect(s, (void *)&at, sizeof at) && n < 3000; n++) usleep(10000);
    if (recvmsg(s, &msg, 0) < 1 || !CMSG_FIRSTHDR(&msg)) return 3;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof fd);
    int entry = openat(fd, argv[3], O_RDONLY), more = openat(fd, "register", O_WRONLY);
    memset(text, 0, sizeof text);
    if (read(entry, text, sizeof text - 1) < 1) return 4;
    dprintf(2, "held: %s", text);
    dprintf(2, "another entry: %d\n", write(more, argv[4], strlen(argv[4])) > 0);
    /* A program that is position-independent, as those of the host are. */
    pid_t child = fork();
    if (!child) { execl("/victim", "/victim", (char *)0); _exit(9); }
    waitpid(child, 0, 0);
    sleep(3);
    return 0;
}
"#;

/// Static, and position-independent nevertheless: a compiler that is told the first does not make the second, so it needs no start files.
const VICTIM: &str = r#"
static long call(long number, long a, const char *b, long c) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x2 __asm__("x2") = c;
    register const char *x1 __asm__("x1") = b;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}
#include <sys/syscall.h>
void _start(void) { call(SYS_write, 2, "as it is\n", 9); call(SYS_exit, 0, 0, 0); }
"#;
const INDEPENDENT: [&str; 4] = ["-fPIE", "-nostdlib", "-nostartfiles", "-Wl,-pie,--no-dynamic-linker"];

/// Programs of the host are position-independent, as all of a distribution are; busybox and the impostor are not.
const ENTRY: &str = r":impostor:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff:/impostor:F";

fn register() -> String {
    format!("mkdir /list && mount -t binfmt_misc none /list && printf '%s' '{ENTRY}' > /list/register")
}

/// It hands the list over to a step without rights: by what that step holds, the list lasts as long as both do.
#[test]
fn no_step_has_its_own_program_run_in_the_place_of_one_of_the_host_or_of_another_step() {
    let (boxwright, canary) = (Boxwright::with_busybox_of(Who::User), Canary::of(Who::User));
    let flags = [format!("-DCANARY=\"{}\"", canary.path()), "-no-pie".to_owned()];
    let impostor = Program::compile(IMPOSTOR, &[&flags[0], &flags[1]]);
    let courier = Program::compile(COURIER, &["-no-pie"]);
    let victim = Program::compile(VICTIM, &INDEPENDENT);
    let (register, another) = (register(), ENTRY.replacen("impostor", "another", 1));
    // Two steps at once need one helper for networks more than one: it starts while the list is in place.
    let context = Context::new(&format!(
        "FROM busybox AS sly\nCOPY impostor courier victim /\n\
         RUN --security=insecure --mount=type=cache,target=/c {register} && /victim >&2 && touch /done && /courier send /c/s /list\n\
         FROM busybox AS held\nCOPY courier victim impostor /\n\
         RUN --mount=type=cache,target=/c /courier hold /c/s impostor '{another}' && touch /held\n\
         FROM busybox AS slow\nRUN sleep 1\n\
         FROM slow AS one\nRUN sleep 1 && touch /one\n\
         FROM slow AS two\nRUN sleep 1 && touch /two\n\
         FROM scratch\nCOPY --from=sly /done /\nCOPY --from=held /held /\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    ));
    for (program, name) in [(&impostor, "impostor"), (&courier, "courier"), (&victim, "victim")] {
        std::fs::copy(program.path(), context.join(name)).unwrap();
    }
    let args =
        ["build", "--progress", "plain", "--jobs", "8", "--allow", "security.insecure", context.path()];
    let ran = patient(&boxwright.command(&args));
    canary.assert_intact(&ran.to_string());
    if ran.stderr.contains("mount: mounting none on /list failed") {
        // Before Linux 6.7 a user namespace has no list of its own.
        return;
    }
    let printed = |text: &str| ran.stderr.lines().filter(|line| line.ends_with(text)).count();
    // Among its own the step has what it asked for, and whoever holds its list may write to that.
    assert_eq!(
        (printed(" impostor"), printed(" held: enabled"), printed(" another entry: 1")),
        (1, 1, 1),
        "{ran}"
    );
    assert_eq!(printed(" as it is"), 1, "the other step runs its own program: {ran}");
    ran.ok();
}

/// The command starts programs after its container has ended, by a list that a volume's owner may hold still.
#[test]
fn a_privileged_container_of_a_user_has_a_list_of_its_own() {
    let boxwright = Boxwright::with_busybox_of(Who::User);
    let script = "mkdir /l && mount -t binfmt_misc none /l && ls /l; cat /proc/self/uid_map";
    for flags in
        [["--privileged", "--net=none"], ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"]]
    {
        let args = [&["run", "--rm"], &flags[..], &["busybox", "sh", "-c", script]].concat();
        let out = boxwright.ok(&args);
        let words: Vec<&str> = out.split_whitespace().collect();
        // Each id is itself, as our own namespace has them.
        assert!(words.ends_with(&["0", "0", "1", "1", "1", "65536"]), "{out}");
    }
}
