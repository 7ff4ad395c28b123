//! The Dockerfile that an image was likely built from, read from its history. That has neither the flags of RUN nor the
//! stages that files were copied from, and does not tell a space within a value from one between two.

mod instruction;

use boxwright_cache::oci::{History, ImageConfig};
use boxwright_frontend as frontend;
use frontend::{Bases, Dockerfile, Options};

use self::instruction::{Reader, as_comment, as_written};
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
    lines.iter_mut().skip(1).filter(|line| !is_whole(line)).for_each(|line| *line = as_comment(line));
    buildable(lines)
}

/// Whether it is one instruction or a comment, and ends where it ends: a history may have the first line of a document alone, or
/// a line that goes on.
fn is_whole(line: &str) -> bool {
    let parsed = frontend::parse(format!("FROM scratch\n{line}\nUSER next\n"));
    let Dockerfile { nodes, stages, .. } = &parsed.dockerfile;
    let own = usize::from(!line.starts_with('#'));
    let ends = nodes.len() == own + 2 && nodes.last().is_some_and(|node| node.original == "USER next");
    ends && stages.len() == 1 && !parsed.has_errors()
}

/// How often is looked for what can't be built, of which the first may hide others.
const LOOKS: usize = 20;

/// With comments for what makes no sense in there, such as files of a stage that is not told of.
fn buildable(mut lines: Vec<String>) -> String {
    for _ in 0..LOOKS {
        let wrong = wrong_lines(&(lines.join("\n") + "\n"));
        let mut number = 1;
        for line in &mut lines {
            let own = number..number + line.lines().count().max(1);
            number = own.end;
            if wrong.iter().any(|wrong| own.contains(wrong)) {
                *line = as_comment(line);
            }
        }
        if wrong.is_empty() {
            break;
        }
    }
    lines.join("\n") + "\n"
}

/// Where the errors are, whatever the images are that it names.
fn wrong_lines(text: &str) -> Vec<usize> {
    let dockerfile = frontend::parse(text).dockerfile;
    let (options, mut bases) = (Options::default(), Bases::default());
    let found = loop {
        match frontend::needed_images(&dockerfile, &options, &bases) {
            Ok(needed) if needed.is_empty() => {
                break frontend::lower(&dockerfile, &options, &bases).err().unwrap_or_default();
            }
            Ok(needed) => needed.iter().for_each(|wanted| bases.insert_unknown(wanted)),
            Err(found) => break found,
        }
    };
    found.iter().filter(|found| found.is_error()).map(|found| found.span.first_line).collect()
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
    fn whatever_a_history_has_it_becomes_a_dockerfile() {
        for (author, step, expected) in [
            // Kaniko has the first line of a document alone.
            ("kaniko", "RUN <<EOF", "# RUN <<EOF"),
            ("kaniko", "COPY <<EOF /f", "# COPY <<EOF /f"),
            ("kaniko", "COPY --from=0 /a /b", "# COPY --from=0 /a /b"),
            ("kaniko", "COPY --from=builder /a /b", "COPY --from=builder /a /b"),
            ("kaniko", "RUN", "RUN"),
            ("kaniko", "FROM x AS y", "# FROM x AS y"),
            ("kaniko", "", "# "),
            ("", "/bin/sh -c echo \\", "# RUN echo \\"),
            ("", "/bin/sh -c <<EOF\necho a", "RUN <<EOF\n<<EOF\necho a\nEOF"),
            ("", "/bin/sh -c #(nop) EXPOSE $PORT", "EXPOSE $PORT"),
            ("", "/bin/sh -c #(nop) HEALTHCHECK --interval=1 CMD x", "# HEALTHCHECK --interval=1 CMD x"),
            ("", "/bin/sh", "# /bin/sh"),
            ("", "COPY a", "# COPY a"),
            ("", "ENV A", "# ENV A"),
            ("", "STOPSIGNAL ${X:?none}", "# STOPSIGNAL \\${X:?none}"),
            ("", "ONBUILD", "# ONBUILD"),
            ("", "/bin/sh -c #(nop) COPY a $B", "COPY a \\$B"),
        ] {
            let mut config = image(&[step]);
            config.history[0].author = author.to_owned();
            let text = write(&config, None);
            let all = format!("# The heading\n{text}USER last\n");
            let parsed = frontend::parse(&all);
            assert!(!parsed.has_errors() && wrong_lines(&all).is_empty(), "{text}");
            assert_eq!(text, format!("FROM scratch\n{expected}\n"), "{step}");
        }
        let mut both = image(&["ARG PORT=80", "EXPOSE $PORT", "COPY --from=0 a b", "COPY --from=1 a b"]);
        both.history.iter_mut().for_each(|step| step.author = "kaniko".to_owned());
        let expected = "FROM scratch\nARG PORT=80\nEXPOSE $PORT\n# COPY --from=0 a b\n# COPY --from=1 a b\n";
        assert_eq!(write(&both, None), expected);
    }

    #[test]
    fn triggers_are_in_the_config() {
        let mut config = image(&["ENV A=1"]);
        config.config.on_build = vec!["RUN true".to_owned()];
        assert_eq!(write(&config, None), "FROM scratch\nENV A=1\nONBUILD RUN true\n");
    }
}
