//! What a process is started as, and how it ends.

use crate::fixture::{Sandbox, run, try_run};
use boxwright_cache::Cancel;
use boxwright_executor::{Container, Error, ExitStatus, MissingCwd};

#[test]
fn output_and_exit_code() {
    let output = Sandbox::new().sh("echo out; echo err >&2; exit 7");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code()), ("out\n", "err\n", 7));
}

#[test]
fn all_output_is_read_to_the_end() {
    let text = Sandbox::new().sh("dd if=/dev/zero bs=1000 count=5000 2>/dev/null | tr '\\0' x").text();
    assert_eq!(text.len(), 5_000_000);
}

#[test]
fn a_signal_is_told_from_a_code() {
    let sandbox = Sandbox::new();
    let mut container = Container::spawn(sandbox.spec(&["sleep", "1000"])).unwrap();
    assert!(container.signal(libc::SIGKILL));
    let status = container.wait(&Cancel::new().unwrap(), None, &mut |_, _: &[u8]| Ok(())).unwrap();
    assert_eq!((status, status.code()), (ExitStatus::Signal(9), 137));
    assert_eq!(Sandbox::new().sh("sh -c 'kill -KILL $$'; exit $?").status, ExitStatus::Code(137));
}

#[test]
fn the_environment_is_what_was_given() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["env"]);
    spec.env.extend(["A=1".to_owned(), "B=x=y".to_owned(), "A=2".to_owned()]);
    assert_eq!(run(spec).text(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin\nA=2\nB=x=y\nHOME=/root\n");
}

#[test]
fn users_and_their_groups() {
    let sandbox = Sandbox::new();
    for (user, groups, expected) in [
        ("", &[][..], "uid=0(root) gid=0(root) groups=0(root)\n/root\n"),
        ("web", &[], "uid=1000(web) gid=1000(web) groups=29(audio),1000(web)\n/home/web\n"),
        ("1000", &["77"], "uid=1000(web) gid=1000(web) groups=29(audio),77,1000(web)\n/home/web\n"),
        ("5:6", &[], "uid=5 gid=6 groups=6\n/\n"),
    ] {
        let mut spec = sandbox.spec(&["sh", "-c", "id; echo $HOME"]);
        spec.user = user.to_owned();
        spec.extra_groups = groups.iter().map(|&g| g.to_owned()).collect();
        assert_eq!(run(spec).text(), expected, "user {user:?}");
    }
}

#[test]
fn a_user_may_open_its_own_streams_again() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr"]);
    spec.user = "web".to_owned();
    let output = run(spec);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("a\n", "b\n"));
}

#[test]
fn the_working_directory_is_made_when_missing() {
    for (missing, owner) in
        [(MissingCwd::CreateAsRoot, "0 0 755\n"), (MissingCwd::CreateAsUser, "1000 1000 755\n")]
    {
        let sandbox = Sandbox::new();
        let mut spec = sandbox.spec(&["sh", "-c", "pwd; stat -c '%u %g %a' ."]);
        (spec.cwd, spec.user, spec.missing_cwd) = ("/a/b".to_owned(), "web".to_owned(), missing);
        assert_eq!(run(spec).text(), format!("/a/b\n{owner}"));
        assert!(sandbox.upper().join("a/b").is_dir());
    }
}

#[test]
fn the_hostname_is_the_containers_own() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["hostname"]);
    spec.hostname = Some("box".to_owned());
    assert_eq!(run(spec).text(), "box\n");
    assert_ne!(rustix::system::uname().nodename().to_bytes(), b"box");
}

#[test]
fn standard_input_is_copied_to_its_end() {
    let sandbox = Sandbox::new();
    let input = sandbox.path("input");
    std::fs::write(&input, "x".repeat(300_000)).unwrap();
    let mut spec = sandbox.spec(&["wc", "-c"]);
    spec.stdin = Some(crate::fixture::open(&input));
    assert_eq!(run(spec).text(), "300000\n");
    assert_eq!(Sandbox::new().sh("wc -c").text(), "0\n", "nothing where none is given");
}

#[test]
fn what_cannot_be_started_is_explained_as_docker_does() {
    let start = |args: &[&str], change: &dyn Fn(&mut boxwright_executor::Spec)| {
        let sandbox = Sandbox::new().layer(|path| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::create_dir(path.join("d")).unwrap();
            std::fs::write(path.join("d/text"), "no program").unwrap();
            std::fs::write(path.join("d/lost"), "#!/no/such/interpreter\n").unwrap();
            std::fs::write(path.join("d/odd"), "no program").unwrap();
            for name in ["d/lost", "d/odd"] {
                std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        });
        let mut spec = sandbox.spec(args);
        change(&mut spec);
        match try_run(spec) {
            Err(Error::Start { code, message }) => (code, message),
            other => panic!("{args:?}: {other:?}"),
        }
    };
    let plain = |args: &[&str]| start(args, &|_| ());
    for (args, code, message) in [
        (["foo"], 127, "exec: \"foo\": executable file not found in $PATH"),
        (["/bin/foo"], 127, "exec: \"/bin/foo\": stat /bin/foo: no such file or directory"),
        (["/etc"], 126, "exec: \"/etc\": is a directory"),
        (["/d/text"], 126, "exec: \"/d/text\": permission denied"),
        (["/d/lost"], 127, "exec /d/lost: no such file or directory"),
        (["/d/odd"], 126, "exec /d/odd: exec format error"),
    ] {
        assert_eq!(plain(&args), (code, message.to_owned()));
    }
    let unknown = start(&["true"], &|spec| spec.user = "foo".to_owned());
    assert_eq!(unknown, (125, "unable to find user foo: no matching entries in passwd file".to_owned()));
    assert_eq!(start(&["true"], &|spec| spec.cwd = "/bin/sh".to_owned()).0, 126);
}
