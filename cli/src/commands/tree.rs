//! `images --tree`: each image or index with its names, and below it the images for platforms.

use boxwright_cache::oci::Platform;
use boxwright_cache::record::{ImageRecord, Stored};
use boxwright_cache::{Digest, Store};

use super::images::short_id;
use crate::engine::{Listed, size_of};
use crate::error::Result;
use crate::format;

const GAP: &str = "   ";

/// A line of the tree; a name that has others below it has nothing but itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    name: String,
    id: String,
    disk: String,
    content: String,
}

/// Rows of equal images follow one another.
pub(super) fn tree(store: &Store, listed: &[Listed]) -> Result<String> {
    let mut groups: Vec<Vec<Row>> = Vec::new();
    for same in listed.chunk_by(|one, other| one.stored.manifest() == other.stored.manifest()) {
        groups.push(group(store, same)?);
    }
    Ok(aligned(&groups))
}

fn group(store: &Store, same: &[Listed]) -> Result<Vec<Row>> {
    let stored = &same[0].stored;
    let name = |row: &Listed| match &row.name {
        Some(name) => name.name.familiar(),
        None => "<untagged>".to_owned(),
    };
    let mut rows: Vec<Row> = same.iter().map(|row| Row { name: name(row), ..Row::default() }).collect();
    let images = stored.images();
    let content = images.iter().map(|image| content_of(store, image)).collect::<Result<Vec<_>>>()?;
    let sizes = (size_of(images.iter().copied()), content.iter().sum());
    if let Some(last) = rows.last_mut() {
        *last = row(std::mem::take(&mut last.name), stored.id(), sizes);
    }
    let mut below: Vec<Row> = Vec::new();
    let child = |platform: Option<Platform>, digest: &Digest, sizes| {
        row(platform.map_or("unknown".to_owned(), |platform| platform.to_string()), digest, sizes)
    };
    match stored {
        Stored::Image(image) => {
            below.push(child(image.config.platform(), &image.manifest, (size_of([image]), content[0])));
        }
        Stored::Index(index) => {
            for entry in index.index.manifests.iter().filter(|entry| entry.is_for_a_platform()) {
                let here = index.members.iter().position(|member| member.descriptor.digest == entry.digest);
                let sizes = here.map_or((0, 0), |at| (size_of([images[at]]), content[at]));
                let own = here.and_then(|at| images[at].config.platform());
                below.push(child(entry.platform.clone().or(own), &entry.digest, sizes));
            }
        }
    }
    let last = below.len().saturating_sub(1);
    for (at, row) in below.iter_mut().enumerate() {
        row.name.insert_str(0, if at == last { "└─ " } else { "├─ " });
    }
    rows.append(&mut below);
    Ok(rows)
}

fn row(name: String, id: &Digest, (disk, content): (u64, u64)) -> Row {
    Row { name, id: short_id(id), disk: format::size(disk), content: format::size(content) }
}

/// Bytes of the blobs and documents that are here as a registry has them.
fn content_of(store: &Store, image: &ImageRecord) -> Result<u64> {
    let mut bytes = 0;
    for digest in [&image.id, &image.manifest] {
        bytes += store.document(digest)?.map_or(0, |document| document.len() as u64);
    }
    for layer in &image.layers {
        let here = layer.blobs()?.into_iter().filter(|blob| blob.present);
        bytes += here.map(|blob| blob.descriptor.size).sum::<u64>();
    }
    Ok(bytes)
}

fn aligned(groups: &[Vec<Row>]) -> String {
    let widest = groups.iter().flatten().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let width = widest.max("IMAGE".len());
    let line = |name: &str, id: &str, disk: &str, content: &str| {
        format!("{name:width$}{GAP}{id:12}{GAP}{disk:>10}{GAP}{content:>12}").trim_end().to_owned() + "\n"
    };
    let mut text = line("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE");
    for (at, group) in groups.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        for Row { name, id, disk, content } in group {
            text += &line(name, id, disk, content);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_docker_s() {
        let row = |name: &str, size: &str| Row {
            name: name.to_owned(),
            id: "0123456789ab".to_owned(),
            disk: size.to_owned(),
            content: size.to_owned(),
        };
        let name = Row { name: "first:1".to_owned(), ..Row::default() };
        let text = aligned(&[
            vec![name, row("app:1", "12.8MB"), row("└─ linux/arm/v7", "0B")],
            vec![row("b:1", "1kB")],
        ]);
        assert_eq!(
            text,
            "IMAGE             ID             DISK USAGE   CONTENT SIZE\n\
             first:1\n\
             app:1             0123456789ab       12.8MB         12.8MB\n\
             └─ linux/arm/v7   0123456789ab           0B             0B\n\
             \n\
             b:1               0123456789ab          1kB            1kB\n"
        );
    }
}
