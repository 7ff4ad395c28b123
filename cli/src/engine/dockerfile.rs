//! The Dockerfile that an image was likely built from, read from its history. That has neither the flags of RUN nor the
//! stages that files were copied from, and does not tell a space within a value from one between two.

mod instruction;

use boxwright_cache::oci::{History, ImageConfig};

use self::instruction::{Reader, as_written};
use super::Engine;
use crate::error::Result;

/// The image of the store that another one was built on.
#[derive(Clone, Debug)]
struct Base {
    name: String,
    config: ImageConfig,
}

impl Engine {
    /// As text, for an image that a word stands for.
    ///
    /// # Errors
    /// As [`Engine::find`].
    pub fn dockerfile(&self, text: &str) -> Result<String> {
        let image = self.find(text)?.image(None)?;
        let base = self.base_of(&image.config)?;
        Ok(format!(
            "# The likely Dockerfile of {text}, from its history. That has no flags of RUN and no stages.\n{}",
            write(&image.config, base.as_ref())
        ))
    }

    /// Of the images with a name that this one begins with, the one with the most steps.
    fn base_of(&self, image: &ImageConfig) -> Result<Option<Base>> {
        let mut best: Option<Base> = None;
        for row in self.images(&[])? {
            let Some(name) = row.name else { continue };
            let config = row.image.config;
            let most = best.as_ref().map_or(0, |best| best.config.history.len());
            if config.history.len() > most && begins_with(image, &config) {
                best = Some(Base { name: name.name.familiar(), config });
            }
        }
        Ok(best)
    }
}

fn begins_with(image: &ImageConfig, base: &ImageConfig) -> bool {
    let layers = base.history.iter().filter(|step| !step.empty_layer).count();
    // Not their times: a build gives steps that have none one.
    let same = |(own, below): (&History, &History)| {
        own.created_by == below.created_by && own.empty_layer == below.empty_layer
    };
    base.history.len() < image.history.len()
        && image.history.iter().zip(&base.history).all(same)
        && layers == base.rootfs.diff_ids.len()
        && image.rootfs.diff_ids.starts_with(&base.rootfs.diff_ids)
}

fn write(image: &ImageConfig, base: Option<&Base>) -> String {
    let below = base.map_or(0, |base| base.config.history.len());
    // FROM makes these steps again.
    let triggered = base.map_or(0, |base| base.config.config.on_build.len());
    let steps = &image.history[below..];
    let last_check = steps.iter().rposition(|step| step.created_by.contains("HEALTHCHECK "));
    let mut reader = Reader::new(&image.config, base.and_then(|base| base.config.config.shell.as_deref()));
    let mut lines = vec![format!("FROM {}", base.map_or("scratch", |base| &base.name))];
    for (number, step) in steps.iter().enumerate().skip(triggered) {
        // A step that tools made is only told by its comment.
        let text = if step.created_by.is_empty() { &step.comment } else { &step.created_by };
        lines.push(match step.author.as_str() {
            "kaniko" => as_written(text),
            _ => reader.read(text, last_check == Some(number)),
        });
    }
    // Not a part of the history that BuildKit writes.
    if !lines.iter().any(|line| line.starts_with("ONBUILD ")) {
        lines.extend(image.config.on_build.iter().map(|trigger| format!("ONBUILD {trigger}")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(steps: &[&str]) -> ImageConfig {
        let step =
            |text: &&str| History { created_by: (*text).to_owned(), empty_layer: true, ..History::default() };
        ImageConfig { history: steps.iter().map(step).collect(), ..ImageConfig::default() }
    }

    #[test]
    fn a_base_is_named_and_its_triggers_are_left_to_it() {
        let (mut config, top) = (image(&["ENV A=1"]), image(&["ENV A=1", "ENV B=2", "ENV C=3"]));
        config.config.on_build = vec!["ENV B=2".to_owned()];
        config.config.shell = Some(vec!["/bin/bash".to_owned(), "-c".to_owned()]);
        assert!(begins_with(&top, &config) && !begins_with(&config, &top) && !begins_with(&top, &top));
        let base = Base { name: "base:1".to_owned(), config };
        assert_eq!(write(&top, Some(&base)), "FROM base:1\nENV C=3\n");
        assert_eq!(write(&top, None), "FROM scratch\nENV A=1\nENV B=2\nENV C=3\n");
        let steps = image(&["ENV A=1", "ENV B=2", "RUN /bin/bash -c true # buildkit"]);
        assert_eq!(write(&steps, Some(&base)), "FROM base:1\nRUN true\n");
    }

    #[test]
    fn what_no_instruction_made_is_told_by_its_comment() {
        let mut config = image(&["ENV A=1", ""]);
        config.history[1].comment = "merge of 3 layers".to_owned();
        assert_eq!(write(&config, None), "FROM scratch\nENV A=1\n# merge of 3 layers\n");
    }

    #[test]
    fn triggers_are_in_the_config() {
        let mut config = image(&["ENV A=1"]);
        config.config.on_build = vec!["RUN true".to_owned()];
        assert_eq!(write(&config, None), "FROM scratch\nENV A=1\nONBUILD RUN true\n");
    }
}
