//! `build`.

mod sources;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use boxwright_cache::image::Holder;
use boxwright_executor::Settings;
use boxwright_frontend::Diagnostic;
use boxwright_frontend::gitref::parse_bool;
use boxwright_solver::ir::NetworkMode;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::{Session, builders, debug};
use crate::args::{DockerFlags, StepFlags, annotation, caches, outputs, platform};
use crate::call::{self, Call, Method};
use crate::engine::{
    BuildRequest, Built, BuiltImage, CacheTo, Engine, Kept, Output, ShellRequest, Source, Verified,
    write_file,
};
use crate::error::{Error, Result};
use crate::progress::{Mode, Watch, warnings_as_rawjson};
use crate::{config, exit, interrupt, report};

pub(super) use sources::read_dockerfile;

const EPOCH: &str = "SOURCE_DATE_EPOCH";
const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";

/// Build an image from a Dockerfile
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// Name of the result, and optionally a tag
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Where the Dockerfile is: a path, a URL, or `-` for standard input [default: Dockerfile in CONTEXT]
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    file: Option<PathBuf>,
    /// Value of an ARG; without `=`, that of the variable of the same name
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// What stands in for the stage or image of that name: a directory, `docker-image://REFERENCE`,
    /// `oci-layout://DIR[:TAG|@DIGEST]`, or the URL of a git repository or file
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run every step, whatever earlier builds gave
    #[arg(long)]
    no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Run what follows a step that ran, even if that gave what it had given before
    #[arg(long)]
    no_cutoff: bool,
    /// Ask registries for newer base images
    #[arg(long)]
    pull: bool,
    /// Show nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    /// How to show what happens: auto, plain, tty, rawjson (as BuildKit has it), quiet or none
    #[arg(long, value_name = "KIND", default_value = "auto")]
    progress: String,
    /// How to show errors and warnings of the Dockerfile: human, or json for one object a line
    #[arg(long, value_name = "FORMAT", default_value = "human", value_parser = ["human", "json"])]
    diagnostics: String,
    /// Take results from a cache that another machine wrote: `type=registry,ref=NAME`, `type=local,src=DIR`, or the name
    /// of an image that was built with one
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Write results for other machines: `type=registry,ref=NAME`, `type=local,dest=DIR`, both with `mode=min|max|auto`,
    /// or `type=inline` into the image
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// What to do about a step that fails: end, or open a shell in what it left, and end after that
    #[arg(long, value_name = "WHAT", default_value = "end", value_parser = ["end", "shell"])]
    on_error: String,
    /// How many steps run at once [default: four for each processor, at least eight]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Tell of each step why it runs or does not
    #[arg(long)]
    explain: bool,
    /// Answer instead of building: check, outline or targets; `,format=json` for a program to read
    #[arg(long, alias = "print", value_name = "METHOD[,format=json]", default_value = "build")]
    call: String,
    /// The same as --call=check: look for what is accepted but probably not meant
    #[arg(long)]
    check: bool,
    /// Label of the result
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Annotation of the image: `NAME=VALUE`, or with a type in front of it (`manifest:`, `index:`,
    /// `manifest-descriptor:` or `index-descriptor:`, several with commas, `manifest[OS/ARCH]:` for one platform)
    #[arg(long, value_name = "ANNOTATION")]
    annotation: Vec<String>,
    /// Make one layer of all that the build adds to its base
    #[arg(long)]
    squash: bool,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE", value_parser = path())]
    iidfile: Option<PathBuf>,
    /// Write what came of the build to this file, in buildx's JSON
    #[arg(long, value_name = "FILE", value_parser = path())]
    metadata_file: Option<PathBuf>,
    /// Bring the image to the registries that its names tell
    #[arg(long)]
    push: bool,
    /// Put the image into the store, whatever other outputs there are
    #[arg(long)]
    load: bool,
    /// Network of RUN: default (its own), host or none
    #[arg(long, alias = "net", value_name = "MODE", default_value = "default")]
    network: String,
    /// Where the result goes, instead of into the store: a directory, `-` for a tar on standard output,
    /// `type=local,dest=DIR`, `type=tar,dest=FILE`, `type=oci,dest=FILE` and `type=docker,dest=FILE` for
    /// archives (`tar=false`: an OCI layout), `type=image,name=NAME,push=true`, `type=registry`, or `type=cacheonly` for nowhere
    #[arg(short, long, value_name = "DEST")]
    output: Vec<String>,
    #[command(flatten)]
    steps: StepFlags,
    /// Platforms of the result, with commas between them; several give an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", env = platform::DEFAULT, hide_env = true)]
    platform: Vec<String>,
    #[command(flatten)]
    pub(crate) docker: DockerFlags,
    /// Where COPY and ADD find files: a directory, the URL of a git repository (`URL#REF:DIR`) or of a tar archive, or
    /// `-` for such an archive, or just a Dockerfile, on standard input
    #[arg(value_name = "CONTEXT")]
    context: String,
}

impl Build {
    /// Whether a step that fails is looked into, and there is somebody to do so.
    pub(super) fn opens_shell(&self) -> bool {
        let somebody = rustix::termios::isatty(rustix::stdio::stdin())
            && rustix::termios::isatty(rustix::stdio::stderr())
            && config::variable("CI").is_none_or(|ci| matches!(ci.as_str(), "" | "0" | "false"));
        self.on_error == "shell" && somebody
    }

    /// Builds; a failure is told before the shell opens, and stays the build's outcome.
    pub(super) fn execute_or_shell(self, session: &mut Session<'_>) -> Result<u8> {
        let signals = session.signals.take().expect("held for every command that runs something");
        let cancel = session.engine.cancel().clone();
        let Err(error) = interrupt::watched(&signals, &cancel, || self.execute(session)) else {
            return Ok(0);
        };
        let Some(kept) = kept(&error) else { return Err(error) };
        report::print(&error);
        let request = ShellRequest {
            build: session.engine.past_build(Some(&kept.build))?,
            step: kept.step,
            command: Vec::new(),
            allowed: self.steps.allowed(self.network == "host")?,
            // A person takes the time that they need.
            steps: Settings { time_limit: None, ..self.steps.settings()? },
            proxies: boxwright_frontend::proxies(&self.options()?),
            hosts: self.steps.hosts()?,
        };
        if let Err(error) = session.engine.shell(&request, &signals, debug::greet) {
            report::print(&error);
        }
        Ok(exit::code(&error))
    }

    pub(crate) fn execute(&self, session: &mut Session<'_>) -> Result<()> {
        let call = if self.check { Call::CHECK } else { Call::parse(&self.call)? };
        if call.method != Method::Build {
            return self.answer(call, session);
        }
        // What an earlier build wrote there must not be taken for the result of one that fails.
        if let Some(path) = set(self.iidfile.as_ref()) {
            remove_earlier(path)?;
        }
        let watch = self.watch()?;
        let request = self.request(&session.engine)?;
        let built = session.engine.build(&request, watch.as_ref());
        let built = if self.quiet { built.map_err(Error::without_warnings) } else { built };
        let built = built.map_err(|error| self.with_way_in(error, &session.engine));
        let built = self.worded(built)?;
        // What comes now is about the build as a whole.
        drop(watch);
        let shows_id = self.quiet && !request.outputs.iter().any(Output::is_stdout);
        self.finish(session, &built, shows_id)
    }

    /// Builds twice and compares; what says where the result goes is read, and nothing goes there.
    pub(super) fn verify(&self, session: &Session<'_>) -> Result<Verified> {
        if self.check || Call::parse(&self.call)?.method != Method::Build || self.on_error != "end" {
            return Err(Error::invalid("verify takes neither --check nor --call nor --on-error"));
        }
        let watch = self.watch()?;
        let request = self.request(&session.engine)?;
        let verified = session.engine.verify(request, watch.as_ref());
        let verified = if self.quiet { verified.map_err(Error::without_warnings) } else { verified };
        let verified = self.worded(verified)?;
        drop(watch);
        self.warn(&verified.warnings, &verified.source);
        if !(verified.has_epoch || self.quiet || self.json()) {
            report::remark_once(
                "there is no SOURCE_DATE_EPOCH, so the times of what is new were not compared: a build gives another \
                 image each time without it",
            );
        }
        Ok(verified)
    }

    /// Tells how to look into the step that failed.
    fn with_way_in(&self, mut error: Error, engine: &Engine) -> Error {
        let Some(kept) = kept(&error) else { return error };
        if let Error::Build(failure) = &mut error {
            if self.on_error == "shell" && !self.opens_shell() {
                failure.add_hint("--on-error=shell needs a terminal, and not to run in CI".to_owned());
            }
            failure.add_hint(format!("to look into what it left: {}", debug::shell_command(engine, &kept)));
        }
        error
    }

    /// What `--call` asks for.
    fn answer(&self, call: Call, session: &mut Session<'_>) -> Result<()> {
        let text = match call.method {
            Method::Describe if call.json => call::describe_json(),
            Method::Describe => call::describe_text(),
            Method::Outline => {
                let told = session.engine.outline(&self.request(&session.engine)?, self.watch()?.as_ref());
                let (outline, source) = self.worded(told)?;
                if call.json { call::outline_json(&outline, &source) } else { call::outline_text(&outline) }
            }
            Method::Targets => {
                let told = session.engine.read(&self.request(&session.engine)?, self.watch()?.as_ref());
                let (dockerfile, source) = self.worded(told)?;
                if call.json {
                    call::targets_json(&dockerfile, &source)
                } else {
                    call::targets_text(&dockerfile)
                }
            }
            Method::Check | Method::Build => return self.answer_check(call, session),
        };
        session.write(if call.json { text } else { call::visible(&text) })
    }

    fn answer_check(&self, call: Call, session: &mut Session<'_>) -> Result<()> {
        let checked = session.engine.check(&self.request(&session.engine)?, self.watch()?.as_ref())?;
        let text =
            if call.json { call::check_json(&checked) } else { call::visible(&call::check_text(&checked)) };
        session.write(text)?;
        match checked.failure {
            Some(failure) => self.worded(Err(Error::Build(Box::new(failure)))),
            None if checked.warnings.is_empty() || call.ignore_status => Ok(()),
            None => Err(Error::Found),
        }
    }

    /// A failure in the form that was asked for.
    fn worded<T>(&self, result: Result<T>) -> Result<T> {
        if self.json() { result.map_err(Error::into_json) } else { result }
    }

    fn json(&self) -> bool {
        self.diagnostics == "json"
    }

    fn mode(&self) -> Result<Mode> {
        match self.progress.as_str() {
            "" | "auto" | "quiet" if self.quiet => Ok(Mode::Quiet),
            other if self.quiet => {
                Err(Error::invalid(format!("progress={other} and quiet cannot be used together")))
            }
            asked => Mode::of(asked),
        }
    }

    fn watch(&self) -> Result<Box<dyn Watch>> {
        Ok(self.mode()?.watch())
    }

    pub(super) fn is_rawjson(&self) -> bool {
        self.mode().is_ok_and(|mode| mode == Mode::RawJson)
    }

    pub(super) fn request(&self, engine: &Engine) -> Result<BuildRequest> {
        self.docker.check()?;
        let (context, dockerfile) = self.sources(engine)?;
        let tags = self.tag.iter().map(|t| outputs::tag(t)).collect::<Result<Vec<_>>>()?;
        let annotations = self.annotation.iter().map(|text| annotation::flag(text, Holder::Manifest));
        let annotations = annotations.collect::<Result<Vec<_>>>()?.concat();
        let outputs = outputs::parse(&self.output, (self.push, self.load), &tags, &annotations)?;
        let options = self.options()?;
        let mut cache_to: Vec<CacheTo> =
            given(&self.cache_to).map(|text| caches::to(text)).collect::<Result<_>>()?;
        // As buildx has it: what scripts wrote before there was --cache-to.
        let inline = options.build_args.get(INLINE_CACHE).and_then(|value| parse_bool(value));
        if inline == Some(true) && cache_to.is_empty() {
            cache_to.push(CacheTo::Inline);
        }
        if self.squash && cache_to.contains(&CacheTo::Inline) {
            return Err(Error::invalid(
                "--squash and --cache-to type=inline: a cache in the image needs its layers as they are",
            ));
        }
        Ok(BuildRequest {
            context,
            contexts: contexts(&self.build_context)?,
            dockerfile,
            options,
            pull: self.pull,
            allowed: self.steps.allowed(self.network == "host")?,
            steps: self.steps.settings()?,
            tags,
            outputs,
            cache_from: given(&self.cache_from).map(|text| caches::from(text)).collect::<Result<_>>()?,
            cache_to,
            squash: self.squash,
            cutoff: !self.no_cutoff,
            record: true,
            jobs: self.jobs,
            explain: self.explain,
        })
    }

    fn options(&self) -> Result<boxwright_frontend::Options> {
        if self.no_cache && !self.no_cache_filter.is_empty() {
            return Err(Error::invalid("--no-cache and --no-cache-filter cannot currently be used together"));
        }
        Ok(boxwright_frontend::Options {
            target: self.target.clone().filter(|t| !t.is_empty()),
            build_args: with_proxies(build_args(&self.build_arg), &self.build_arg),
            labels: labels(&self.label)?,
            no_cache: self.no_cache,
            no_cache_stages: self.no_cache_filter.clone(),
            platforms: platform::several(&self.platform)?,
            network: match self.network.as_str() {
                "default" | "" => NetworkMode::Default,
                "host" => NetworkMode::Host,
                "none" => NetworkMode::None,
                other => return Err(Error::Later(format!("the network {other:?}"))),
            },
            hosts: self.steps.hosts()?,
            ..boxwright_frontend::Options::default()
        })
    }

    fn warn(&self, warnings: &[Diagnostic], source: &Source) {
        match warnings {
            warnings if self.json() => report::warnings_as_json(warnings, source),
            [] => {}
            _ if self.quiet => {}
            warnings if self.is_rawjson() => {
                report::as_it_is(&warnings_as_rawjson(warnings));
            }
            warnings => report::warnings(warnings, source),
        }
    }

    fn finish(&self, session: &mut Session<'_>, built: &Built, shows_id: bool) -> Result<()> {
        self.warn(&built.warnings, &built.source);
        if let Some(path) = set(self.metadata_file.as_ref()) {
            let mut told = built.image.as_ref().map_or_else(|| serde_json::json!({}), BuiltImage::metadata);
            // BUILDER/NODE/BUILD, as buildx has it.
            told["buildx.build.ref"] = format!("{0}/{0}/{1}", builders::NAME, built.name).into();
            let text = serde_json::to_string_pretty(&told).expect("names and digests always serialise");
            let written = |e| boxwright_cache::Error::io("writing", path)(e).into();
            write_file(path, |out| out.write_all(text.as_bytes()).map_err(written))?;
        }
        let Some(image) = &built.image else { return Ok(()) };
        if let Some(path) = set(self.iidfile.as_ref()) {
            std::fs::write(path, image.id.to_string()).map_err(Error::io("writing", path))?;
        }
        if shows_id { session.print(image.id) } else { Ok(()) }
    }
}

/// A device or a pipe stays.
fn remove_earlier(path: &Path) -> Result<()> {
    let is_result = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() || found.is_symlink());
    if is_result { std::fs::remove_file(path).map_err(Error::io("removing", path)) } else { Ok(()) }
}

/// As buildx has it, an empty text is none.
fn given(texts: &[String]) -> impl Iterator<Item = &String> {
    texts.iter().filter(|text| !text.is_empty())
}

/// As docker has it, an empty path is none: scripts pass what their variables hold.
fn set(path: Option<&PathBuf>) -> Option<&PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// One that may be empty, for none.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The step whose failure is the build's, if what it left is kept.
fn kept(error: &Error) -> Option<Kept> {
    match error {
        Error::Build(failure) | Error::BuildAsJson(failure) => failure.kept(),
        _ => None,
    }
}

/// A name without a value takes that of the variable; without one, it is as if the flag were not there.
fn build_args(args: &[String]) -> BTreeMap<String, String> {
    let value = |arg: &String| match arg.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((arg.clone(), config::variable(arg)?)),
    };
    let mut all: BTreeMap<String, String> = args.iter().filter_map(value).collect();
    // As buildx has it: reproducible-builds.org's variable is an argument of every build.
    if let Some(value) = config::variable(EPOCH).filter(|value| !value.is_empty()) {
        all.entry(EPOCH.to_owned()).or_insert(value);
    }
    all
}

/// And those of `config.json`; one that is given, in either spelling and even without a value, stands for both.
fn with_proxies(mut args: BTreeMap<String, String>, given: &[String]) -> BTreeMap<String, String> {
    let named = |name: &str| {
        given.iter().any(|arg| arg.split('=').next().is_some_and(|arg| arg.eq_ignore_ascii_case(name)))
    };
    let mut proxies = config::proxies_of_containers();
    proxies.retain(|(name, _)| !named(name));
    args.extend(proxies);
    args
}

fn contexts(contexts: &[String]) -> Result<Vec<(String, String)>> {
    let parse = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::invalid(format!("invalid context value: {text}, expected key=value"))),
    };
    contexts.iter().map(parse).collect()
}

fn labels(labels: &[String]) -> Result<BTreeMap<String, String>> {
    let parse = |label: &String| match label.split_once('=').unwrap_or((label, "")) {
        ("", _) => Err(Error::invalid(format!("invalid label {label:?}: empty name"))),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    };
    labels.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_argument_without_a_value_takes_the_variable_of_that_name() {
        let args = build_args(&["A=1=2".into(), "PATH".into(), "NO_SUCH_VARIABLE_HERE".into(), "E=".into()]);
        assert_eq!(args.get("A").map(String::as_str), Some("1=2"));
        assert_eq!(args.get("PATH").cloned(), config::variable("PATH"));
        assert_eq!(args.get("E").map(String::as_str), Some(""));
        assert!(!args.contains_key("NO_SUCH_VARIABLE_HERE"));
    }

    #[test]
    fn labels_may_lack_a_value_but_not_a_name() {
        assert_eq!(labels(&["a=b=c".into(), "d".into()]).unwrap()["a"], "b=c");
        assert!(labels(&["=x".into()]).is_err());
    }
}
