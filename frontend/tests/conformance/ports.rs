//! `instructions/expose.json`: what EXPOSE makes of port specifications.

use boxwright_frontend::{Bases, Options, lower, parse};

use super::tables::{Mismatches, rows};

#[test]
fn ports_are_exposed() {
    let Some(rows) = rows("instructions/expose.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let specs: Vec<&str> =
            row["specs"].as_array().expect("specs").iter().filter_map(|s| s.as_str()).collect();
        let line = specs.join(" ");
        let parsed = parse(format!("FROM scratch\nEXPOSE {line}\n"));
        let result = match parsed.diagnostics.first() {
            Some(diagnostic) => Err(diagnostic.message.clone()),
            None => lower(&parsed.dockerfile, &Options::default(), &Bases::default())
                .map(|mut lowered| {
                    lowered.images.remove(0).image.config.exposed_ports.into_keys().collect::<Vec<_>>()
                })
                .map_err(|found| found.into_iter().find(|d| d.is_error()).expect("an error").message),
        };
        match row["error"].as_str() {
            Some("*") => mismatches.check(&line, "refused", result.is_err(), true),
            // An instruction without words is refused before it has a port.
            Some(_) if line.is_empty() => mismatches.check(&line, "refused", result.is_err(), true),
            Some(error) => mismatches.check(&line, "error", result.err().as_deref(), Some(error)),
            None => {
                let list = row["expected"].as_array().expect("expected").iter();
                let mut expected: Vec<String> = list.filter_map(|p| p.as_str().map(str::to_owned)).collect();
                expected.sort();
                mismatches.check(&line, "ports", result, Ok(expected));
            }
        }
    }
    mismatches.finish(&[]);
}
