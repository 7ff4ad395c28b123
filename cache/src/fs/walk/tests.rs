//! Contexts on a real file system.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use super::*;
use crate::cancel::Cancel;
use crate::fs::pattern::Filter;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn context(dir: &tempfile::TempDir, ignore: &[&str]) -> Context {
    let ignore: Vec<String> = ignore.iter().map(|p| (*p).to_owned()).collect();
    Context::new(fs::File::open(dir.path()).unwrap().into(), &ignore).unwrap()
}

fn selected(context: &Context, patterns: &[&str]) -> Vec<String> {
    entries(context, patterns).iter().map(|e| e.path.display().to_string()).collect()
}

fn entries(context: &Context, patterns: &[&str]) -> Vec<Entry> {
    let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
    all_of(context, &patterns, &Filter::default()).unwrap()
}

fn all_of(context: &Context, patterns: &[String], filter: &Filter) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    context.select(patterns, filter, &Cancel::new().unwrap(), &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

fn digest(context: &Context, patterns: &[&str], cache: &dyn FileHashCache) -> crate::ContentDigest {
    let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
    digest_of(context, &patterns, &Filter::default(), cache)
}

/// The digest; on the way all is seen that a selection gives.
fn digest_of(
    context: &Context,
    patterns: &[String],
    filter: &Filter,
    cache: &dyn FileHashCache,
) -> crate::ContentDigest {
    let (cancel, mut seen) = (Cancel::new().unwrap(), Vec::new());
    let mut see = |entry: &Entry, _: &Mark| seen.push(entry.clone());
    let digest = context.digest_selection(patterns, filter, cache, &cancel, &mut see).unwrap();
    assert_eq!(seen, all_of(context, patterns, filter).unwrap());
    digest
}

fn resolved(context: &Context, pattern: &str) -> Vec<(String, String)> {
    let matches = context.resolve(pattern, &Cancel::new().unwrap()).unwrap();
    let real = |m: &Match| m.real.as_ref().map_or_else(|| "nowhere".to_owned(), |p| p.display().to_string());
    matches.iter().map(|m| (m.path.display().to_string(), real(m))).collect()
}

#[test]
fn everything_is_listed_in_order() {
    let dir = tree(&["b", "a/x", "a-b", "a/sub/y", "Z"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let all = ["Z", "a", "a/sub", "a/sub/y", "a/x", "a-b", "b", "empty"];
    for patterns in [&[][..], &["."], &["/"], &["./a", "/"]] {
        assert_eq!(selected(&context(&dir, &[]), patterns), all);
    }
}

#[test]
fn wide_trees_are_listed_as_narrow_ones() {
    let files: Vec<String> = (0..300).map(|n| format!("d{:02}/e{}/f{n}", n % 20, n % 3)).collect();
    let dir = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let listed = selected(&context(&dir, &[]), &[]);
    let mut sorted: Vec<PathBuf> = listed.iter().map(PathBuf::from).collect();
    sorted.sort();
    assert_eq!(listed.iter().map(PathBuf::from).collect::<Vec<_>>(), sorted);
    assert_eq!(listed.len(), 300 + 20 + 60);
}

#[test]
fn large_directories_are_listed_in_parts() {
    let files: Vec<String> = (0..5000).map(|n| format!("big/{n}{}", "x".repeat(n % 7))).collect();
    let dir = tree(&files.iter().map(String::as_str).chain(["big/1sub/f", "big/9sub/f"]).collect::<Vec<_>>());
    let mut sorted: Vec<&String> = files.iter().collect();
    sorted.sort();
    let listed = selected(&context(&dir, &[]), &["big"]);
    let below: Vec<&String> = listed[1..].iter().filter(|path| !path.contains("sub")).collect();
    assert_eq!(below, sorted);
    let some = selected(&context(&dir, &["big/*", "!big/*sub"]), &[]);
    assert_eq!(some, ["big", "big/1sub", "big/1sub/f", "big/9sub", "big/9sub/f"]);
    let none = selected(&context(&dir, &["big/*", "!big/*sub/g"]), &[]);
    assert_eq!(none, ["big"], "what holds nothing that is left is not there");
}

#[test]
fn ignored_entries_are_not_there() {
    let dir = tree(&["a/keep", "a/drop.o", "b/drop.o", "c/deep/keep.md", "c/deep/x", "d"]);
    let context = context(&dir, &["**/*.o", "c", "!c/deep/*.md", "d"]);
    assert_eq!(selected(&context, &[]), ["a", "a/keep", "b", "c", "c/deep", "c/deep/keep.md"]);
    assert_eq!(selected(&context, &["c/deep"]), ["c/deep", "c/deep/keep.md"]);
    assert_eq!(selected(&context, &["d", "a/drop.o", "c/deep/x", "missing"]), [""; 0]);
    assert_eq!(resolved(&context, "*").iter().map(|m| &m.0[..]).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn an_ignored_directory_is_not_read() {
    let dir = tree(&["a"]);
    // A walk into this directory would fail, because it comes to paths that are too long.
    fs::create_dir(dir.path().join("deep")).unwrap();
    let mut fd = fs::File::open(dir.path().join("deep")).unwrap();
    for _ in 0..20 {
        let name = "n".repeat(250);
        rustix::fs::mkdirat(&fd, &name, Mode::RWXU).unwrap();
        fd = rustix::fs::openat(&fd, &name, OFlags::RDONLY, Mode::empty()).unwrap().into();
    }
    assert_eq!(selected(&context(&dir, &["deep"]), &[]), ["a"]);
    assert!(all_of(&context(&dir, &[]), &[], &Filter::default()).is_err());
}

#[test]
fn patterns_select_by_component() {
    let dir = tree(&["src/a.rs", "src/b.rs", "src/sub/c.rs", "lib/a.rs", "odd[1]", "x"]);
    let context = context(&dir, &[]);
    assert_eq!(selected(&context, &["src/*.rs"]), ["src/a.rs", "src/b.rs"]);
    assert_eq!(selected(&context, &["*/a.rs"]), ["lib/a.rs", "src/a.rs"]);
    assert_eq!(selected(&context, &["s*"]), ["src", "src/a.rs", "src/b.rs", "src/sub", "src/sub/c.rs"]);
    assert_eq!(selected(&context, &["src/sub", "src/sub/c.rs", "/x"]), ["src/sub", "src/sub/c.rs", "x"]);
    assert_eq!(selected(&context, &["odd[[]1]"]), ["odd[1]"]);
    assert_eq!(selected(&context, &["../../x", "src/../lib/../x/y"]), ["x"]);
    assert!(context.resolve("a[", &Cancel::new().unwrap()).is_err());
}

#[test]
fn links_are_followed_inside() {
    let dir = tree(&["real/file", "real/other", "top"]);
    let root = dir.path();
    symlink("real", root.join("dir")).unwrap();
    symlink("/real/file", root.join("abs")).unwrap();
    symlink("../../../../top", root.join("real/up")).unwrap();
    symlink("/etc/passwd", root.join("host")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let context = context(&dir, &[]);
    assert_eq!(selected(&context, &["dir/file"]), ["dir", "real/file"]);
    assert_eq!(selected(&context, &["abs"]), ["abs", "real/file"]);
    assert_eq!(resolved(&context, "dir/up"), [("dir/up".into(), "top".into())]);
    assert_eq!(resolved(&context, "dir/o*"), [("dir/other".into(), "real/other".into())]);
    assert_eq!(selected(&context, &["real"]), ["real", "real/file", "real/other", "real/up"]);
    assert_eq!(resolved(&context, "host"), []);
    assert!(context.resolve("loop", &Cancel::new().unwrap()).is_err());
    for path in ["dir/file", "abs", "real", "../top"] {
        assert!(context.open(Path::new(path)).is_err(), "{path}");
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut context.open(Path::new("real/file")).unwrap(), &mut text).unwrap();
    assert_eq!(text, "real/file");
}

#[test]
fn the_digest_is_of_what_a_copy_takes() {
    let dir = tree(&["a/f", "a/g", "b"]);
    let context = context(&dir, &["b"]);
    let at = |path: &str| dir.path().join(path);
    let now = || digest(&context, &[], &NoCache);
    let first = now();
    fs::write(at("b"), "ignored").unwrap();
    fs::File::open(at("a/f")).unwrap().set_modified(UNIX_EPOCH).unwrap();
    std::os::unix::fs::chown(at("a/f"), Some(77), Some(78)).unwrap();
    assert_eq!(now(), first, "neither ignored files, times nor owners count");
    let mut seen = vec![first];
    let mut changed = |what: &str, change: &dyn Fn()| {
        change();
        assert!(!seen.contains(&now()), "{what} must count");
        seen.push(now());
    };
    changed("bytes", &|| fs::write(at("a/f"), "x").unwrap());
    changed("a mode", &|| fs::set_permissions(at("a/f"), fs::Permissions::from_mode(0o700)).unwrap());
    changed("a directory's mode", &|| {
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o700)).unwrap()
    });
    changed("a name", &|| fs::rename(at("a/g"), at("a/h")).unwrap());
    changed("a link", &|| symlink("x", at("l")).unwrap());
    changed("a target", &|| {
        fs::remove_file(at("l")).unwrap();
        symlink("y", at("l")).unwrap();
    });
    changed("an empty directory", &|| fs::create_dir(at("empty")).unwrap());
}

#[derive(Default)]
struct Remembered {
    hashes: Mutex<HashMap<StatKey, [u8; 32]>>,
}

impl FileHashCache for Remembered {
    fn get(&self, keys: &[StatKey]) -> Vec<Option<[u8; 32]>> {
        let hashes = self.hashes.lock().unwrap();
        keys.iter().map(|key| hashes.get(key).copied()).collect()
    }

    fn put(&self, fresh: &[(StatKey, [u8; 32])]) -> Result<()> {
        self.hashes.lock().unwrap().extend(fresh.iter().copied());
        Ok(())
    }
}

#[test]
fn what_is_remembered_is_not_read() {
    let dir = tree(&["f"]);
    let context = context(&dir, &[]);
    let cache = Remembered::default();
    let read = digest(&context, &[], &cache);
    assert!(cache.hashes.lock().unwrap().is_empty(), "a file that was just written is not to be relied on");
    let key = entries(&context, &[])[0].key;
    cache.put(&[(key, [7; 32])]).unwrap();
    let remembered = digest(&context, &[], &cache);
    assert_ne!(remembered, read);
    fs::write(dir.path().join("f"), "another size").unwrap();
    assert_ne!(digest(&context, &[], &cache), remembered);
}

#[test]
fn a_settled_file_is_remembered() {
    // A file of the system, which nobody has touched lately.
    let settled = fs::metadata("/usr/bin/env").unwrap();
    let context = Context::new(fs::File::open("/usr/bin").unwrap().into(), &[]).unwrap();
    let entry = context.stat(Path::new("env")).unwrap().unwrap();
    let cache = Remembered::default();
    digest(&context, &["env"], &cache);
    let expected = *blake3::hash(&fs::read("/usr/bin/env").unwrap()).as_bytes();
    assert_eq!(cache.get(&[entry.key]), [Some(expected)]);
    assert_eq!(entry.key.size, settled.len());
}

fn filtered(context: &Context, pattern: &str, include: Option<&str>, exclude: &[&str]) -> Vec<String> {
    let exclude: Vec<String> = exclude.iter().map(|p| (*p).to_owned()).collect();
    let filter = Filter::new(include, &exclude).unwrap();
    let selected = all_of(context, &[pattern.to_owned()], &filter).unwrap();
    let shown = |e: &Entry| format!("{}{}", e.path.display(), if e.implied { " (implied)" } else { "" });
    selected.iter().map(shown).collect()
}

#[test]
fn a_filter_is_relative_to_what_is_selected() {
    let dir = tree(&["a/b/keep", "a/b/x.o", "a/x.o", "a/c/d/deep", "x.o"]);
    let plain = context(&dir, &[]);
    assert_eq!(filtered(&plain, "a", None, &["*.o", "c"]), ["a", "a/b", "a/b/keep", "a/b/x.o"]);
    assert_eq!(filtered(&plain, ".", None, &["a"]), ["x.o"]);
    let deep = ["a", "a/c (implied)", "a/c/d (implied)", "a/c/d/deep"];
    assert_eq!(filtered(&plain, "a", Some("c/*/deep"), &[]), deep);
    assert_eq!(filtered(&plain, "a", Some("**/deep"), &[]), deep);
    assert_eq!(filtered(&plain, "a", Some("b"), &["b/x.o"]), ["a", "a/b", "a/b/keep"]);
    assert_eq!(filtered(&plain, "a", Some("missing"), &[]), ["a"]);
    let ignoring = context(&dir, &["a/b", "!a/b/keep"]);
    assert_eq!(filtered(&ignoring, ".", None, &["a/c", "**/*.o"]), ["a", "a/b", "a/b/keep"]);
}

#[test]
fn what_is_excluded_is_not_in_the_digest() {
    let dir = tree(&["a/keep"]);
    fs::create_dir(dir.path().join("deep")).unwrap();
    let without = |exclude: &[&str]| {
        let exclude: Vec<String> = exclude.iter().map(|p| (*p).to_owned()).collect();
        let filter = Filter::new(None, &exclude).unwrap();
        digest_of(&context(&dir, &[]), &[".".to_owned()], &filter, &NoCache)
    };
    let before = without(&["deep"]);
    fs::write(dir.path().join("deep/new"), "1").unwrap();
    assert_eq!(without(&["deep"]), before);
    assert_ne!(without(&[]), before);
}

#[test]
fn a_glob_goes_through_no_link_but_may_find_one() {
    let dir = tree(&["real/y", "p1/y", "q"]);
    symlink("real", dir.path().join("p2")).unwrap();
    symlink("q", dir.path().join("l1")).unwrap();
    symlink("nowhere", dir.path().join("l2")).unwrap();
    let context = context(&dir, &[]);
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    assert_eq!(resolved(&context, "p*/y"), pairs(&[("p1/y", "p1/y")]));
    assert_eq!(resolved(&context, "p2/*"), pairs(&[("p2/y", "real/y")]));
    assert_eq!(resolved(&context, "l*"), pairs(&[("l1", "q"), ("l2", "nowhere")]));
    assert_eq!(resolved(&context, "l2"), []);
}
