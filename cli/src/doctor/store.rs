//! The store's file system, and the mounts made of what is on it.

use std::path::Path;

use boxwright_executor::probe::{Answer, Store};

use super::Line;
use crate::format;

/// Fewer bytes and files than these are soon too few.
const LITTLE: u64 = 1 << 30;
const FEW: u64 = 10_000;

/// `copies` is asked only where there is no overlay.
pub(super) fn overlay(answer: Answer, copies: impl FnOnce() -> Answer) -> Line {
    let what = "overlay";
    let Err(why) = answer else {
        return Line::yes(what, "mounted one in the store, and changed, removed and replaced files in it")
            .needed();
    };
    let commands = overlay_command(&why);
    match copies() {
        Ok(()) => {
            let says = "the files of the image are copied for each RUN and run, which takes time and room; \
                        a store on another file system (--root DIR) may be better off";
            Line::partly(what, says, why)
        }
        Err(no_copy) => {
            let says = "no container can be started, neither for RUN nor for run; \
                        a store on another file system (--root DIR) may be better off";
            Line::no(what, says, format!("{why}; {no_copy}"))
        }
    }
    .with(commands)
    .needed()
}

/// ENODEV: the kernel has no such file system, or not yet.
fn overlay_command(why: &str) -> Option<String> {
    why.contains("os error 19").then(|| "modprobe overlay".to_owned())
}

pub(super) fn store(root: &Path, answer: Answer<Store>) -> Line {
    let what = "store";
    let store = match answer {
        Ok(store) => store,
        Err(why) => {
            let says = format!(
                "nothing can be kept in {}; --root DIR or BOXWRIGHT_ROOT names another place",
                root.display()
            );
            return Line::no(what, says, why).needed();
        }
    };
    let inodes = store.inodes.map_or(String::new(), |count| format!(" and {count} files"));
    let free = format::size(store.free);
    let says = format!("{}, on {}, with {free}{inodes} free", root.display(), store.kind);
    let lacking = lacking(&store);
    if lacking.is_empty() {
        Line::yes(what, says)
    } else {
        let commands =
            is_short(&store).then(|| format!("boxwright --root {} builder prune -f", quoted(root)));
        Line { as_root: false, ..Line::partly(what, says, lacking.join("; ")).with(commands) }
    }
    .needed()
}

fn is_short(store: &Store) -> bool {
    store.free < LITTLE || store.inodes.is_some_and(|count| count < FEW)
}

fn lacking(store: &Store) -> Vec<String> {
    let mut lacking = Vec::new();
    if is_short(store) {
        lacking.push("little is left".to_owned());
    }
    if let Err(why) = &store.hard_links {
        lacking.push(format!("no hard links ({why}): images that have some can't be unpacked"));
    }
    for (name, kept) in &store.xattrs {
        if let Err(why) = kept {
            let kind = name.split_once('.').map_or("user", |(kind, _)| kind);
            let what = if kind == "user" { "attributes user.*" } else { "capabilities of files" };
            // ENOTSUP: files are written without it.
            let so = if why.contains("os error 95") { "they are left out" } else { "images with some fail" };
            lacking.push(format!("{what} can't be kept ({why}): {so}"));
        }
    }
    lacking
}

/// For a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
