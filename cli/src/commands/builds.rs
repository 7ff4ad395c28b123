//! `history ls`, `inspect`, `logs` and `rm`: builds of before.

use boxwright_cache::record::{BuildRecord, Outcome};
use boxwright_solver::why::Became;
use serde_json::{Value, json};

use super::Session;
use crate::engine::Explained;
use crate::error::{Error, Result};
use crate::format::{self, Table, Template, json as format_json, time};

/// Builds of before
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Builds {
    Ls(Ls),
    Inspect(Inspect),
    Logs(Logs),
    Rm(Rm),
}

/// List builds
#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// `json`, or a Go template, for each build
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't shorten anything
    #[arg(long)]
    no_trunc: bool,
}

/// Show what a build was, and what came of it
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The beginning of its id, or `^1` for the one before the newest [default: the newest]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
}

/// Show all that a build printed
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The beginning of its id, or `^1` for the one before the newest [default: the newest]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
}

/// Forget builds. What they made stays
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// All of them
    #[arg(long)]
    all: bool,
    /// The beginnings of their ids
    #[arg(value_name = "BUILD")]
    builds: Vec<String>,
}

impl Builds {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        match self {
            Builds::Ls(ls) => ls.execute(session),
            Builds::Inspect(inspect) => inspect.execute(session),
            Builds::Logs(logs) => logs.execute(session),
            Builds::Rm(rm) => rm.execute(session),
        }
    }
}

impl Ls {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let builds = session.engine.builds()?;
        if let Some(format) = &self.format {
            let template = Template::parse(format)?;
            return builds.iter().try_for_each(|build| session.print(template.render(&object(build))?));
        }
        let mut table = Table::new(&["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"]);
        for build in &builds {
            let name = name(build);
            let name = if self.no_trunc { name } else { super::history::shortened(&name, 40) };
            let took = build.took.map(duration).unwrap_or_default();
            table.row(vec![build.name.clone(), name, status(build).to_owned(), created(build), took]);
        }
        session.write(&table)
    }
}

impl Inspect {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let build = session.engine.past_build(self.build.as_deref())?;
        let steps = session.engine.explain(&build)?;
        let mut facts = object(&build);
        facts["NumTotalSteps"] = steps.len().into();
        facts["NumCachedSteps"] = cached(&steps).into();
        match self.format.as_deref() {
            Some("json") => session.print(format_json::pretty(&facts)),
            Some(format) => session.print(Template::parse(format)?.render(&facts)?),
            None => session.write(Table::tight(2, rows(&facts, &build))),
        }
    }
}

impl Logs {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let build = session.engine.past_build(self.build.as_deref())?;
        let Some(mut log) = session.engine.store().build_log(&build)? else {
            return Err(Error::invalid(format!("the log of build {} is gone", build.name)));
        };
        std::io::copy(&mut log, &mut session.out).map(drop).map_err(Error::Output)
    }
}

impl Rm {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        if self.builds.is_empty() && !self.all {
            return Err(Error::invalid("name the builds to forget, or say --all"));
        }
        let builds = if self.all {
            session.engine.builds()?
        } else {
            self.builds.iter().map(|name| session.engine.past_build(Some(name))).collect::<Result<_>>()?
        };
        builds.iter().try_for_each(|build| Ok(session.engine.store().remove_build(build)?))
    }
}

/// `3 minutes ago`.
pub(super) fn created(build: &BuildRecord) -> String {
    let seconds = u64::try_from(time::now() - build.started / 1000).unwrap_or(0);
    format!("{} ago", format::age(seconds))
}

/// `1.3s`, `2m 05s`.
pub(super) fn duration(took: std::time::Duration) -> String {
    match took.as_secs() {
        seconds if seconds < 60 => format!("{:.1}s", took.as_secs_f64()),
        seconds => format!("{}m {:02}s", seconds / 60, seconds % 60),
    }
}

fn status(build: &BuildRecord) -> &'static str {
    match build.outcome {
        Some(Outcome::Completed) => "Completed",
        Some(Outcome::Failed) => "Error",
        Some(Outcome::Canceled) => "Canceled",
        None if build.running => "Running",
        None => "Killed",
    }
}

fn about(build: &BuildRecord) -> Value {
    serde_json::from_str(&build.about).unwrap_or_default()
}

/// The directory's name, what of it is not usual, and the stage.
fn name(build: &BuildRecord) -> String {
    let about = about(build);
    let text = |field: &str| about[field].as_str().unwrap_or_default();
    let context = text("context").trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let dockerfile = match text("dockerfile") {
        "Dockerfile" => String::new(),
        other => format!("/{}", other.rsplit('/').next().unwrap_or_default()),
    };
    let target = if text("target").is_empty() { String::new() } else { format!(" ({})", text("target")) };
    context + &dockerfile + &target
}

/// Steps that a build did not get to are none of them.
fn cached(steps: &[Explained]) -> usize {
    let spared = |became: Became| matches!(became, Became::Done(_)) && !became.ran();
    steps.iter().filter(|step| step.became.is_some_and(spared)).count()
}

/// Docker's names where it has one.
fn object(build: &BuildRecord) -> Value {
    let about = about(build);
    json!({
        "Ref": build.name,
        "Name": name(build),
        "Status": status(build).to_lowercase(),
        "CreatedAt": time::rfc3339(build.started / 1000),
        "Duration": build.took.map(|took| took.as_secs_f64()),
        "Error": build.error,
        "Context": about["context"],
        "Dockerfile": about["dockerfile"],
        "Target": about["target"],
        "Platform": about["platform"],
        "Tags": about["tags"],
        "Image": about["image"],
    })
}

/// What there is to say.
fn rows(facts: &Value, build: &BuildRecord) -> Vec<Vec<String>> {
    let text = |field: &str| match &facts[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    let (total, cached) = (&facts["NumTotalSteps"], &facts["NumCachedSteps"]);
    let rows = [
        ("Name:", text("Name")),
        ("Context:", text("Context")),
        ("Dockerfile:", text("Dockerfile")),
        ("Target:", text("Target")),
        ("Platform:", text("Platform")),
        ("Started:", text("CreatedAt")),
        ("Status:", status(build).to_owned()),
        ("Duration:", build.took.map(duration).unwrap_or_default()),
        ("Build Steps:", format!("{total} ({cached} cached)")),
        ("Tags:", text("Tags")),
        ("Image:", text("Image")),
        ("Error:", text("Error")),
    ];
    let told = rows.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| vec![name.to_owned(), value]).collect()
}
