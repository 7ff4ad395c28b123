//! `parser/testfiles`: each Dockerfile's dump is its `result`.

use std::fs;

use boxwright_frontend::{ast::dump, parse};

use super::tables::{Mismatches, folder};

#[test]
fn every_testfile_has_its_dump() {
    let Some(folder) = folder() else { return };
    let mut mismatches = Mismatches::default();
    for entry in fs::read_dir(folder.join("parser/testfiles")).expect("parser/testfiles can be read") {
        let path = entry.expect("an entry of parser/testfiles").path();
        let parsed = parse(fs::read(path.join("Dockerfile")).expect("a Dockerfile"));
        let result = fs::read_to_string(path.join("result")).expect("a result");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        mismatches.check(&name, "dump", dump(&parsed.dockerfile).trim(), result.trim());
    }
    mismatches.finish(&[]);
}
