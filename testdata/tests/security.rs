//! `security.tsv` holds true: for each past hole of image builders and container runtimes the tests that try it, as root
//! and as an ordinary user, or the reason why there is none. A test that goes or gets another name is missed here.

use std::fs;
use std::path::Path;

use boxwright_testdata::tables::is_test;

const HEADER: &str = "hole\trules\tas root\tas an ordinary user\twhy not, or not more";

/// What is wrong with a row.
fn fault(row: &str) -> Option<&'static str> {
    let cells: Vec<_> = row.split('\t').collect();
    let &[hole, rules, root, user, reason] = &cells[..] else { return Some("it has not five cells") };
    let is_rule = |rule: &str| {
        rule.strip_prefix('R').and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| (1..=10).contains(&n))
    };
    if cells.iter().any(|cell| cell.trim() != *cell || cell.is_empty()) || hole == "-" {
        return Some("a cell is empty");
    }
    if !rules.split(' ').all(is_rule) {
        return Some("a rule is none of R1 to R10");
    }
    if (root == "-" || user == "-") && reason == "-" {
        return Some("there is neither a test nor a reason");
    }
    let exist = |cell: &str, by_both| cell == "-" || cell.split(", ").all(|test| is_test(test, by_both));
    if !exist(root, user == "both") || user != "both" && !exist(user, false) {
        return Some("a test that it names does not exist, or not for both");
    }
    None
}

#[test]
fn each_hole_has_its_tests_or_a_reason() {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("security.tsv")).unwrap();
    let (header, rows) = table.split_once('\n').unwrap();
    assert_eq!(header, HEADER);
    let faults: Vec<_> =
        rows.lines().filter_map(|row| fault(row).map(|fault| format!("{fault}: {row}"))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let mut holes: Vec<_> =
        rows.lines().flat_map(|row| row.split('\t').next().unwrap().split(", ")).collect();
    let all = holes.len();
    holes.sort_unstable();
    holes.dedup();
    assert_eq!(holes.len(), all, "a hole is listed twice");
    assert!(all > 80, "{all} holes are listed");
}

#[test]
fn a_row_that_is_not_true_is_found() {
    let here = "testdata/tests/security.rs::a_row_that_is_not_true_is_found";
    assert_eq!(fault(&format!("x\tR1\t{here}\t{here}\t-")), None);
    assert_eq!(fault("x\tR1\t-\t-\tIt does not apply"), None);
    for row in [
        "x\tR1\t-\t-\t-".to_owned(),
        format!("x\tR1\t{here}\t\t-"),
        format!("x\tR11\t{here}\t{here}\t-"),
        format!("x\tR1\t{here}\t{here}"),
        format!("x\tR1\t{here}_or_not\t{here}\t-"),
        format!("x\tR1\t{here}\tboth\t-"),
        "x\tR1\tno/file.rs::each_hole_has_its_tests_or_a_reason\t-\tx".to_owned(),
    ] {
        assert!(fault(&row).is_some(), "{row}");
    }
}
