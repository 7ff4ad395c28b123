//! Every `testdata/dockerfiles/NAME.Dockerfile`, parsed and lowered, is what `NAME.txt` says: diagnostics, graph,
//! history and config. `UPDATE=1` rewrites the expectations. A first line `#test KEY=VALUE …` sets options; with
//! `checks=all` or `checks=target` it is what the checks say, of all stages or of those that the target needs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use boxwright_cache::digest::{ChainId, Digest};
use boxwright_cache::oci::{History, ImageConfig};
use boxwright_frontend::{
    Bases, Diagnostic, LoweredImage, Options, Parsed, ResolvedBase, lower, needed_images, parse,
};
use boxwright_solver::ir::{
    CopyAction, Definition, ExecOp, FileAction, FileOp, FileOwner, Guarded, ImageSource, LocalSource,
    MountSource, Op, SecurityMode, SourceOp, VertexId,
};

#[test]
fn dockerfiles_are_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfiles");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("testdata/dockerfiles can be read")
        .map(|e| e.expect("an entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "Dockerfile"));
    paths.sort();
    assert!(!paths.is_empty(), "no Dockerfile in {}", folder.display());
    let mut wrong = String::new();
    for path in paths {
        let ours = report(&fs::read(&path).expect("a Dockerfile"));
        let expected_path = path.with_extension("txt");
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected_path, &ours).expect("the expectation can be written");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if ours != expected {
            writeln!(wrong, "{}:\n{ours}\n", expected_path.display()).expect("a string");
        }
    }
    assert!(wrong.is_empty(), "not as expected (UPDATE=1 rewrites):\n{wrong}");
}

fn report(text: &[u8]) -> String {
    let parsed = parse(text);
    let mut report = String::new();
    diagnostics(&mut report, &parsed, &parsed.diagnostics);
    if parsed.has_errors() {
        return report;
    }
    let options = options(&parsed.text);
    let checks = parsed.text.starts_with("#test") && first_line(&parsed.text).contains("checks=");
    let told = |list: Vec<Diagnostic>| -> Vec<Diagnostic> {
        list.into_iter().filter(|d| checks || d.is_error()).collect()
    };
    let mut bases = Bases::default();
    loop {
        let requests = match needed_images(&parsed.dockerfile, &options, &bases) {
            Ok(requests) if requests.is_empty() => break,
            Ok(requests) => requests,
            Err(errors) => {
                diagnostics(&mut report, &parsed, &told(errors));
                return report;
            }
        };
        for request in requests {
            writeln!(report, "needs {} for {}", request.name, request.platform).expect("a string");
            let base = image(&request.name, request.platform.clone());
            bases.insert(&request, base);
        }
    }
    match lower(&parsed.dockerfile, &options, &bases) {
        Err(errors) => diagnostics(&mut report, &parsed, &told(errors)),
        Ok(lowered) if checks => diagnostics(&mut report, &parsed, &lowered.diagnostics),
        Ok(lowered) => {
            graph(&mut report, &lowered.definition);
            for built in &lowered.images {
                if lowered.images.len() > 1 {
                    writeln!(report, "for {}", built.platform).expect("a string");
                }
                result(&mut report, built);
            }
        }
    }
    report
}

fn result(report: &mut String, built: &LoweredImage) {
    let layers: Vec<usize> = built.new_layers.iter().map(|id| id.index()).collect();
    writeln!(report, "output {:?} layers {layers:?}", built.output.map(VertexId::index)).expect("a string");
    for entry in &built.image.history {
        let sign = if entry.empty_layer { '-' } else { '+' };
        writeln!(report, "{sign} {}", entry.created_by).expect("a string");
    }
    let config = serde_json::to_string_pretty(&built.image.config).expect("a config is JSON");
    writeln!(report, "{config}").expect("a string");
}

fn diagnostics(report: &mut String, parsed: &Parsed, list: &[Diagnostic]) {
    for d in list {
        let said = &parsed.text[d.span.start..d.span.end];
        writeln!(report, "{:?} line {} `{said}`: {d}", d.severity, d.span.first_line).expect("a string");
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn options(text: &str) -> Options {
    let mut options =
        Options { build_platform: "linux/amd64".parse().expect("a platform"), ..Options::default() };
    let settings = first_line(text).strip_prefix("#test ").unwrap_or_default();
    for (key, value) in settings.split_whitespace().filter_map(|word| word.split_once('=')) {
        match key {
            "checks" => options.all_stages = value == "all",
            "target" => options.target = Some(value.to_owned()),
            "platform" => {
                options.platforms = value.split(',').map(|name| name.parse().expect("a platform")).collect();
            }
            "arg" => {
                let (name, value) = value.split_once('=').expect("arg=NAME=VALUE");
                options.build_args.insert(name.to_owned(), value.to_owned());
            }
            _ => panic!("unknown setting {key}"),
        }
    }
    options
}

/// An image for any name: those that say so have triggers.
fn image(name: &str, platform: boxwright_cache::oci::Platform) -> ResolvedBase {
    let digest = Digest::of(name.as_bytes());
    let mut config = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        history: vec![History { created_by: format!("base {name}"), ..History::default() }],
        ..ImageConfig::default()
    };
    config.config.cmd = Some(vec!["sh".to_owned()]);
    config.config.env = vec!["PATH=/bin".to_owned(), format!("BASE={name}")];
    if name.starts_with("triggers") {
        config.config.on_build = vec!["COPY --from=tools /bin/t /bin/".to_owned(), "RUN t $BASE".to_owned()];
    }
    let source =
        ImageSource { name: name.to_owned(), manifest: digest, chain: Some(ChainId(digest)), platform };
    ResolvedBase { source, config }
}

fn graph(report: &mut String, definition: &Definition) {
    for (id, vertex) in definition.iter() {
        let op = match &vertex.op {
            Op::Source(SourceOp::Image(image)) => format!("image {} {}", image.name, image.platform),
            Op::Source(SourceOp::Local(local)) => local_text(local),
            Op::Source(SourceOp::Http(http)) => format!("{http:?}"),
            Op::Source(SourceOp::Git(git)) => format!("{git:?}"),
            Op::Exec(exec) => exec_text(exec),
            Op::File(file) => file_text(file),
            Op::Merge(merge) => format!("merge #{} over #{}", merge.upper.index(), merge.base.index()),
        };
        let name = vertex.about.name.replace('\n', "\\n");
        let name = name.split("@sha256:").next().expect("a first part");
        writeln!(report, "#{} {name}\n    {op}", id.index()).expect("a string");
    }
}

fn local_text(local: &LocalSource) -> String {
    let text = format!("local {} {:?}", local.name, local.select);
    text + &filter_text(local.below.as_deref(), &local.exclude)
}

fn filter_text(below: Option<&str>, exclude: &[String]) -> String {
    let below = below.map_or_else(String::new, |below| format!(" below {below:?}"));
    let without = if exclude.is_empty() { String::new() } else { format!(" without {exclude:?}") };
    below + &without
}

fn root(id: Option<VertexId>) -> String {
    id.map_or_else(|| "scratch".to_owned(), |id| format!("#{}", id.index()))
}

fn exec_text(exec: &ExecOp) -> String {
    let mut text = format!(
        "exec on {} {:?} env {:?} cwd {} user {:?} net {:?}",
        root(exec.root),
        exec.args,
        exec.env,
        exec.cwd,
        exec.user,
        exec.network
    );
    if !exec.unkeyed_env.0.is_empty() {
        write!(text, " unkeyed {:?}", exec.unkeyed_env.0).expect("a string");
    }
    for mount in &exec.mounts {
        let source = match &mount.source {
            MountSource::Inline { data, mode } => format!("{:?} {mode:o}", String::from_utf8_lossy(data)),
            MountSource::Bind(bind) => format!("bind {} {}", root(bind.from), bind.selector),
            MountSource::Cache(cache) => format!(
                "cache {:?} {:?} from {} {} {}",
                cache.id,
                cache.sharing,
                root(cache.from),
                cache.selector,
                owned(cache.owner)
            ),
            MountSource::Tmpfs { size } => format!("tmpfs {size:?}"),
            MountSource::Secret(Guarded { id, required, owner }) => {
                format!("secret {id:?} required={required} {}", owned(*owner))
            }
            MountSource::Ssh(Guarded { id, required, owner }) => {
                format!("ssh {id:?} required={required} {}", owned(*owner))
            }
        };
        write!(text, " mount {} {source} ro={}", mount.target, mount.read_only).expect("a string");
    }
    for secret in &exec.secret_env {
        write!(text, " secret {:?} in {} required={}", secret.id, secret.name, secret.required)
            .expect("a string");
    }
    if exec.security != SecurityMode::Sandbox {
        write!(text, " security {:?}", exec.security).expect("a string");
    }
    for device in &exec.devices {
        write!(text, " device {} required={}", device.name, device.required).expect("a string");
    }
    text
}

fn copy_text(copy: &CopyAction) -> String {
    let text = format!(
        "copy {} {:?} to {} owner {:?} mode {:?} unpack {}",
        root(copy.from),
        copy.sources,
        copy.dest,
        copy.owner.as_ref().map(|o| &o.0),
        copy.mode.as_ref().map(ToString::to_string),
        copy.unpack
    );
    text + &filter_text(copy.below.as_deref(), &copy.exclude)
}

fn owned(owner: FileOwner) -> String {
    let FileOwner { mode, uid, gid } = owner;
    format!("mode {:?} owner {uid:?}:{gid:?}", mode.map(|mode| format!("{mode:o}")))
}

fn file_text(file: &FileOp) -> String {
    let owner = |owner: &Option<boxwright_solver::ir::OwnerSpec>| owner.as_ref().map(|o| o.0.clone());
    let actions: Vec<String> = file
        .actions
        .iter()
        .map(|action| match action {
            FileAction::Copy(copy) => copy_text(copy),
            FileAction::Mkdir(mkdir) => {
                format!("mkdir {} {:o} {:?}", mkdir.path, mkdir.mode, owner(&mkdir.owner))
            }
            FileAction::Mkfile(file) => format!(
                "mkfile {} in {} {} {:?} {:?}",
                file.name,
                file.dest,
                file.mode.as_ref().map_or_else(|| "0644".to_owned(), ToString::to_string),
                owner(&file.owner),
                String::from_utf8_lossy(&file.data)
            ),
        })
        .collect();
    format!("file on {} {}", root(file.base), actions.join("; "))
}
