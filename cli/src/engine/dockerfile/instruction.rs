//! From a line of an image's history, as BuildKit, docker's first builder, buildah or kaniko write it, to the instruction.

use boxwright_cache::oci::{ContainerConfig, Healthcheck};

/// What RUN puts before a command unless SHELL says otherwise; buildah in any case.
const SHELL: &str = "/bin/sh -c";
/// What stands before instructions that run nothing. Docker writes one more space, but before ADD and COPY.
const NO_COMMAND: &str = " #(nop) ";

pub(super) struct Reader<'a> {
    config: &'a ContainerConfig,
    /// With spaces between its words.
    shell: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a ContainerConfig, shell: Option<&[String]>) -> Reader<'a> {
        Reader { config, shell: shell.map_or(SHELL.to_owned(), |words| words.join(" ")) }
    }

    /// What can't be an instruction becomes a comment. The config has what the last HEALTHCHECK says.
    pub(super) fn read(&mut self, step: &str, last_check: bool) -> String {
        let whole = step.trim_end();
        let text = whole.strip_suffix("# buildkit").unwrap_or(whole).trim_end();
        let is_buildkits = text.len() < whole.len();
        let text = text.split_once(NO_COMMAND).map_or(text, |(_, rest)| rest.trim_start());
        let (keyword, rest) = text.split_once(' ').unwrap_or((text, ""));
        if is_buildahs(whole, keyword, rest) {
            return text.to_owned();
        }
        let read = match keyword {
            "RUN" if is_buildkits || rest.starts_with(&self.shell) => Some(self.run(rest)),
            "RUN" => Some(in_lines(rest)),
            _ if self.is_old_run(text) => Some(self.run(text)),
            _ if text.contains('\n') => None,
            "COPY" | "ADD" => copied(rest),
            "ENV" | "LABEL" | "ARG" => Some(self.pairs(keyword, rest)),
            "CMD" | "ENTRYPOINT" => self.command(rest),
            "VOLUME" => Some(json(&words(rest))),
            "EXPOSE" => Some(words(rest).join(" ")),
            "SHELL" => {
                self.shell = words(rest).join(" ");
                Some(json(&words(rest)))
            }
            "HEALTHCHECK" => self.config.healthcheck.as_ref().filter(|_| last_check).map(check),
            "WORKDIR" | "USER" | "STOPSIGNAL" => Some(escaped(rest)),
            "MAINTAINER" | "ONBUILD" => Some(rest.to_owned()),
            _ => None,
        };
        match read {
            Some(rest) if self.is_old_run(text) => format!("RUN {rest}"),
            Some(rest) => format!("{keyword} {rest}"),
            None if step.starts_with('#') && is_one_line(step) => step.to_owned(),
            None => as_comment(step),
        }
    }

    /// Docker's first builder writes commands without a keyword.
    fn is_old_run(&self, text: &str) -> bool {
        text.starts_with(&format!("{} ", self.shell))
            || text.strip_prefix('|').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }

    fn run(&self, text: &str) -> String {
        let shell = format!("{} ", self.shell);
        let text = without_args(text, &shell);
        match text.strip_prefix(&shell) {
            Some(script) => in_lines(script.trim()),
            None => json(&text.split_whitespace().collect::<Vec<_>>()),
        }
    }

    /// The config tells where a value ends that has spaces.
    fn pairs(&self, keyword: &str, text: &str) -> String {
        let known = |name: &str, after: &str| {
            let mut values: Vec<&str> = match keyword {
                "ENV" => {
                    self.config.env.iter().filter_map(|e| e.strip_prefix(name)?.strip_prefix('=')).collect()
                }
                "LABEL" => self.config.labels.get(name).map(String::as_str).into_iter().collect(),
                _ => Vec::new(),
            };
            values.retain(|value| {
                after.strip_prefix(*value).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            });
            values.first().map(|value| value.len())
        };
        let (mut pairs, mut rest) = (Vec::new(), text);
        while let Some((name, after)) = rest.split_once('=') {
            let end = known(name, after).unwrap_or_else(|| value_end(after));
            pairs.push(format!("{name}={}", quoted(&after[..end])));
            rest = after[end..].trim_start();
        }
        if !rest.is_empty() {
            pairs.push(rest.to_owned());
        }
        pairs.join(" ")
    }

    /// A list whose strings have spaces between them, as Go prints it. What the shell runs needs no list.
    fn command(&self, text: &str) -> Option<String> {
        if serde_json::from_str::<Vec<String>>(text).is_ok() {
            return Some(text.to_owned());
        }
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        let parsed = serde_json::Deserializer::from_str(inner).into_iter::<String>();
        let list = parsed.collect::<Result<Vec<String>, _>>().ok()?;
        match list.split_last() {
            Some((script, shell)) if shell.join(" ") == self.shell && is_one_line(script) => {
                Some(script.clone())
            }
            _ => Some(json(&list)),
        }
    }
}

pub(super) fn as_comment(step: &str) -> String {
    format!("# {}", step.trim_end().replace('\n', "\n# "))
}

/// What kaniko writes: the Dockerfile's own words.
pub(super) fn as_written(step: &str) -> String {
    match step.split_once(' ') {
        Some(("RUN", script)) => format!("RUN {}", in_lines(script.trim())),
        _ if step.contains('\n') => as_comment(step),
        _ => step.trim_end().to_owned(),
    }
}

/// Whether these are the words of a Dockerfile as buildah repeats them: nothing is expanded, and lists are JSON.
fn is_buildahs(step: &str, keyword: &str, rest: &str) -> bool {
    let repeated = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
        "ARG",
    ];
    let is_gos = ["[", "{", "&{", "map["].iter().any(|start| rest.starts_with(start));
    let after = step.split_once(NO_COMMAND).map_or(" ", |(_, after)| after);
    !after.starts_with(' ')
        && repeated.contains(&keyword)
        && is_one_line(step)
        && (!is_gos || serde_json::from_str::<Vec<String>>(rest).is_ok())
}

/// Whether it is read as a command for the shell and no list.
fn is_one_line(script: &str) -> bool {
    !script.is_empty() && !script.contains('\n') && !script.starts_with('[') && script == script.trim()
}

/// Without `|2 A=1 B=2 ` before it, where a value may have spaces.
fn without_args<'t>(text: &'t str, shell: &str) -> &'t str {
    let Some((count, rest)) = text.strip_prefix('|').and_then(|rest| rest.split_once(' ')) else {
        return text;
    };
    if let Some(at) = rest.find(&format!(" {shell}")) {
        return &rest[at + 1..];
    }
    let count: usize = count.parse().unwrap_or(0);
    rest.splitn(count.saturating_add(1), ' ').nth(count).unwrap_or(rest)
}

/// A script of several lines needs a here-document.
fn in_lines(script: &str) -> String {
    if !script.contains('\n') {
        return script.to_owned();
    }
    let mut end = "EOF".to_owned();
    while script.lines().any(|line| line.trim_start() == end) {
        end.push('_');
    }
    format!("<<{end}\n{script}\n{end}")
}

/// None for text that was written into the Dockerfile: the history does not have it.
fn copied(text: &str) -> Option<String> {
    let is_hash = |source: &&str| ["file:", "dir:", "multi:"].iter().any(|kind| source.starts_with(kind));
    if let Some((source, target)) = text.split_once(" in ").filter(|(source, _)| is_hash(source)) {
        return Some(format!("{source} {}", target.trim()));
    }
    let is_text = text.split_whitespace().any(|word| word.starts_with("<<"));
    (!is_text).then(|| escaped(text))
}

/// Up to a space before what looks like `NAME=`.
fn value_end(text: &str) -> usize {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c))
    };
    let begins = |at: usize| text[at + 1..].split_once('=').is_some_and(|(name, _)| is_name(name));
    text.match_indices(' ').map(|(at, _)| at).find(|at| begins(*at)).unwrap_or(text.len())
}

/// Within double quotes if it has to be.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_./:@%+,=-~".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("\"{}\"", escaped(value).replace('"', "\\\""))
}

/// What the history has is expanded already.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('$', "\\$")
}

/// The words of `[a b]`, `map[a:{} b:{}]` or `a b`.
fn words(text: &str) -> Vec<&str> {
    let text = text.strip_prefix("map").unwrap_or(text).trim_start_matches('[').trim_end_matches(']');
    text.split_whitespace().map(|word| word.trim_end_matches(":{}")).collect()
}

fn json<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<String> =
        words.iter().map(|word| serde_json::Value::from(word.as_ref()).to_string()).collect();
    format!("[{}]", quoted.join(", "))
}

fn check(check: &Healthcheck) -> String {
    let mut text = String::new();
    for (name, nanos) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        if nanos != 0 {
            text += &format!("--{name}={} ", duration(nanos));
        }
    }
    if check.retries != 0 {
        text += &format!("--retries={} ", check.retries);
    }
    match check.test.split_first() {
        Some((kind, rest)) if kind == "CMD-SHELL" => format!("{text}CMD {}", rest.join(" ")),
        Some((kind, rest)) if kind == "CMD" => format!("{text}CMD {}", json(rest)),
        _ => "NONE".to_owned(),
    }
}

fn duration(nanos: i64) -> String {
    match nanos {
        n if n % 1_000_000_000 == 0 => format!("{}s", n / 1_000_000_000),
        n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
        n => format!("{n}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_read(config: &ContainerConfig, steps: &[(&str, &str)]) {
        let mut reader = Reader::new(config, None);
        for (step, expected) in steps {
            assert_eq!(reader.read(step, true), *expected, "{step}");
        }
    }

    #[test]
    fn what_buildkit_writes() {
        let check = Healthcheck {
            test: vec!["CMD-SHELL".into(), "curl -f x".into()],
            interval: 5_000_000_000,
            timeout: 1_500_000_000,
            retries: 2,
            ..Healthcheck::default()
        };
        let config = ContainerConfig { healthcheck: Some(check), ..ContainerConfig::default() };
        assert_read(
            &config,
            &[
                ("RUN /bin/sh -c echo \"$A\" > /x # buildkit", "RUN echo \"$A\" > /x"),
                ("RUN |2 A=b c D= /bin/sh -c make all # buildkit", "RUN make all"),
                ("RUN |1 A=b make all # buildkit", "RUN [\"make\", \"all\"]"),
                ("RUN |18446744073709551615 a # buildkit", "RUN [\"a\"]"),
                ("RUN /bin/sh -c a\nEOF\nb\n # buildkit", "RUN <<EOF_\na\nEOF\nb\nEOF_"),
                ("COPY --chown=1:2 a b /d/ # buildkit", "COPY --chown=1:2 a b /d/"),
                ("COPY <<f /f # buildkit", "# COPY <<f /f # buildkit"),
                ("ARG A", "ARG A"),
                ("ARG A=b B=c d", "ARG A=b B=\"c d\""),
                ("CMD [\"a\" \"b \\\"c\\\"\"]", "CMD [\"a\", \"b \\\"c\\\"\"]"),
                ("CMD [\"/bin/sh\" \"-c\" \"run it\"]", "CMD run it"),
                ("ENTRYPOINT []", "ENTRYPOINT []"),
                ("EXPOSE [80/tcp 53/udp]", "EXPOSE 80/tcp 53/udp"),
                ("EXPOSE map[80/tcp:{} 53/udp:{}]", "EXPOSE 80/tcp 53/udp"),
                ("VOLUME [/a /b]", "VOLUME [\"/a\", \"/b\"]"),
                ("WORKDIR /a$b", "WORKDIR /a\\$b"),
                ("SHELL [/bin/bash -o pipefail -c]", "SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]"),
                ("RUN /bin/bash -o pipefail -c a | b # buildkit", "RUN a | b"),
                (
                    "HEALTHCHECK {Test:[…]}",
                    "HEALTHCHECK --interval=5s --timeout=1500ms --retries=2 CMD curl -f x",
                ),
                ("FROM base # context", "# FROM base # context"),
                ("", "# "),
            ],
        );
    }

    #[test]
    fn what_the_first_builder_writes() {
        assert_read(
            &ContainerConfig::default(),
            &[
                ("/bin/sh -c #(nop) ADD file:0a1b in / ", "ADD file:0a1b /"),
                ("/bin/sh -c #(nop) COPY dir:0a1b in /x ", "COPY dir:0a1b /x"),
                (
                    "/bin/sh -c #(nop)  CMD [\"nginx\" \"-g\" \"daemon off;\"]",
                    "CMD [\"nginx\", \"-g\", \"daemon off;\"]",
                ),
                ("/bin/sh -c #(nop)  CMD [\"bash\"]", "CMD [\"bash\"]"),
                ("/bin/sh -c #(nop)  EXPOSE 80", "EXPOSE 80"),
                ("/bin/sh -c apt-get update", "RUN apt-get update"),
                ("|1 A=b /bin/sh -c make", "RUN make"),
                ("# debian.sh --arch 'amd64' out/", "# debian.sh --arch 'amd64' out/"),
            ],
        );
    }

    #[test]
    fn what_buildah_writes() {
        assert_read(
            &ContainerConfig::default(),
            &[
                ("/bin/sh -c #(nop) SHELL [\"/bin/sh\", \"-ec\"]", "SHELL [\"/bin/sh\", \"-ec\"]"),
                ("/bin/sh -c echo x", "RUN echo x"),
                ("|1 A=b /bin/sh -c make", "RUN make"),
                ("/bin/sh -c [\"/a\", \"b\"]", "RUN [\"/a\", \"b\"]"),
                ("/bin/sh -c --mount=type=cache,target=/c a", "RUN --mount=type=cache,target=/c a"),
                (
                    "/bin/sh -c #(nop) HEALTHCHECK --interval=5s CMD true",
                    "HEALTHCHECK --interval=5s CMD true",
                ),
                ("/bin/sh -c #(nop) ENV A=\"x y\" B=$C", "ENV A=\"x y\" B=$C"),
                ("/bin/sh -c #(nop) CMD echo hi", "CMD echo hi"),
                ("/bin/sh -c #(nop) VOLUME [\"/a b\"]", "VOLUME [\"/a b\"]"),
                ("/bin/sh -c #(nop) ADD file:0b30 in /b/ ", "ADD file:0b30 /b/"),
                // Docker before 1.10.
                ("/bin/sh -c #(nop) CMD [\"a\" \"b\"]", "CMD [\"a\", \"b\"]"),
                ("/bin/sh -c #(nop) VOLUME [/a]", "VOLUME [\"/a\"]"),
            ],
        );
    }

    #[test]
    fn what_kaniko_writes() {
        for (step, expected) in [
            ("RUN apt-get update && make \"$A\"", "RUN apt-get update && make \"$A\""),
            ("RUN a\nb", "RUN <<EOF\na\nb\nEOF"),
            ("COPY --from=0 a $B /", "COPY --from=0 a $B /"),
            ("COPY <<f /\nx\nf", "# COPY <<f /\n# x\n# f"),
        ] {
            assert_eq!(as_written(step), expected);
        }
    }

    #[test]
    fn the_config_tells_where_a_value_ends() {
        let config = ContainerConfig {
            env: vec!["OPTS=a B=c".into(), "E=".into()],
            labels: [("l".to_owned(), "x y=z".to_owned())].into(),
            ..ContainerConfig::default()
        };
        assert_read(
            &config,
            &[
                ("ENV OPTS=a B=c E= P=$HOME \"q\"", "ENV OPTS=\"a B=c\" E=\"\" P=\"\\$HOME \\\"q\\\"\""),
                ("LABEL l=x y=z m=a\\b", "LABEL l=\"x y=z\" m=\"a\\\\b\""),
                ("ENV OTHER=a B=c", "ENV OTHER=a B=c"),
            ],
        );
    }
}
