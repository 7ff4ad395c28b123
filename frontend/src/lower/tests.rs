//! What BuildKit's own tests assert of lowering and no Dockerfile of `testdata` shows.

use std::collections::BTreeMap;

use boxwright_cache::digest::{ChainId, Digest};
use boxwright_cache::oci::ImageConfig;
use boxwright_solver::ir::{ExecOp, ImageSource, Op};

use super::{Bases, Lowered, Options, ResolvedBase, lower, needed_images};
use crate::parse;

/// Lowers `text`, where every image has the config `base`.
fn lowered(text: &str, target: Option<&str>, base: &ImageConfig) -> Result<Lowered, Vec<String>> {
    let parsed = parse(text);
    assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
    let options = Options { target: target.map(str::to_owned), ..Options::default() };
    let words = |found: Vec<crate::Diagnostic>| -> Vec<String> {
        found.into_iter().filter(crate::Diagnostic::is_error).map(|error| error.message).collect()
    };
    let mut bases = Bases::default();
    for request in needed_images(&parsed.dockerfile, &options, &bases).map_err(words)? {
        let manifest = Digest::of(request.name.as_bytes());
        let (name, platform) = (request.name.clone(), request.platform.clone());
        let source = ImageSource { name, manifest, chain: Some(ChainId(manifest)), platform };
        bases.insert(&request, ResolvedBase { source, config: base.clone() });
    }
    lower(&parsed.dockerfile, &options, &bases).map_err(words)
}

fn alone(text: &str) -> Lowered {
    lowered(text, None, &ImageConfig::default()).unwrap()
}

fn errors(text: &str) -> Vec<String> {
    lowered(text, None, &ImageConfig::default()).unwrap_err()
}

fn last_run(lowered: &Lowered) -> &ExecOp {
    let runs = lowered.definition.iter().rev();
    runs.filter_map(|(_, vertex)| if let Op::Exec(exec) = &vertex.op { Some(exec) } else { None })
        .next()
        .unwrap()
}

#[test]
fn a_stage_is_found_by_its_name_in_any_case_and_by_its_index() {
    let text = |from: &str| format!("FROM scratch AS foo\nCOPY f /\nFROM scratch\nCOPY --from={from} f /\n");
    let by_name = alone(&text("foo"));
    for from in ["FOO", "0"] {
        let other = alone(&text(from));
        let ops =
            |lowered: &Lowered| lowered.definition.iter().map(|(_, v)| v.op.clone()).collect::<Vec<_>>();
        assert_eq!(ops(&other), ops(&by_name), "{from}");
    }
    let base = ImageConfig::default();
    assert_eq!(lowered(&text("foo"), Some("Foo"), &base).unwrap().images[0].new_layers.len(), 1);
    assert_eq!(
        lowered(&text("foo"), Some("nosuch"), &base).unwrap_err(),
        ["target stage \"nosuch\" could not be found"]
    );
}

#[test]
fn a_base_without_a_name_is_refused() {
    assert_eq!(errors("FROM \"\" AS foo\n"), ["base name (\"\") should not be blank"]);
    assert_eq!(errors("ARG BLANK\nFROM ${BLANK} AS foo\n"), ["base name (${BLANK}) should not be blank"]);
}

#[test]
fn stages_that_copy_in_a_circle_are_refused() {
    let circle = "circular dependency detected on stage: stage0";
    assert_eq!(errors("FROM busybox AS stage0\nCOPY --from=stage0 f1 /sub/\n"), [circle]);
    let text = "FROM busybox AS stage0\nCOPY --from=stage2 f1 /sub/\nFROM busybox AS stage1\n\
        COPY --from=stage0 f2 /sub/\nFROM busybox AS stage2\nCOPY --from=stage1 f2 /sub/\n";
    assert_eq!(errors(text), [circle]);
}

#[test]
fn a_stage_takes_no_label_of_what_it_copies_from() {
    let mut base = ImageConfig::default();
    base.config.labels.insert("of".into(), "base".into());
    let text = "FROM x AS a\nLABEL of=a only=a\nFROM x\nLABEL mine=1\nCOPY --from=a /f /\n";
    let labels = lowered(text, None, &base).unwrap().images.remove(0).image.config.labels;
    assert_eq!(labels, BTreeMap::from([("mine".into(), "1".into()), ("of".into(), "base".into())]));
}

#[test]
fn a_variable_of_the_base_keeps_its_place() {
    let mut base = ImageConfig::default();
    base.config.env = ["KEY1=v1", "KEY2", "KEY3=v3", "PATH=/bin"].map(str::to_owned).to_vec();
    let image = lowered("FROM x\nENV KEY2=new\nENV KEY4=v4\n", None, &base).unwrap().images.remove(0).image;
    assert_eq!(image.config.env, ["KEY1=v1", "KEY2=new", "KEY3=v3", "PATH=/bin", "KEY4=v4"]);
}

#[test]
fn the_last_env_wins_over_the_args_before_it() {
    let text = "FROM scratch\nARG A=arg\nARG B=first\nARG B=second\nARG UNSET\nENV A=env A=last\nRUN x\n";
    let lowered = alone(text);
    let env = &last_run(&lowered).env;
    assert!(env.contains(&"A=last".to_owned()) && env.contains(&"B=second".to_owned()), "{env:?}");
    assert!(!env.iter().any(|entry| entry.starts_with("UNSET")), "{env:?}");
    let kept = &lowered.images[0].image.config.env;
    assert!(kept.contains(&"A=last".to_owned()) && kept.len() == 2, "{kept:?}");
}

#[test]
fn history_has_a_check_as_docker_prints_it() {
    let text = "FROM scratch\nHEALTHCHECK --interval=1s --timeout=10s --start-period=3s --start-interval=100ms \
        --retries=5 CMD [\"bin\", \"-c\", \"exit 0\"]\n";
    let image = alone(text).images.remove(0).image;
    let expected = "HEALTHCHECK {Test:[CMD bin -c exit 0] Interval:1s Timeout:10s StartPeriod:3s \
        StartInterval:100ms Retries:5}";
    assert_eq!(image.history.last().unwrap().created_by, expected);
}

#[test]
fn a_stage_never_changes_the_one_that_it_builds_on() {
    let set = |n: usize| {
        format!(
            "ENV E=stage{n}\nCMD [\"c{n}\"]\nENTRYPOINT [\"e{n}\"]\nVOLUME /v{n}\nEXPOSE 8{n}\nLABEL l{n}={n}\n\
             ONBUILD USER u{n}\nSHELL [\"s{n}\"]\nHEALTHCHECK CMD [\"h{n}\"]\nWORKDIR /w{n}\nUSER {n}\n"
        )
    };
    let parent = format!("FROM scratch AS parent\n{}", set(1));
    let both = format!("{parent}FROM parent AS child\n{}", set(2));
    let base = ImageConfig::default();
    let of = |text: &str, target: &str| lowered(text, Some(target), &base).unwrap().images.remove(0).image;
    assert_eq!(of(&both, "parent"), of(&parent, "parent"));
    let child = of(&both, "child");
    assert_eq!((child.config.env[1].as_str(), child.config.volumes.len()), ("E=stage2", 2));
    assert_eq!(child.config.on_build, ["USER u2"]);
}
