//! What is taken from the layer that the same instruction wrote before. That layer's files are altered behind the back
//! of the copy here, so that each file tells where its bytes come from.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;

use boxwright_cache::digest::ContentDigest;
use boxwright_cache::record::{Compared, FileChanges};

use super::super::since::{Since, made_of};
use super::*;

const BEFORE: ContentDigest = ContentDigest([1; 32]);
const NOW: ContentDigest = ContentDigest([2; 32]);

/// Copies the directory `d` of the context to `/t`, over an earlier layer in which everything says `old`. The earlier
/// layer was made of `earlier`, and `differing` is what changed in the context since.
fn copied(earlier: &str, differing: Option<&[&str]>) -> (BTreeMap<String, String>, Option<String>) {
    let bench = Bench::new(&["context/d/changed=new", "context/d/s/same=new", "context/d/touched=new"]);
    let touch = |path: &str, secs: u64| {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(secs);
        fs::File::open(bench.path(path)).unwrap().set_modified(time).unwrap();
    };
    for name in ["changed", "s/same", "touched"] {
        bench.make(&format!("earlier/t/{name}=old"));
        touch(&format!("earlier/t/{name}"), 7);
        touch(&format!("context/d/{name}"), if name == "touched" { 8 } else { 7 });
    }
    let differing: Option<HashSet<_>> = differing.map(|paths| paths.iter().map(|p| p.into()).collect());
    let compared = Compared { changes: FileChanges::default(), before: BEFORE, differing };
    let since = Since { content: NOW, compared: Some(Arc::new(compared)), earlier: Some(earlier.to_owned()) };
    let context = Context::new(open(&bench.path("context")), &[]).unwrap();
    let dir = HostDir { path: "/context".into(), ignore: Vec::new(), since: Some(since) };
    let sources = HashMap::from([(bench.from, Source::Host(Arc::new(context), Arc::new(dir)))]);
    let mut sink = DirSink::new(open(&bench.path("layer")), OwnerView::current());
    sink = sink.like(open(&bench.path("earlier")));
    let mut summing = Summing::new(&mut sink);
    let op = FileOp { base: None, actions: vec![FileAction::Copy(bench.copy(&["d"], "/t"))] };
    let (base, cancel) = (Arc::new(Tree::merged(Vec::new())), Cancel::new().unwrap());
    let made_of =
        execute(&op, base, &sources, open(&bench.path("spool")).as_fd(), &mut summing, &cancel).unwrap();
    let summed = summing.finish().unwrap();
    sink.finish().unwrap();
    assert_eq!(summed, Some(scan(open(&bench.path("layer")).as_fd(), None, &cancel).unwrap()));
    let read = |name: &str| {
        let path = bench.path("layer/t").join(name);
        let names = fs::metadata(&path).unwrap().nlink();
        (name.to_owned(), format!("{}, {names}", fs::read_to_string(path).unwrap()))
    };
    (["changed", "s/same", "touched"].map(read).into(), made_of)
}

fn contents(all: [&str; 3]) -> BTreeMap<String, String> {
    ["changed", "s/same", "touched"].map(str::to_owned).into_iter().zip(all.map(str::to_owned)).collect()
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let earlier = made_of(BEFORE, Path::new("d"), Path::new("t"));
    let (files, made) = copied(&earlier, Some(&["d/changed"]));
    assert_eq!(files, contents(["new, 1", "old, 2", "new, 1"]), "another time makes another file");
    assert_eq!(made, Some(made_of(NOW, Path::new("d"), Path::new("t"))));
}

#[test]
fn what_the_earlier_layer_was_made_of_must_be_known_for_sure() {
    let [d, t] = ["d", "t"].map(Path::new);
    for earlier in [
        made_of(NOW, d, t),
        made_of(BEFORE, Path::new("d/s"), t),
        made_of(BEFORE, Path::new(""), t),
        made_of(BEFORE, d, Path::new("t/s")),
        made_of(BEFORE, d, Path::new("")),
        String::new(),
    ] {
        let (files, _) = copied(&earlier, Some(&["d/changed"]));
        assert_eq!(files, contents(["new, 1"; 3]), "{earlier}");
    }
    let (files, _) = copied(&made_of(BEFORE, d, t), None);
    assert_eq!(files, contents(["new, 1"; 3]), "too much has changed to be listed");
}
