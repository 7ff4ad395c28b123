//! Programs of 32 bits on this machine of 64: run without an emulator, and behind the filter of their own system calls,
//! which have other numbers.

use boxwright_testdata::program::Program;

use crate::tool::{Boxwright, Context, Who};

/// Without a C library, which few machines have for 32 bits. Prints the width of a pointer, the personality, and what
/// the kernel says to calls that the filter refuses: mount, add_key (whose number is timerfd_settime's on 64 bits) and
/// clone with a new user namespace; and to getpid, to be seen to live.
const SOURCE: &str = r#"
static int call(int n, int a, int b, int c) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(0), "D"(0) : "memory");
    return result;
}
static void print(int value) {
    char text[12];
    int at = 11;
    unsigned rest = value < 0 ? -value : value;
    text[at] = ' ';
    do text[--at] = '0' + rest % 10; while (rest /= 10);
    if (value < 0) text[--at] = '-';
    call(4, 1, (int)(text + at), 12 - at);
}
void _start(void) {
    print(8 * sizeof(void *));
    print(call(136, -1, 0, 0));
    print(call(21, 0, 0, 0));
    print(call(286, 0, 0, 0));
    print(call(120, 0x10000000, 0, 0));
    print(call(20, 0, 0, 0));
    call(4, 1, (int)"\n", 1);
    call(1, 0, 0, 0);
}
"#;

fn a_program_of_32_bits_runs_and_is_filtered_by_its_own_numbers(who: Who) {
    let boxwright = Boxwright::of(who);
    let flags = ["-m32", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector"];
    let program = Program::compile(SOURCE, &flags);
    let context = Context::new("FROM scratch\nCOPY program /\nRUN [\"/program\"]\nCMD [\"/program\"]\n")
        .file("program", "");
    // With its mode.
    std::fs::copy(program.path(), context.join("program")).unwrap();
    let ran = boxwright.build(&context, &["--platform", "linux/386", "-t", "small"]);
    ran.says(" 32 0 -1 -1 -1 1 \n").says_nothing_of("emulator").ok();
    assert_eq!(boxwright.inspect("small")["Architecture"], "386");
    let run = |options: &[&str]| boxwright.ok(&[&["run", "--rm"], options, &["small"]].concat());
    assert_eq!(run(&["--platform", "linux/386"]), "32 0 -1 -1 -1 1 \n");
    // EFAULT: nobody but the filter looks at those calls before their arguments are.
    let unfiltered = run(&["--security-opt", "seccomp=unconfined"]);
    assert!(unfiltered.starts_with("32 0 -14 -14 "), "{unfiltered}");
}

#[test]
fn root_runs_programs_of_32_bits() {
    a_program_of_32_bits_runs_and_is_filtered_by_its_own_numbers(Who::Root);
}

#[test]
fn a_user_runs_programs_of_32_bits() {
    a_program_of_32_bits_runs_and_is_filtered_by_its_own_numbers(Who::User);
}
