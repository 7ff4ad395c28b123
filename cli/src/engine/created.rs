//! Times in an image's config. A layer from the cache keeps the time it was made at, so that a build that is cached as
//! a whole gives the same image again.

use boxwright_cache::oci::ImageConfig;
use boxwright_cache::snapshot::{Layer, Snapshot};

use crate::error::Result;
use crate::format::time;

/// Gives the history entries that have no time one, and the image that of its last entry. `new` is how many of the
/// layers lie above the base; with an `epoch`, everything new has that time.
pub(super) fn fill_in(
    image: &mut ImageConfig,
    result: &Snapshot,
    new: usize,
    epoch: Option<i64>,
) -> Result<()> {
    let layers = result.layers();
    let own = &layers[layers.len().saturating_sub(new)..];
    let times = own.iter().map(Layer::created).collect::<Result<Vec<i64>, _>>()?;
    fill(image, &times, epoch);
    Ok(())
}

fn fill(image: &mut ImageConfig, layers: &[i64], epoch: Option<i64>) {
    let mut layers = layers.iter().map(|at| time::rfc3339(epoch.unwrap_or(*at)));
    let is_new: Vec<bool> = image.history.iter().map(|step| step.created.is_none()).collect();
    for (step, _) in image.history.iter_mut().zip(&is_new).filter(|(step, new)| **new && !step.empty_layer) {
        step.created = layers.next();
    }
    // What changed no file happened when the layer before it was made, or else the one after it; the base's time is
    // only for those that are followed by none.
    let of_base =
        image.history.iter().zip(&is_new).rev().find(|(_, new)| !**new).and_then(|(s, _)| s.created.clone());
    let first =
        image.history.iter().zip(&is_new).filter(|(_, new)| **new).find_map(|(s, _)| s.created.clone());
    let mut last = epoch.map(time::rfc3339).or(first).or(of_base);
    for (step, _) in image.history.iter_mut().zip(&is_new).filter(|(_, new)| **new) {
        match &step.created {
            Some(at) => last = Some(at.clone()),
            None => step.created.clone_from(&last),
        }
    }
    if is_new.contains(&true) {
        image.created = image.history.last().and_then(|step| step.created.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_cache::oci::History;

    fn image(steps: &[(Option<&str>, bool)]) -> ImageConfig {
        let history = steps.iter().map(|(created, empty_layer)| History {
            created: created.map(str::to_owned),
            empty_layer: *empty_layer,
            ..History::default()
        });
        ImageConfig { created: Some("base".into()), history: history.collect(), ..ImageConfig::default() }
    }

    fn times(image: &ImageConfig) -> Vec<Option<&str>> {
        image.history.iter().map(|s| s.created.as_deref()).collect()
    }

    const ONE: &str = "1970-01-01T00:00:01Z";
    const TWO: &str = "1970-01-01T00:00:02Z";

    #[test]
    fn empty_steps_have_the_time_of_a_layer_beside_them() {
        let mut image = image(&[
            (Some("base"), false),
            (None, true),
            (None, false),
            (None, true),
            (None, false),
            (None, true),
        ]);
        fill(&mut image, &[1, 2], None);
        assert_eq!(times(&image), [Some("base"), Some(ONE), Some(ONE), Some(ONE), Some(TWO), Some(TWO)]);
        assert_eq!(image.created.as_deref(), Some(TWO));
    }

    #[test]
    fn without_a_new_layer_the_time_is_the_bases() {
        let mut labelled = image(&[(Some("base"), false), (None, true)]);
        fill(&mut labelled, &[], None);
        assert_eq!((times(&labelled), labelled.created.as_deref()), (vec![Some("base"); 2], Some("base")));
        let mut scratch = image(&[(None, true)]);
        fill(&mut scratch, &[], None);
        assert_eq!((times(&scratch), scratch.created.as_deref()), (vec![None], None));
    }

    #[test]
    fn an_epoch_is_the_time_of_all_that_is_new() {
        let mut image = image(&[(Some("base"), false), (None, true), (None, false)]);
        fill(&mut image, &[7], Some(1));
        assert_eq!(
            (times(&image), image.created.as_deref()),
            (vec![Some("base"), Some(ONE), Some(ONE)], Some(ONE))
        );
    }
}
