//! The command `why`: its options, and what it prints of a build.

use boxwright_cache::record::BuildRecord;
use serde_json::json;

use super::Session;
use super::builds::{created, duration};
use super::history::shortened;
use crate::engine::Explained;
use crate::error::{Error, Result};
use crate::explain;
use crate::format::{Table, Template};

/// How much of an instruction is shown.
const WIDTH: usize = 72;

/// Show why each step of a build ran, or did not
#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// `json`, or a Go template, for each step
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// A build by the beginning of its id (four digits at least), `^1` for the one before the newest [default: the
    /// newest]; and a step by its number or a part of its instruction [default: all]
    #[arg(value_names = ["BUILD", "STEP"], num_args = 0..=2)]
    of: Vec<String>,
}

impl Why {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let engine = &session.engine;
        let whole = |build: BuildRecord| {
            let steps = engine.explain(&build)?.into_iter().enumerate().collect();
            Ok::<_, Error>((build, steps, false))
        };
        let part = |build: BuildRecord, word: &str| {
            let steps = select(engine.explain(&build)?, word);
            Ok::<_, Error>((build, steps, true))
        };
        let (build, steps, in_detail): (_, Vec<(usize, Explained)>, _) = match &self.of[..] {
            [] => whole(engine.past_build(None)?)?,
            // One word is a build, or else a step of the newest.
            [one] => match engine.past_build(Some(one)) {
                Ok(build) => whole(build)?,
                Err(error) => {
                    let found = part(engine.past_build(None)?, one)?;
                    if found.1.is_empty() {
                        return Err(error);
                    }
                    found
                }
            },
            [build, step, ..] => {
                let found = part(engine.past_build(Some(build))?, step)?;
                if found.1.is_empty() {
                    return Err(Error::invalid(format!("build {} has no step {step:?}", found.0.name)));
                }
                found
            }
        };
        if let Some(format) = &self.format {
            let template = Template::parse(format)?;
            return steps.iter().try_for_each(|(i, step)| session.print(template.render(&object(*i, step))?));
        }
        if in_detail {
            return steps.iter().try_for_each(|(i, step)| details(session, *i, step));
        }
        session.print(format_args!("build {}, {}", build.name, created(&build)))?;
        let row = |(i, step): &(usize, Explained)| {
            let why = explain::lines(&step.why).swap_remove(0);
            vec![(i + 1).to_string(), first_line(&step.step.title), took(step), why]
        };
        session.write(Table::tight(2, steps.iter().map(row).collect()))
    }
}

/// The steps that `word` means, with their places.
fn select(steps: Vec<Explained>, word: &str) -> Vec<(usize, Explained)> {
    let number: Option<usize> = word.parse().ok();
    let means = |i: usize, step: &Explained| match number {
        Some(number) => i + 1 == number,
        None => step.step.title.contains(word),
    };
    steps.into_iter().enumerate().filter(|(i, step)| means(*i, step)).collect()
}

fn took(step: &Explained) -> String {
    if step.became.is_some_and(|became| became.ran()) { duration(step.step.took) } else { String::new() }
}

fn first_line(title: &str) -> String {
    shortened(title.lines().next().unwrap_or_default(), WIDTH)
}

fn details(session: &mut Session<'_>, i: usize, step: &Explained) -> Result<()> {
    session.print(format_args!("{} {}", i + 1, step.step.title))?;
    for line in explain::lines(&step.why) {
        session.print(format_args!("  {line}"))?;
    }
    if let boxwright_solver::why::Why::Changed { build, step, .. } = &step.why {
        session.print(format_args!("  compared with {step:?} of build {build}"))?;
    }
    let line = step.step.line.map(|line| format!(", line {line}")).unwrap_or_default();
    session.print(format_args!("  {}{line}, key {}", step.step.how, step.step.key))
}

fn object(i: usize, step: &Explained) -> serde_json::Value {
    json!({
        "number": i + 1,
        "step": step.step.title,
        "line": step.step.line,
        "status": step.step.how,
        "key": step.step.key.to_string(),
        "fields": serde_json::from_str::<serde_json::Value>(&step.step.fields).unwrap_or_default(),
        "seconds": step.step.took.as_secs_f64(),
        "because": explain::lines(&step.why).join("\n"),
        "reason": step.why,
    })
}
