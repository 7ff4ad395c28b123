//! `volume`: directories that containers share and leave behind.

use serde_json::{Value, json};

use boxwright_cache::volume::{VolumeAbout, VolumeName, VolumeRecord, VolumeRemoval};

use super::Session;
use super::prune::agreed;
use crate::args::env;
use crate::args::pattern::Pattern;
use crate::args::volume::not_a_name;
use crate::error::{Error, Result};
use crate::format::{self, Table, Template, json, time};

/// Manage volumes
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Volume {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Make a volume; without a name it gets one
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Only `local`
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Set a label
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// As docker had it before names were arguments
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<String>,
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

/// Show everything that is known of volumes, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// A Go template; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

/// List volumes
#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// name=REGEX, label=NAME[=VALUE], dangling=BOOL, driver=local
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `json`, or a Go template, for each
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only show names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove volumes without a name that no container uses
#[derive(Debug, clap::Args)]
pub(crate) struct Prune {
    /// Those that have one as well
    #[arg(short, long)]
    all: bool,
    /// label=NAME[=VALUE], label!=NAME[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

/// Remove volumes
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// Do not mind volumes that are not there
    #[arg(short, long)]
    force: bool,
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

impl Volume {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        match self {
            Volume::Create(c) => c.execute(session),
            Volume::Inspect(c) => c.execute(session),
            Volume::Ls(c) => c.execute(session),
            Volume::Prune(c) => c.execute(session),
            Volume::Rm(c) => c.execute(session),
        }
    }
}

impl Create {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        if self.driver != "local" {
            return Err(Error::Later(format!("the volume driver {:?}", self.driver)));
        }
        let given = self.named.as_ref().filter(|name| !name.is_empty());
        if given.is_some() && self.name.is_some() {
            return Err(Error::invalid(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        let given = given.or(self.name.as_ref());
        let anonymous = given.is_none_or(String::is_empty);
        let name = match given {
            Some(name) if !anonymous => name.parse().map_err(|_| not_a_name(name))?,
            _ => VolumeName::random()?,
        };
        let labels = env::labels(&[], &self.label)?.into_iter().collect();
        let about = VolumeAbout { labels, anonymous, ..VolumeAbout::default() };
        session.engine.store().create_volume(&name, &about)?;
        session.print(name.as_str())
    }
}

impl Inspect {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let template = self.format.as_deref().filter(|f| !f.is_empty()).map(Template::parse).transpose()?;
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for name in &self.names {
            match look_up(session, name)? {
                Some(volume) => found.push(object(&volume)),
                None => errors.push(missing(name)),
            }
        }
        match template {
            Some(template) => found.iter().try_for_each(|v| session.print(template.render(v)?))?,
            None => session.print(json::pretty(&found))?,
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Several(errors)) }
    }
}

fn look_up(session: &Session<'_>, name: &str) -> Result<Option<VolumeRecord>> {
    // What can't be a name is not the name of any volume.
    let Ok(name) = name.parse() else { return Ok(None) };
    Ok(session.engine.store().volume(&name)?)
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("get {name}: no such volume"))
}

/// In docker's form.
fn object(volume: &VolumeRecord) -> Value {
    let labels = if volume.about.labels.is_empty() { Value::Null } else { json!(volume.about.labels) };
    json!({
        "CreatedAt": time::rfc3339(volume.about.created),
        "Driver": "local",
        "Labels": labels,
        "Mountpoint": volume.path.display().to_string(),
        "Name": volume.name.as_str(),
        "Options": Value::Null,
        "Scope": "local",
    })
}

/// What a template of `ls` sees: all of it is text.
fn listed(volume: &VolumeRecord) -> Value {
    let pair = |(name, value): (&String, &String)| format!("{name}={value}");
    let labels: Vec<String> = volume.about.labels.iter().map(pair).collect();
    json!({
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": labels.join(","),
        "Links": "N/A",
        "Mountpoint": volume.path.display().to_string(),
        "Name": volume.name.as_str(),
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    })
}

impl Ls {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let filters = self.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
        if filters.iter().any(|filter| matches!(filter, Filter::NoLabel(..))) {
            return Err(Error::invalid("invalid filter 'label!'"));
        }
        let mut volumes = session.engine.store().volumes()?;
        volumes.retain(|volume| matches_all(&filters, volume));
        if self.quiet {
            return volumes.iter().try_for_each(|volume| session.print(volume.name.as_str()));
        }
        if let Some(format) = self.format.as_deref().filter(|format| !matches!(*format, "" | "table")) {
            let template = Template::parse(format)?;
            return volumes.iter().try_for_each(|volume| session.print(template.render(&listed(volume))?));
        }
        let mut table = Table::new(&["DRIVER", "VOLUME NAME"]);
        for volume in &volumes {
            table.row(vec!["local".to_owned(), volume.name.as_str().to_owned()]);
        }
        session.write(&table)
    }
}

/// Which volumes are meant. Of several names one has to match, of all else everything.
#[derive(Debug, PartialEq, Eq)]
enum Filter {
    Name(Pattern),
    Label(String, Option<String>),
    NoLabel(String, Option<String>),
    Dangling(bool),
    Driver(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Filter> {
        let invalid = || Error::invalid(format!("invalid filter '{text}'"));
        let (key, value) = text.split_once('=').ok_or_else(invalid)?;
        let label = || match value.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        match key {
            "name" => Pattern::parse(value)
                .map(Filter::Name)
                .ok_or_else(|| Error::Later(format!("the regular expression {value:?}"))),
            "label" => Ok(Filter::Label(label().0, label().1)),
            "label!" => Ok(Filter::NoLabel(label().0, label().1)),
            "dangling" => match value {
                "true" | "1" => Ok(Filter::Dangling(true)),
                "false" | "0" => Ok(Filter::Dangling(false)),
                _ => Err(invalid()),
            },
            "driver" => Ok(Filter::Driver(value.to_owned())),
            _ => Err(invalid()),
        }
    }

    fn matches(&self, volume: &VolumeRecord) -> bool {
        match self {
            Filter::Name(part) => part.matches(volume.name.as_str()),
            Filter::Label(name, value) => has_label(volume, name, value.as_deref()),
            Filter::NoLabel(name, value) => !has_label(volume, name, value.as_deref()),
            Filter::Dangling(dangling) => volume.in_use != *dangling,
            Filter::Driver(driver) => driver == "local",
        }
    }
}

fn has_label(volume: &VolumeRecord, name: &str, value: Option<&str>) -> bool {
    volume.about.labels.get(name).is_some_and(|own| value.is_none_or(|value| value == own))
}

fn matches_all(filters: &[Filter], volume: &VolumeRecord) -> bool {
    let (names, others): (Vec<_>, Vec<_>) = filters.iter().partition(|f| matches!(f, Filter::Name(_)));
    (names.is_empty() || names.iter().any(|f| f.matches(volume))) && others.iter().all(|f| f.matches(volume))
}

impl Rm {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let mut errors = Vec::new();
        for name in &self.names {
            let removed = match name.parse() {
                Ok(name) => session.engine.store().remove_volume(&name)?,
                Err(_) => VolumeRemoval::Missing,
            };
            match removed {
                VolumeRemoval::Missing if !self.force => errors.push(missing(name)),
                VolumeRemoval::InUse => {
                    errors.push(Error::invalid(format!("remove {name}: volume is in use")));
                }
                VolumeRemoval::Done | VolumeRemoval::Missing => session.print(name)?,
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Several(errors)) }
    }
}

impl Prune {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let filters = self.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
        let by_label = |filter: &&Filter| matches!(filter, Filter::Label(..) | Filter::NoLabel(..));
        if let Some(odd) = filters.iter().find(|filter| !by_label(filter)) {
            return Err(Error::Later(format!("volume prune by {odd:?}")));
        }
        let what = if self.all { "all local volumes" } else { "anonymous local volumes" };
        if !self.force && !agreed(session, &format!("{what} not used by at least one container"))? {
            return Ok(());
        }
        let (mut removed, mut freed) = (Vec::new(), 0);
        for volume in session.engine.store().volumes()? {
            if !(self.all || volume.about.anonymous) || !matches_all(&filters, &volume) {
                continue;
            }
            let bytes = session.engine.store().volume_bytes(&volume)?;
            if session.engine.store().remove_volume(&volume.name)? == VolumeRemoval::Done {
                removed.push(volume.name);
                freed += bytes;
            }
        }
        if !removed.is_empty() {
            session.print("Deleted Volumes:")?;
            removed.iter().try_for_each(|name| session.print(name.as_str()))?;
            session.print("")?;
        }
        session.print(format_args!("Total reclaimed space: {}", format::size(freed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, labels: &[(&str, &str)], in_use: bool) -> VolumeRecord {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        VolumeRecord {
            name: name.parse().unwrap(),
            about: VolumeAbout { labels, ..VolumeAbout::default() },
            in_use,
            path: "/x".into(),
        }
    }

    #[test]
    fn filters_choose_by_name_label_and_use() {
        let (one, two) = (volume("db-one", &[("a", "b")], true), volume("web", &[], false));
        for (filters, expected) in [
            (&["name=db"][..], [true, false]),
            (&["name=db", "name=web"], [true, true]),
            (&["name=^web$"], [false, true]),
            (&["name=^db$"], [false, false]),
            (&["label=a"], [true, false]),
            (&["label=a=c"], [false, false]),
            (&["label!=a"], [false, true]),
            (&["label!=a=b"], [false, true]),
            (&["label!=a=c", "label!=x"], [true, true]),
            (&["dangling=true"], [false, true]),
            (&["dangling=0", "label=a=b", "name=one"], [true, false]),
            (&["driver=local"], [true, true]),
            (&["driver=nfs"], [false, false]),
        ] {
            let parsed: Vec<_> = filters.iter().map(|f| Filter::parse(f).unwrap()).collect();
            assert_eq!([&one, &two].map(|v| matches_all(&parsed, v)), expected, "{filters:?}");
        }
        for odd in ["odd=x", "name", "dangling=maybe"] {
            assert_eq!(Filter::parse(odd).unwrap_err().to_string(), format!("invalid filter '{odd}'"));
        }
    }
}
