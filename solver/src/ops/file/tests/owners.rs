//! Modes, owners and times of what file vertices make.

use super::*;

#[test]
fn modes_times_and_groups_of_names_are_kept() {
    let bench = Bench::new(&["context/d/sub/f=1", "context/d/run=2", "base/t/sub/old=0"]);
    fs::set_permissions(bench.path("context/d/sub"), fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(bench.path("context/d/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(bench.path("context/d/run"), bench.path("context/d/again")).unwrap();
    let run = bench.run(vec![FileAction::Copy(bench.copy(&["d"], "/t"))]);
    assert_eq!(
        run.list(),
        ["t/", "t/again=2 4755", "t/run=2 4755", "t/sub/ 2770", "t/sub/f=1", "t/sub/old=0"]
    );
    let node = |path: &str| run.tree.lookup(path, false).unwrap().unwrap();
    assert!(node("t/run").group.is_some() && node("t/run").group == node("t/again").group);
    let source = Tree::plain(open(&bench.path("context"))).lookup("d/sub/f", false).unwrap().unwrap();
    assert_eq!(node("t/sub/f").meta.mtime, source.meta.mtime);
}

#[test]
fn chown_and_chmod_are_set_on_everything_that_is_made() {
    let passwd = "base/etc/passwd=root:x:0:0::/:\napp:x:1000:1001::/:\n1000:x:0:0::/:\n";
    let bench = Bench::new(&["context/d/x=1", "context/d/e/y=2", passwd, "base/etc/group=web:x:33:\n"]);
    let run = |spec: &str, mode: Option<&str>| {
        let mode = mode.map(|mode| mode.parse().unwrap());
        let action = CopyAction { owner: owner(spec), mode, ..bench.copy(&["d"], "/new/t") };
        bench
            .try_run(vec![FileAction::Copy(action)])
            .map(|run| run.list().split_off(3))
            .map_err(|e| e.to_string())
    };
    let all = |who: &str| {
        vec![
            format!("new/ {who}"),
            format!("new/t/ {who}"),
            format!("new/t/e/ {who}"),
            format!("new/t/e/y=2 {who}"),
            format!("new/t/x=1 {who}"),
        ]
    };
    assert_eq!(run("app", None).unwrap(), all("1000:1001"));
    assert_eq!(run("app:web", None).unwrap(), all("1000:33"));
    assert_eq!(run("7", None).unwrap(), all("7:7"));
    assert_eq!(run("1000:8", None).unwrap(), all("1000:8"), "a user that is called 1000 is not asked");
    let modes =
        ["new/ 700 7:7", "new/t/ 700 7:7", "new/t/e/ 700 7:7", "new/t/e/y=2 700 7:7", "new/t/x=1 700 7:7"];
    assert_eq!(run("7", Some("0700")).unwrap(), modes);
    assert_eq!(run("nobody", None).unwrap()[0], "new/", "who is not there is root, as in BuildKit");
    assert_eq!(run("app:nogroup", None).unwrap(), all("1000:1001"));
    for bad in ["2147483648", "-1", "0:4294967296"] {
        assert!(run(bad, None).unwrap_err().starts_with(&format!("invalid owner {bad:?}")), "{bad}");
    }
}

#[test]
fn hostile_passwd_files_are_refused_at_once() {
    let bench = Bench::new(&["context/f=1", "base/etc"]);
    let run = || {
        let action = CopyAction { owner: owner("app"), ..bench.copy(&["f"], "/f") };
        bench.try_run(vec![FileAction::Copy(action)])
    };
    let attempt = || run().err().unwrap().to_string();
    let path = bench.path("base/etc/passwd");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(attempt().contains("not a regular file"), "{}", attempt());
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    assert!(attempt().contains("too large"), "{}", attempt());
    fs::remove_file(&path).unwrap();
    symlink("/canary", &path).unwrap();
    bench.make("base/canary=app:x:8:9::/:\n");
    assert!(run().unwrap().list().contains(&"f=1 8:9".to_owned()), "a link leads into the image");
}

#[test]
fn from_a_snapshot_owners_are_kept() {
    let bench = Bench::new(&["context/d/f=1", "context/d/l->f"]);
    std::os::unix::fs::chown(bench.path("context/d/f"), Some(5), Some(6)).unwrap();
    let tree = Arc::new(Tree::merged(vec![open(&bench.path("context"))]));
    let sources = HashMap::from([(bench.from, Source::Snapshot(tree))]);
    let run =
        bench.try_run_from(vec![FileAction::Copy(bench.copy(&["/d/l", "/d/*"], "/t/"))], &sources).unwrap();
    assert_eq!(run.list(), ["t/", "t/f=1 5:6", "t/l=1 5:6"]);
    let error =
        bench.try_run_from(vec![FileAction::Copy(bench.copy(&["/x"], "/t/"))], &sources).err().unwrap();
    assert!(error.to_string().ends_with("\"/x\": not found"));
}
