//! `oci.tsv` holds true: for each sentence that the specifications of OCI ask something with, the tests that show that we
//! do it, or the reason why none does. Sentences go by their numbers in the collections of `BOXWRIGHT_CONFORMANCE/oci`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use boxwright_testdata::tables::is_test;

const HEADER: &str = "specification\tsentences\twhat they ask\ttests\twhy not, or not more";
/// How many there are.
const SENTENCES: [(&str, usize); 3] = [("runtime", 298), ("image", 181), ("distribution", 155)];

/// `1-3 7`
fn numbers(cell: &str) -> Option<Vec<usize>> {
    let ranges = cell.split(' ').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.collect::<Option<Vec<_>>>().map(|ranges| ranges.into_iter().flatten().collect())
}

/// What a row is about, or what is wrong with it.
fn read(row: &str) -> Result<(&str, Vec<usize>), &'static str> {
    let cells: Vec<_> = row.split('\t').collect();
    let &[specification, sentences, asked, tests, reason] = &cells[..] else {
        return Err("it has not five cells");
    };
    if cells.iter().any(|cell| cell.trim() != *cell || cell.is_empty()) || asked == "-" {
        return Err("a cell is empty");
    }
    if tests == "-" && reason == "-" {
        return Err("there is neither a test nor a reason");
    }
    if tests != "-" && !tests.split(", ").all(|test| is_test(test, false)) {
        return Err("a test that it names does not exist");
    }
    Ok((specification, numbers(sentences).ok_or("its sentences are no numbers")?))
}

#[test]
fn each_sentence_has_its_tests_or_a_reason() {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("oci.tsv")).unwrap();
    let (header, rows) = table.split_once('\n').unwrap();
    assert_eq!(header, HEADER);
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for row in rows.lines() {
        let (specification, sentences) = read(row).unwrap_or_else(|fault| panic!("{fault}: {row}"));
        found.entry(specification).or_default().extend(sentences);
    }
    for (specification, count) in SENTENCES {
        let mut sentences = found.remove(specification).unwrap_or_default();
        sentences.sort_unstable();
        assert!(sentences.iter().copied().eq(0..count), "{specification}: not each once: {sentences:?}");
    }
    assert!(found.is_empty(), "unknown: {found:?}");
}

#[test]
fn a_row_that_is_not_true_is_found() {
    let here = "testdata/tests/oci.rs::a_row_that_is_not_true_is_found";
    assert_eq!(read(&format!("image\t1-3 7\tx\t{here}\t-")), Ok(("image", vec![1, 2, 3, 7])));
    for row in [
        "image\t1\tx\t-\t-".to_owned(),
        format!("image\tone\tx\t{here}\t-"),
        format!("image\t1\tx\t{here}_or_not\t-"),
        format!("image\t1\tx\t{here}\t"),
        format!("image\t1\tx\t{here}"),
    ] {
        assert!(read(&row).is_err(), "{row}");
    }
}
