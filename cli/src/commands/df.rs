//! `system df`.

use std::collections::{HashMap, HashSet};

use boxwright_cache::record::CacheKey;
use boxwright_cache::usage::{LayerUsage, Usage};
use boxwright_cache::volume::VolumeRecord;
use serde_json::{Value, json};

use super::Session;
use super::images::short_id;
use crate::error::Result;
use crate::format::{self, Table, Template, time};

/// How much of a step's name is shown.
const WIDTH: usize = 60;

/// Show how much of the disk is used
#[derive(Debug, clap::Args)]
pub(crate) struct Df {
    /// List images, results of build steps and cache mounts
    #[arg(short, long)]
    verbose: bool,
    /// `json`, or a Go template, for each kind
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// One kind of things: how many there are, how many are in use, and bytes.
struct Kind {
    name: &'static str,
    total: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

impl Df {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let usage = session.engine.store().usage()?;
        let store = session.engine.store();
        let sized = |volume: VolumeRecord| Ok((volume.in_use, store.volume_bytes(&volume)?));
        let volumes = store.volumes()?.into_iter().map(sized).collect::<Result<Vec<_>>>()?;
        let kinds = kinds(&usage, &volumes);
        if let Some(format) = &self.format {
            let template = Template::parse(format)?;
            return kinds.iter().try_for_each(|kind| session.print(template.render(&kind.object())?));
        }
        if self.verbose {
            return details(session, &usage);
        }
        let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
        for kind in &kinds {
            let (total, active) = (kind.total.to_string(), kind.active.to_string());
            table.row(vec![kind.name.to_owned(), total, active, format::size(kind.size), kind.reclaimable()]);
        }
        session.write(&table)
    }
}

/// In docker's order. Containers go with the command that made them, so there are none to list.
fn kinds(usage: &Usage, volumes: &[(bool, u64)]) -> [Kind; 4] {
    let leased =
        |layers: &[i64]| layers.last().is_some_and(|id| usage.layers.get(id).is_some_and(|l| l.leased));
    let free = |counts: fn(&LayerUsage) -> bool| usage.sum(|layer| counts(layer) && !layer.leased);
    let mounts: u64 = usage.mounts.iter().filter(|mount| !mount.in_use).map(|mount| mount.bytes).sum();
    [
        Kind {
            name: "Images",
            total: usage.images.len(),
            active: usage.images.iter().filter(|image| leased(&image.layers)).count(),
            size: usage.image_bytes(),
            reclaimable: free(|layer| layer.in_image),
        },
        Kind { name: "Containers", total: 0, active: 0, size: 0, reclaimable: 0 },
        of_volumes(volumes),
        Kind {
            name: "Build Cache",
            total: usage.records.len() + usage.mounts.len(),
            active: usage.records.iter().filter(|record| leased(&record.layers)).count()
                + usage.mounts.iter().filter(|mount| mount.in_use).count(),
            size: usage.cache_bytes(),
            reclaimable: free(|layer| layer.in_record && !layer.in_image) + mounts,
        },
    ]
}

/// Each with whether it is in use, and bytes.
fn of_volumes(sizes: &[(bool, u64)]) -> Kind {
    Kind {
        name: "Local Volumes",
        total: sizes.len(),
        active: sizes.iter().filter(|(in_use, _)| *in_use).count(),
        size: sizes.iter().map(|(_, bytes)| bytes).sum(),
        reclaimable: sizes.iter().filter(|(in_use, _)| !in_use).map(|(_, bytes)| bytes).sum(),
    }
}

impl Kind {
    fn reclaimable(&self) -> String {
        let size = format::size(self.reclaimable);
        match (self.reclaimable * 100).checked_div(self.size) {
            Some(percent) => format!("{size} ({percent}%)"),
            None => size,
        }
    }

    /// Docker's names.
    fn object(&self) -> Value {
        json!({
            "Type": self.name,
            "TotalCount": self.total.to_string(),
            "Active": self.active.to_string(),
            "Size": format::size(self.size),
            "Reclaimable": self.reclaimable(),
        })
    }
}

fn details(session: &mut Session<'_>, usage: &Usage) -> Result<()> {
    session.print("Images space usage:\n")?;
    let images = images(session, usage)?;
    session.write(&images)?;
    session.print(format_args!("\nBuild cache usage: {}\n", format::size(usage.cache_bytes())))?;
    let titles = session.engine.store().step_titles()?;
    session.write(cache(usage, &titles))
}

fn images(session: &Session<'_>, usage: &Usage) -> Result<Table> {
    let mut users: HashMap<i64, usize> = HashMap::new();
    for image in &usage.images {
        let own: HashSet<i64> = image.layers.iter().copied().collect();
        own.into_iter().for_each(|layer| *users.entry(layer).or_default() += 1);
    }
    let mut table =
        Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE"]);
    for listed in session.engine.images(&[])? {
        let layers = usage
            .images
            .iter()
            .find(|image| image.id == *listed.stored.id())
            .map_or(&[][..], |image| &image.layers);
        let sum = |shared: bool| {
            let own: HashSet<i64> = layers.iter().copied().filter(|id| (users[id] > 1) == shared).collect();
            own.iter().filter_map(|id| usage.layers.get(id)).map(|layer| layer.bytes).sum::<u64>()
        };
        let (shared, unique) = (sum(true), sum(false));
        table.row(vec![
            listed.repository(),
            listed.tag(),
            short_id(listed.stored.id()),
            super::images::ago(listed.image.config.created.as_deref()),
            format::size(shared + unique),
            format::size(shared),
            format::size(unique),
        ]);
    }
    Ok(table)
}

/// Those that were used last first, cache mounts behind the results of steps.
fn cache(usage: &Usage, titles: &HashMap<CacheKey, String>) -> Table {
    let mut table =
        Table::new(&["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "SHARED", "DESCRIPTION"]);
    for record in &usage.records {
        let top = record.layers.last().and_then(|id| usage.layers.get(id)).copied().unwrap_or_default();
        let title = titles.get(&record.key).and_then(|title| title.lines().next()).unwrap_or_default();
        table.row(vec![
            record.key.to_string()[..12].to_owned(),
            "regular".to_owned(),
            format::size(top.bytes),
            ago(record.created),
            ago(record.used),
            top.in_image.to_string(),
            super::history::shortened(title, WIDTH),
        ]);
    }
    for mount in &usage.mounts {
        table.row(vec![
            String::new(),
            "exec.cachemount".to_owned(),
            format::size(mount.bytes),
            ago(mount.created),
            ago(mount.used),
            mount.in_use.to_string(),
            super::history::shortened(&mount.id.escape_debug().to_string(), WIDTH),
        ]);
    }
    table
}

fn ago(at: i64) -> String {
    format!("{} ago", format::age(u64::try_from(time::now() - at).unwrap_or(0)))
}
