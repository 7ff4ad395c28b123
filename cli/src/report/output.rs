//! What a failed step said, in the report of a failed build.

use std::fmt::Write as _;

use crate::call::{visible, visible_line};
use crate::engine::{Kept, StepLog};

/// How many lines are repeated of what was shown as it came.
const REPEATED: usize = 12;
const RESET: &str = "\u{1b}[0m";

/// `whole` where nothing of it is to be seen any more: as docker does, all of it then.
pub(super) fn block(log: &StepLog, kept: Option<&Kept>, whole: bool) -> String {
    let lines = if whole { &log.lines } else { log.last(REPEATED) };
    let mut out = format!("------\n > {}:\n", visible_line(&log.name));
    if whole && log.earlier > 0 {
        let plural = if log.earlier == 1 { "" } else { "s" };
        let place = kept.map_or(String::new(), |kept| format!(": boxwright history logs {}", kept.build));
        let _ = writeln!(out, "{} earlier line{plural}{place}", log.earlier);
    }
    let lines: String = lines.iter().map(|line| coloured(line) + "\n").collect();
    out.push_str(&lines);
    // What a program left coloured is not for what follows.
    out.push_str(if lines.contains('\u{1b}') { RESET } else { "" });
    out + "------\n"
}

/// The line as it was in the end, with its colours and without all else that drives a terminal.
fn coloured(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let mut rest = line.rsplit('\r').next().unwrap_or(line);
    let mut out = String::new();
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&visible(&rest[..at]));
        let (sequence, after) = rest[at..].split_at(length_of_colour(&rest[at..]).unwrap_or(1));
        out.push_str(&if sequence.len() > 1 { sequence.to_owned() } else { visible(sequence) });
        rest = after;
    }
    out + &visible(rest)
}

/// Of the sequence that `text` begins with, if it is one for colours (SGR in ECMA-48).
fn length_of_colour(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str], earlier: usize) -> StepLog {
        StepLog { name: "RUN x".into(), lines: lines.iter().map(|&line| line.to_owned()).collect(), earlier }
    }

    #[test]
    fn colours_stay_and_end_with_the_block() {
        let said = log(&["\u{1b}[1;31mred\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}2J", " 10%\r\t20%\r"], 0);
        let text = block(&said, None, true);
        let lines = "\u{1b}[1;31mred\u{fffd}[2J\u{fffd}]0;t\u{fffd}\u{fffd}2J\n\t20%\n";
        assert_eq!(text, format!("------\n > RUN x:\n{lines}{RESET}------\n"));
        assert_eq!(coloured("\u{1b}[1"), "\u{fffd}[1", "it has no end");
    }

    #[test]
    fn what_is_to_be_seen_nowhere_else_is_told_whole() {
        let numbers: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let said = log(&numbers.iter().map(String::as_str).collect::<Vec<_>>(), 7);
        let kept = Kept { build: "abc".into(), step: 2 };
        let whole = block(&said, Some(&kept), true);
        let all = numbers.join("\n");
        let expected =
            format!("------\n > RUN x:\n7 earlier lines: boxwright history logs abc\n{all}\n------\n");
        assert_eq!(whole, expected);
        let repeated = block(&said, Some(&kept), false);
        assert_eq!(repeated, format!("------\n > RUN x:\n{}\n------\n", numbers[88..].join("\n")));
    }
}
