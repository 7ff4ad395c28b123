//! Containers with a terminal.

use crate::fixture::{Sandbox, open, run};
use boxwright_cache::Cancel;
use boxwright_executor::{Container, Winsize};

fn size(ws_row: u16, ws_col: u16) -> Winsize {
    Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn the_terminal_is_the_containers_own() {
    let sandbox = Sandbox::new();
    let script = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; \
        stat -c '%t:%T' /dev/console; echo hello > /dev/tty; cat /proc/self/stat | cut -d' ' -f7 | grep -vc '^0$'";
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    spec.tty = Some(size(33, 77));
    let output = run(spec);
    let major_minor = output.stdout.lines().nth(3).unwrap().trim();
    assert!(major_minor.starts_with("88:"), "{output:?}");
    let expected = format!("/dev/pts/0\r\n33 77\r\nall\r\n{major_minor}\r\nhello\r\n1\r\n");
    assert_eq!(output.stdout, expected);
    assert_eq!(output.code(), 0);
}

#[test]
fn what_is_typed_arrives_and_the_size_follows() {
    let sandbox = Sandbox::new();
    let input = sandbox.path("typed");
    std::fs::write(&input, "hello\n").unwrap();
    let mut spec = sandbox.spec(&["sh", "-c", "read line; stty size; echo got $line"]);
    spec.tty = Some(size(1, 1));
    spec.stdin = Some(open(&input));
    let mut container = Container::spawn(spec).unwrap();
    container.resize(size(50, 100));
    let mut text = Vec::new();
    let status = container.wait(&Cancel::new().unwrap(), None, &mut |_, bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok(())
    });
    assert_eq!(status.unwrap().code(), 0);
    assert_eq!(String::from_utf8(text).unwrap(), "hello\r\n50 100\r\ngot hello\r\n");
}

#[test]
fn a_user_owns_its_terminal() {
    let sandbox = Sandbox::new();
    let mut spec =
        sandbox.spec(&["sh", "-c", "stat -c '%u %g' /dev/pts/0; echo x > /dev/console && echo opened"]);
    (spec.tty, spec.user) = (Some(size(24, 80)), "web".to_owned());
    let text = run(spec).stdout;
    assert!(text.starts_with("1000 5\r\n") && text.ends_with("opened\r\n"), "{text:?}");
}
