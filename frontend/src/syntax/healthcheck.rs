//! HEALTHCHECK: its kinds and its intervals.

use boxwright_cache::oci::Healthcheck;

use super::flags::{self, Flags, Takes};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::notation::{parse_duration, quote};

const FLAGS: [(&str, Takes); 5] = [
    ("interval", Takes::One),
    ("retries", Takes::One),
    ("start-interval", Takes::One),
    ("start-period", Takes::One),
    ("timeout", Takes::One),
];
const SHORTEST: i64 = 1_000_000;

pub(super) fn parse(node: &Node) -> Result<Healthcheck, Box<Diagnostic>> {
    let fail = |message: String| Err(Box::new(Diagnostic::error(message, node.span)));
    let Some((kind, args)) = node.args.split_first() else {
        return fail("HEALTHCHECK requires at least one argument".to_owned());
    };
    let kind = kind.text.to_uppercase();
    if kind == "NONE" {
        if !args.is_empty() {
            return fail("HEALTHCHECK NONE takes no arguments".to_owned());
        }
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    let flags = flags::read(node, &FLAGS)?;
    if kind != "CMD" {
        return fail(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind)));
    }
    if args.is_empty() {
        return fail("Missing command after HEALTHCHECK CMD".to_owned());
    }
    let mut test = vec![if node.json { "CMD" } else { "CMD-SHELL" }.to_owned()];
    test.extend(args.iter().map(|arg| arg.text.clone()));
    Ok(Healthcheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

/// In nanoseconds; zero where it is not given.
fn interval(flags: &Flags, name: &str) -> Result<i64, Box<Diagnostic>> {
    let Some(word) = flags.one(name).filter(|word| !word.text.is_empty()) else { return Ok(0) };
    let nanos = parse_duration(&word.text).map_err(|message| {
        Box::new(Diagnostic::error(message, word.span).hint("a duration has units, like 5s or 1m30s"))
    })?;
    if nanos != 0 && nanos < SHORTEST {
        let message = format!("Interval {} cannot be less than 1ms", quote(name));
        return Err(Box::new(Diagnostic::error(message, word.span)));
    }
    Ok(nanos)
}

fn retries(flags: &Flags) -> Result<i64, Box<Diagnostic>> {
    let Some(word) = flags.one("retries").filter(|word| !word.text.is_empty()) else { return Ok(0) };
    let message = match word.text.parse::<i32>() {
        Ok(count) if count >= 0 => return Ok(count.into()),
        Ok(count) => format!("--retries cannot be negative ({count})"),
        Err(error) => {
            let overflow = matches!(
                error.kind(),
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
            );
            let reason = if overflow { "value out of range" } else { "invalid syntax" };
            format!("strconv.ParseInt: parsing {}: {reason}", quote(&word.text))
        }
    };
    Err(Box::new(Diagnostic::error(message, word.span)))
}
