//! `login` and `logout`, and who gets to see what was logged in with: a real registry with passwords, one with a token
//! server, and programs that keep secrets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use boxwright_testdata::peer::{Certificates, PASSWORD, Registry, Setup, TokenServer, USER, skopeo};
use boxwright_testdata::{Ran, run};
use serde_json::{Value, json};

use crate::tool::{Boxwright, Context, Running, eventually};

/// `login -u USER --password-stdin HOST` with this on standard input.
fn login(boxwright: &Boxwright, host: &str, input: &str, path: Option<&Path>) -> Ran {
    let mut command = boxwright.command(&["login", "-u", USER, "--password-stdin", host]);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let text = format!("{command:?}");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ran::new(text, &child.wait_with_output().unwrap())
}

fn config(boxwright: &Boxwright) -> Value {
    serde_json::from_slice(&fs::read(boxwright.scratch("docker/config.json")).unwrap()).unwrap()
}

fn guarded(boxwright: &Boxwright) -> Registry {
    Setup::default().basic(&boxwright.scratch("htpasswd")).start()
}

#[test]
fn a_login_is_kept_as_docker_keeps_it_and_opens_its_registry() {
    let boxwright = Boxwright::with_busybox();
    let registry = guarded(&boxwright);
    let name = registry.name("team/a:1");
    boxwright.ok(&["tag", "busybox", &name]);
    boxwright.run(&["push", &name]).fails_with(1).says("wants a login");
    let wrong = login(&boxwright, &registry.host(), "wrong", None);
    wrong.fails_with(1).says("failed with status: 401 Unauthorized").says_nothing_of("wrong");
    assert!(!boxwright.scratch("docker/config.json").exists());
    let said = login(&boxwright, &registry.host(), &format!("{PASSWORD}\n"), None);
    let said = said.fails_with(0).says("stored unencrypted").says_nothing_of(PASSWORD);
    assert_eq!(said.stdout, "Login Succeeded\n");
    let file = boxwright.scratch("docker/config.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    boxwright.ok(&["push", &name]);
    boxwright.ok(&["rmi", &name]);
    assert_eq!(boxwright.output_of(&name, &["echo", "hi"]), "hi\n");
    let image = format!("docker://{name}");
    skopeo(&["inspect", "--raw", "--tls-verify=false", "--authfile", file.to_str().unwrap(), &image]).ok();
    boxwright.run(&["login", &registry.host()]).fails_with(0).says("existing credentials");

    let said = boxwright.ok(&["logout", &registry.host()]);
    assert_eq!(said, format!("Removing login credentials for {}\n", registry.host()));
    assert_eq!(config(&boxwright), json!({ "auths": {} }));
    let said = boxwright.ok(&["logout", &registry.host()]);
    assert_eq!(said, format!("Removing login credentials for {}\n", registry.host()));
    boxwright.run(&["pull", &name]).fails_with(1).says("wants a login");
}

#[test]
fn a_login_of_another_tool_is_ours() {
    let boxwright = Boxwright::with_busybox();
    let registry = guarded(&boxwright);
    fs::create_dir(boxwright.scratch("docker")).unwrap();
    let file = boxwright.scratch("docker/config.json");
    let file = file.to_str().unwrap();
    let host = registry.host();
    skopeo(&["login", "--tls-verify=false", "--authfile", file, "-u", USER, "-p", PASSWORD, &host]).ok();
    boxwright.ok(&["tag", "busybox", &registry.name("a:1")]);
    boxwright.ok(&["push", &registry.name("a:1")]);
    let context = Context::new(&format!("FROM {}\nRUN echo 1 > /1\n", registry.name("a:1")));
    boxwright.build(&context, &["--pull"]).ok();
}

#[test]
fn the_docker_client_forgets_what_we_kept() {
    let boxwright = Boxwright::new();
    let registry = guarded(&boxwright);
    login(&boxwright, &registry.host(), PASSWORD, None).ok();
    let mut docker = std::process::Command::new("docker");
    docker.args(["logout", &registry.host()]).env("DOCKER_CONFIG", boxwright.scratch("docker"));
    run(&mut docker).ok();
    assert!(config(&boxwright)["auths"].as_object().is_none_or(serde_json::Map::is_empty));
}

#[test]
fn what_the_command_line_lacks_is_told_in_docker_s_words() {
    let boxwright = Boxwright::new();
    let fails = |args: &[&str], reason: &str| {
        let args = [&["login"], args, &["127.0.0.1:1"]].concat();
        boxwright.run(&args).fails_with(1).says(reason);
    };
    fails(&["--password-stdin"], "Must provide --username with --password-stdin");
    fails(
        &["-u", "a", "-p", "b", "--password-stdin"],
        "--password and --password-stdin are mutually exclusive",
    );
    fails(&["-u", "a"], "Cannot perform an interactive login from a non TTY device");
    fails(&[], "Cannot perform an interactive login from a non TTY device");
    fails(&["-u", "a", "--password-stdin"], "password is required");
    boxwright.run(&["login", "--nosuch"]).fails_with(125);
    boxwright.run(&["login", "a", "b"]).fails_with(1);
    boxwright
        .run(&["login", "-u", "a", "-p", "b", "127.0.0.1:1"])
        .fails_with(1)
        .says("insecure")
        .says("refused");
}

/// A terminal: its own end, and the one that a program gets.
fn terminal() -> (fs::File, fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&own).and_then(|()| unlockpt(&own)).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let other = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (own.into(), other.into())
}

/// Reads until this has come.
fn read_until(from: &mut impl Read, text: &str) {
    let (mut read, mut byte) = (String::new(), [0]);
    while !read.ends_with(text) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "no {text:?} after {read:?}");
        read.push(byte[0].into());
    }
}

#[test]
fn at_a_terminal_the_login_is_asked_for_and_the_password_not_shown() {
    use rustix::termios::{LocalModes, tcgetattr};
    let boxwright = Boxwright::new();
    let registry = guarded(&boxwright);
    for (typed, status) in [(PASSWORD.to_owned() + "\n", 0), ("\x03".to_owned(), 130)] {
        let (mut own, other) = terminal();
        let shows = || tcgetattr(&other).unwrap().local_modes.contains(LocalModes::ECHO);
        let mut command = boxwright.command(&["login", &registry.host()]);
        command.env("DOCKER_CONFIG", boxwright.scratch(&format!("docker{status}")));
        command.stdin(other.try_clone().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        let mut asked = running.0.stderr.take().unwrap();
        read_until(&mut asked, "Username: ");
        own.write_all(format!("{USER}\n").as_bytes()).unwrap();
        read_until(&mut asked, "Password: ");
        assert!(!shows());
        own.write_all(typed.as_bytes()).unwrap();
        assert_eq!(running.wait(), status);
        assert!(shows());
        let mut shown = vec![0; 1000];
        let n = own.read(&mut shown).unwrap();
        assert_eq!(String::from_utf8_lossy(&shown[..n]), format!("{USER}\r\n"));
    }
}

#[test]
fn a_configuration_that_is_a_link_is_written_where_it_leads_to() {
    let boxwright = Boxwright::new();
    let registry = guarded(&boxwright);
    let (docker, elsewhere) = (boxwright.scratch("docker"), boxwright.scratch("elsewhere"));
    fs::create_dir(&docker).unwrap();
    fs::write(&elsewhere, r#"{"other":1}"#).unwrap();
    std::os::unix::fs::symlink("../elsewhere", docker.join("config.json")).unwrap();
    login(&boxwright, &registry.host(), PASSWORD, None).ok();
    assert!(docker.join("config.json").is_symlink() && !elsewhere.is_symlink());
    assert_eq!(config(&boxwright)["other"], 1);
    boxwright.run(&["login", &registry.host()]).says("existing credentials").ok();
    boxwright.ok(&["logout", &registry.host()]);
    assert_eq!(config(&boxwright), json!({ "auths": {}, "other": 1 }));
}

#[test]
fn a_login_that_could_not_be_kept_is_not_tried() {
    let boxwright = Boxwright::new();
    fs::create_dir(boxwright.scratch("docker")).unwrap();
    fs::write(boxwright.scratch("docker/config.json"), r#"{"credsStore":"nosuch"}"#).unwrap();
    // Nobody listens there, which is not found out.
    login(&boxwright, "127.0.0.1:1", PASSWORD, None).fails_with(1).says("docker-credential-nosuch");
    fs::write(boxwright.scratch("docker/config.json"), "{").unwrap();
    login(&boxwright, "127.0.0.1:1", PASSWORD, None).fails_with(1).says("not a JSON object");
}

#[test]
fn logins_at_the_same_time_are_all_kept() {
    let boxwright = Boxwright::new();
    let registries: Vec<Registry> = (0..4).map(|_| guarded(&boxwright)).collect();
    std::thread::scope(|scope| {
        for registry in &registries {
            scope.spawn(|| login(&boxwright, &registry.host(), PASSWORD, None).ok());
        }
    });
    assert_eq!(config(&boxwright)["auths"].as_object().unwrap().len(), registries.len());
}

#[test]
fn a_password_that_is_too_long_is_not_cut() {
    let boxwright = Boxwright::new();
    let input = "x".repeat((1 << 20) + 1);
    login(&boxwright, "127.0.0.1:1", &input, None).fails_with(1).says("more than 1048576 bytes");
}

#[test]
fn a_password_in_the_name_of_a_registry_is_not_printed() {
    let boxwright = Boxwright::new();
    for command in ["login", "logout"] {
        let said = boxwright.run(&[command, "https://bob:hunter2@r.example"]);
        said.fails_with(1).says("r.example").says_nothing_of("hunter2");
    }
}

#[test]
fn a_logout_works_where_other_things_do_not() {
    let boxwright = Boxwright::new();
    let (docker, config_dir) = (boxwright.scratch("docker"), boxwright.scratch("config/boxwright"));
    fs::create_dir_all(&config_dir).unwrap();
    fs::create_dir(&docker).unwrap();
    fs::write(config_dir.join("config.toml"), "[regisrty]").unwrap();
    let text = r#"{"auths":{"r.example":{"auth":"dTpw"}},"credsStore":"nosuch"}"#;
    fs::write(docker.join("config.json"), text).unwrap();
    let with_config = |args: &[&str]| {
        let mut command = boxwright.command(args);
        run(command.env("XDG_CONFIG_HOME", boxwright.scratch("config")))
    };
    with_config(&["pull", "r.example/a"]).fails_with(1).says("config.toml");
    let said = with_config(&["logout", "r.example"]);
    said.says("Removing login credentials for r.example").says("could not erase").says("nosuch").ok();
    assert_eq!(config(&boxwright), json!({ "auths": {}, "credsStore": "nosuch" }));
    with_config(&["images"]).ok();
}

#[test]
fn who_cannot_be_found_pulls_as_nobody_and_pushes_not_at_all() {
    let boxwright = Boxwright::with_busybox();
    let certificates = Certificates::new();
    let tokens = TokenServer::start(&certificates, 300);
    let registry = Setup::default().tokens(&tokens, &certificates).start();
    let name = registry.name("public/a:1");
    boxwright.ok(&["tag", "busybox", &name]);
    fs::create_dir(boxwright.scratch("docker")).unwrap();
    fs::write(boxwright.scratch("docker/config.json"), r#"{"credsStore":"nosuch"}"#).unwrap();
    let said = boxwright.run(&["push", &name]);
    said.fails_with(1).says("docker-credential-nosuch").says_nothing_of("going on");
    let said = boxwright.run(&["pull", &name]).says("going on without a login");
    assert_eq!(said.stderr.matches("going on").count(), 1, "{}", said.stderr);
}

#[test]
fn a_program_that_hangs_ends_with_ctrl_c() {
    let boxwright = Boxwright::new();
    let (bin, docker) = (boxwright.scratch("bin"), boxwright.scratch("docker"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&docker).unwrap();
    fs::write(docker.join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let helper = bin.join("docker-credential-test");
    let script = "#!/bin/sh\nsleep 1000 & echo $! > $0.new; mv $0.new $0.pid; wait\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let registry = guarded(&boxwright);
    for args in [&["logout", "r.example"][..], &["login", "r.example"], &["pull", &registry.name("a:1")]] {
        let pid_file = bin.join("docker-credential-test.pid");
        let _ = fs::remove_file(&pid_file);
        let mut command = boxwright.command(args);
        command.env("PATH", &path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        eventually("the program runs", || pid_file.exists());
        running.signal(rustix::process::Signal::INT);
        assert_eq!(running.wait(), 130, "{args:?}");
        let left = fs::read_to_string(&pid_file).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", left.trim()));
        eventually("its child is gone", || state().map_or(true, |state| state.contains(") Z ")));
    }
}

/// A program that keeps secrets as files of a directory.
const HELPER: &str = r#"#!/bin/sh
echo "$1" >> "$0.log"
case $1 in
store) cat > "$0.secret" ;;
get) read -r server
    grep -qF "\"$server\"" "$0.secret" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; }
    cat "$0.secret" ;;
erase) rm "$0.secret" ;;
esac
"#;

#[test]
fn a_program_keeps_the_secret_and_the_file_says_only_that_it_does() {
    let boxwright = Boxwright::with_busybox();
    let registry = guarded(&boxwright);
    let (bin, docker) = (boxwright.scratch("bin"), boxwright.scratch("docker"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&docker).unwrap();
    let helper = bin.join("docker-credential-test");
    fs::write(&helper, HELPER).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let name = registry.name("a:1");
    boxwright.ok(&["tag", "busybox", &name]);
    let host = registry.host();
    for setup in
        [json!({ "credsStore": "test" }), json!({ "credsStore": "other", "credHelpers": { &host: "test" } })]
    {
        fs::write(docker.join("config.json"), setup.to_string()).unwrap();
        login(&boxwright, &host, PASSWORD, Some(Path::new(&path))).says_nothing_of("unencrypted").ok();
        let mut expected = setup.clone();
        expected["auths"] = json!({ &host: {} });
        assert_eq!(config(&boxwright), expected);
        run(boxwright.command(&["push", &name]).env("PATH", &path)).ok();
        run(boxwright.command(&["logout", &host]).env("PATH", &path)).says("Removing").ok();
        assert!(!bin.join("docker-credential-test.secret").exists());
        run(boxwright.command(&["pull", &name]).env("PATH", &path)).fails_with(1).says("wants a login");
    }
    run(boxwright.command(&["pull", &name]).env("PATH", "/usr/bin"))
        .fails_with(1)
        .says("docker-credential-test");
}

#[test]
fn a_token_server_is_asked_with_the_login_and_then_with_the_identity_that_it_gave() {
    let certificates = Certificates::new();
    let tokens = TokenServer::start(&certificates, 300);
    let registry = Setup::default().tokens(&tokens, &certificates).start();
    let boxwright = Boxwright::with_busybox();
    let name = registry.name("team/a:1");
    boxwright.ok(&["tag", "busybox", &name]);
    boxwright.run(&["push", &name]).fails_with(1).says("denied");
    login(&boxwright, &registry.host(), "wrong", None).fails_with(1).says("401");
    login(&boxwright, &registry.host(), PASSWORD, None).ok();
    let kept = config(&boxwright)["auths"][registry.host()].clone();
    assert_eq!(kept["identitytoken"], "1dent1ty");
    assert!(
        !fs::read_to_string(boxwright.scratch("docker/config.json")).unwrap().contains("dGVzdGVyOnNlY3JldA")
    );
    boxwright.ok(&["push", &name]);
    let last = tokens.requests().pop().unwrap();
    assert_eq!((last.method.as_str(), last.header("authorization")), ("POST", None));
    boxwright.ok(&["rmi", &name]);
    assert_eq!(boxwright.output_of(&name, &["echo", "hi"]), "hi\n");
    // A password in the file, as other tools write it, works as well.
    let mut with_password = config(&boxwright);
    with_password["auths"][registry.host()] = json!({ "auth": "dGVzdGVyOnNlY3JldA==" });
    fs::write(boxwright.scratch("docker/config.json"), with_password.to_string()).unwrap();
    boxwright.ok(&["push", &name]);
}
