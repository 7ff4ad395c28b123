//! Stacks of real layer directories, and plain directories with hostile links.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::layer::sink::{DirSink, LayerSink};

/// Layers, bottom first, each made by a closure.
struct Stack(Vec<tempfile::TempDir>);

impl Stack {
    fn new() -> Stack {
        Stack(Vec::new())
    }

    fn layer(mut self, fill: impl FnOnce(&mut DirSink) -> Result<()>) -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = DirSink::new(open(dir.path()), OwnerView::current());
        fill(&mut sink).unwrap();
        sink.finish().unwrap();
        self.0.push(dir);
        self
    }

    fn tree(&self) -> Tree {
        Tree::merged(self.0.iter().map(|dir| open(dir.path())).collect())
    }
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn file(sink: &mut DirSink, path: &str, content: &str) -> Result<()> {
    let meta = Metadata { mode: 0o644, ..Metadata::default() };
    sink.file(Path::new(path), &meta, content.len() as u64, &mut content.as_bytes())
}

fn link(sink: &mut DirSink, path: &str, target: &str) -> Result<()> {
    sink.symlink(Path::new(path), &Metadata::default(), OsStr::new(target))
}

fn walked(tree: &Tree, path: &str) -> Vec<String> {
    tree.walk(path).unwrap().map(|node| node.unwrap().path.display().to_string()).collect()
}

fn text(tree: &Tree, path: &str) -> Option<String> {
    tree.read_file(path, 1000).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

fn real(tree: &Tree, path: &str, follow: bool) -> Option<String> {
    tree.lookup(path, follow).unwrap().map(|node| node.path.display().to_string())
}

#[test]
fn upper_layers_add_replace_and_delete() {
    let stack = Stack::new()
        .layer(|s| {
            file(s, "a/one", "1")?;
            file(s, "a/two", "2")?;
            file(s, "b/deep/three", "3")?;
            file(s, "c", "file")?;
            file(s, "d/x", "x")
        })
        .layer(|s| {
            s.whiteout(Path::new("a/one"))?;
            file(s, "a/two", "two")?;
            s.whiteout(Path::new("b"))?;
            file(s, "c/now", "a directory")?;
            file(s, "d", "now a file")
        })
        .layer(|s| {
            file(s, "b/deep/four", "4")?;
            file(s, "d/y", "y")
        });
    let tree = stack.tree();
    let all = ["", "a", "a/two", "b", "b/deep", "b/deep/four", "c", "c/now", "d", "d/y"];
    assert_eq!(walked(&tree, "/"), all);
    for path in all {
        assert_eq!(real(&tree, path, true).as_deref(), Some(path));
    }
    for gone in ["a/one", "b/deep/three", "d/x", "c/now/below", "a/two/below", "nothing"] {
        assert_eq!(real(&tree, gone, true), None, "{gone}");
    }
    assert_eq!(text(&tree, "a/two").as_deref(), Some("two"));
    assert_eq!(text(&tree, "a"), None);
}

#[test]
fn opaque_directories_hide_what_is_below() {
    let stack = Stack::new()
        .layer(|s| file(s, "d/sub/old", "1").and_then(|()| file(s, "kept", "1")))
        .layer(|s| file(s, "d/sub/middle", "2"))
        .layer(|s| s.opaque(Path::new("d")).and_then(|()| file(s, "d/sub/new", "3")))
        .layer(|s| file(s, "d/sub/newest", "4"));
    let tree = stack.tree();
    assert_eq!(walked(&tree, "d"), ["d", "d/sub", "d/sub/new", "d/sub/newest"]);
    assert_eq!(real(&tree, "d/sub/old", true), None);
    assert_eq!(real(&tree, "kept", true).as_deref(), Some("kept"));
    let names: Vec<_> = tree.readdir("/d/sub/").unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["new", "newest"]);
    assert!(tree.readdir("kept").is_err());
}

#[test]
fn links_are_followed_in_the_merged_tree() {
    let stack = Stack::new()
        .layer(|s| {
            link(s, "lib", "usr/lib")?;
            file(s, "usr/lib/a", "low")?;
            link(s, "var/run", "/run")?;
            link(s, "up", "../../../../etc/x")
        })
        .layer(|s| {
            file(s, "usr/lib/b", "high")?;
            file(s, "run/pid", "7")?;
            file(s, "etc/x", "ours")?;
            link(s, "loop", "loop")
        });
    let tree = stack.tree();
    assert_eq!(real(&tree, "lib/b", true).as_deref(), Some("usr/lib/b"));
    assert_eq!(real(&tree, "lib", false).as_deref(), Some("lib"));
    assert_eq!(real(&tree, "lib/", false).as_deref(), Some("usr/lib"));
    assert_eq!(tree.lookup("lib", false).unwrap().unwrap().kind, Kind::Symlink("usr/lib".into()));
    assert_eq!(text(&tree, "/var/run/pid").as_deref(), Some("7"));
    assert_eq!(text(&tree, "up").as_deref(), Some("ours"));
    assert_eq!(text(&tree, "lib/../../../lib/a/../a"), None, "a file has no parent to go back from");
    assert_eq!(
        text(&tree, "lib/../lib/a").as_deref(),
        Some("low"),
        "a `..` is resolved where the link leads"
    );
    assert!(tree.lookup("loop", true).is_err());
    assert_eq!(walked(&tree, "lib"), ["usr/lib", "usr/lib/a", "usr/lib/b"]);
}

#[test]
fn a_plain_directory_never_shows_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(dir.path().join("secret"), "host").unwrap();
    for (name, target) in
        [("a", "../secret"), ("b", dir.path().join("secret").to_str().unwrap()), ("c", "/etc/passwd")]
    {
        symlink(target, root.join(name)).unwrap();
        assert_eq!(text(&Tree::plain(open(&root)), name), None, "{name}");
    }
    fs::write(root.join("secret"), "ours").unwrap();
    assert_eq!(text(&Tree::plain(open(&root)), "a").as_deref(), Some("ours"));
    fs::write(root.join(".wh.x"), "").unwrap();
    assert_eq!(walked(&Tree::plain(open(&root)), ""), ["", ".wh.x", "a", "b", "c", "secret"]);
}

#[test]
fn special_files_are_not_read() {
    let stack = Stack::new().layer(|s| {
        s.node(Path::new("passwd"), &Metadata::default(), NodeKind::Fifo)?;
        s.node(Path::new("zero"), &Metadata::default(), NodeKind::Char { major: 1, minor: 5 })?;
        file(s, "large", "0123456789")
    });
    let tree = stack.tree();
    assert_eq!(text(&tree, "passwd"), None);
    assert_eq!(text(&tree, "zero"), None);
    assert!(tree.open(&tree.lookup("passwd", true).unwrap().unwrap()).is_err());
    assert!(tree.read_file("large", 9).is_err());
    assert_eq!(tree.read_file("large", 10).unwrap().unwrap().len(), 10);
}

#[test]
fn nodes_tell_what_the_image_means() {
    let stack = Stack::new().layer(|s| {
        let xattrs = vec![(b"user.a".to_vec(), b"b".to_vec())];
        let meta = Metadata { mode: 0o4711, uid: 12, gid: 34, xattrs, ..Metadata::default() };
        s.file(Path::new("f"), &meta, 3, &mut &b"abc"[..])?;
        s.hard_link(Path::new("g"), Path::new("f"))
    });
    let tree = stack.tree();
    let (f, g) = (tree.lookup("f", true).unwrap().unwrap(), tree.lookup("g", true).unwrap().unwrap());
    assert_eq!((f.meta.mode, f.meta.uid, f.meta.gid, f.size), (0o4711, 12, 34, 3));
    assert_eq!(f.meta.xattrs, [(b"user.a".to_vec(), b"b".to_vec())]);
    assert!(f.group.is_some() && f.group == g.group);
    let mut content = String::new();
    tree.open(&g).unwrap().reader().read_to_string(&mut content).unwrap();
    assert_eq!(content, "abc");
}

#[test]
fn directories_can_be_left_out_and_empty_stacks_are_empty() {
    let stack = Stack::new().layer(|s| file(s, "a/b/c", "").and_then(|()| file(s, "d", "")));
    let tree = stack.tree();
    let mut walk = tree.walk("").unwrap();
    let mut seen = Vec::new();
    while let Some(node) = walk.next() {
        let path = node.unwrap().path.display().to_string();
        if path == "a" {
            walk.skip_dir();
        }
        seen.push(path);
    }
    assert_eq!(seen, ["", "a", "d"]);
    assert_eq!(walked(&tree, "missing").len(), 0);
    assert!(Tree::merged(Vec::new()).lookup("/", true).unwrap().is_none());
}

#[test]
fn layers_as_one_do_to_what_is_below_what_they_did_one_after_the_other() {
    let below = |stack: Stack| {
        stack.layer(|s| {
            for name in ["gone/x", "kept/x", "replaced/x", "emptied/x", "file", "again/x", "up/x/y"] {
                file(s, name, "below")?;
            }
            Ok(())
        })
    };
    let first = |s: &mut DirSink| {
        file(s, "kept/first", "1")?;
        file(s, "kept/both", "1")?;
        file(s, "made/and/gone", "1")?;
        s.whiteout(Path::new("gone"))?;
        s.whiteout(Path::new("again"))?;
        s.opaque(Path::new("emptied"))?;
        file(s, "replaced", "now a file")?;
        link(s, "up", "/etc")
    };
    let second = |s: &mut DirSink| {
        file(s, "kept/both", "2")?;
        s.hard_link(Path::new("kept/link"), Path::new("kept/both"))?;
        s.whiteout(Path::new("made/and"))?;
        s.whiteout(Path::new("kept/x"))?;
        file(s, "emptied/second", "2")?;
        file(s, "again/second", "2")?;
        file(s, "replaced/second", "2")?;
        file(s, "up/x/second", "2")
    };
    let apart = below(Stack::new()).layer(first).layer(second);
    let alone = below(Stack::new());
    let base = alone.tree();
    let one = below(Stack::new()).layer(|sink| {
        let new = Stack::new().layer(first).layer(second);
        let mut asked = Vec::new();
        let mut is_below = |path: &Path| {
            asked.push(path.display().to_string());
            Ok(base.lookup(path, false)?.is_some())
        };
        let cancel = crate::Cancel::new().unwrap();
        new.tree().write_as_one(sink, &mut is_below, &cancel)?;
        // A whiteout is written only where there is something to hide.
        assert_eq!(asked, ["gone", "kept/x", "made/and"]);
        Ok(())
    });
    let (apart, together) = (apart.tree(), one.tree());
    assert_eq!(walked(&together, ""), walked(&apart, ""));
    for path in walked(&apart, "") {
        assert_eq!(text_or_none(&together, &path), text_or_none(&apart, &path), "{path}");
    }
    assert_eq!(walked(&together, "made"), ["made"]);
    assert!(!one.0[1].path().join("made/and").exists(), "no trace of what came and went");
    let group = |path: &str| together.lookup(path, false).unwrap().unwrap().group;
    assert!(group("kept/link").is_some() && group("kept/link") == group("kept/both"));
}

fn text_or_none(tree: &Tree, path: &str) -> Option<String> {
    tree.lookup(path, false).unwrap().filter(|node| node.kind == Kind::File).and_then(|_| text(tree, path))
}
