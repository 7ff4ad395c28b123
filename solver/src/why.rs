//! Why a step ran, or did not: its key's field list beside that of the nearest step of earlier builds. Pure: the
//! records come from whoever asks, and words for people are theirs.

use std::collections::HashMap;

use boxwright_cache::record::{CacheKey, FileChanges};
use serde::Serialize;

use crate::How;
use crate::key::KeyFields;

/// A step of a build that is over.
#[derive(Clone, Debug)]
pub struct PastStep {
    /// The build's name.
    pub build: String,
    /// `[build 2/5] RUN make`.
    pub title: String,
    pub key: CacheKey,
    pub fields: KeyFields,
    pub became: Became,
    /// Of a directory of the host: what differed from the build before.
    pub files: Option<FileChanges>,
    /// The cache of another machine that had it.
    pub origin: Option<String>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    Done(How),
    Failed,
    Canceled,
    /// The build ended before.
    Unreached,
}

impl Became {
    const ALL: [(Became, &str); 10] = [
        (Became::Done(How::Free), "given"),
        (Became::Done(How::Cached), "cached"),
        (Became::Done(How::Imported), "imported"),
        (Became::Done(How::CachedByContents), "cached by contents"),
        (Became::Done(How::Ran), "ran"),
        (Became::Done(How::Forced), "forced"),
        (Became::Done(How::Substituted), "substituted"),
        (Became::Failed, "failed"),
        (Became::Canceled, "canceled"),
        (Became::Unreached, "unreached"),
    ];

    pub fn as_str(self) -> &'static str {
        Became::ALL.iter().find(|(became, _)| *became == self).map_or("", |(_, text)| text)
    }

    /// None for a word of another version.
    pub fn parse(text: &str) -> Option<Became> {
        Became::ALL.iter().find(|(_, known)| *known == text).map(|(became, _)| *became)
    }

    /// Whether its work was done, or begun.
    pub fn ran(self) -> bool {
        matches!(
            self,
            Became::Done(How::Ran | How::Forced | How::Substituted) | Became::Failed | Became::Canceled
        )
    }
}

/// Why a step ran or was cached. Builds are given by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Why {
    /// It needed no work: a source, or nothing that had to be made needed it.
    Given,
    /// Everything was as in this build, if that is still known.
    Cached { build: Option<String> },
    /// It was in this cache of another machine.
    Imported { from: String },
    /// Steps before it ran, and what it reads of them is what it was.
    CachedByContents,
    /// Its instruction may not be cached in this build: `--no-cache`.
    Forced,
    /// This build had its result, which was removed since.
    Evicted { build: String },
    /// Steps that it stands on had to run, and gave something else.
    Inputs { steps: Vec<String> },
    /// It is like a step of this build, but for these differences.
    Changed { build: String, step: String, changes: Vec<Change> },
    /// There is no record of anything like it.
    New,
    /// The build ended before.
    Unreached,
}

/// A difference between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// It reads another step, and that was another one.
    Step { field: String, step: String },
    /// Files of the host that it reads.
    Files { files: FileChanges },
    /// A field of the key. Of variables (`env.NAME`) each is a field of its own.
    Field { field: String, before: Option<String>, after: Option<String> },
}

/// Explains `step`. `own` are all steps of its build, `earlier` those of builds before, newest first.
pub fn explain(step: &PastStep, own: &[PastStep], earlier: &[PastStep]) -> Why {
    match step.became {
        Became::Unreached => return Why::Unreached,
        Became::Done(How::Free) => return Why::Given,
        Became::Done(How::CachedByContents) => return Why::CachedByContents,
        Became::Done(How::Forced) => return Why::Forced,
        Became::Done(How::Imported) => {
            return Why::Imported { from: step.origin.clone().unwrap_or_default() };
        }
        _ => {}
    }
    let same = || earlier.iter().filter(|past| past.key == step.key);
    if step.became == Became::Done(How::Cached) {
        let made = same().find(|past| past.became.ran()).or_else(|| same().next_back());
        return Why::Cached { build: made.map(|past| past.build.clone()) };
    }
    if let Some(past) = same().find(|past| matches!(past.became, Became::Done(_))) {
        let remade = remade_inputs(step, own);
        return match remade.is_empty() {
            true => Why::Evicted { build: past.build.clone() },
            false => Why::Inputs { steps: remade },
        };
    }
    match nearest(step, earlier) {
        Some(past) => Why::Changed {
            build: past.build.clone(),
            step: past.title.clone(),
            changes: changes(step, past, own),
        },
        None => Why::New,
    }
}

/// The steps that a step reads and whose own keys say nothing of their results: they, or what they stand on, had to run.
fn remade_inputs(step: &PastStep, own: &[PastStep]) -> Vec<String> {
    let places: HashMap<CacheKey, usize> = own.iter().enumerate().map(|(i, step)| (step.key, i)).collect();
    let inputs = |step: &PastStep| -> Vec<usize> {
        step.fields.fields.iter().filter_map(|(_, value)| places.get(&as_key(value)?).copied()).collect()
    };
    // A build's steps stand behind those that they read.
    let mut forced = vec![false; own.len()];
    for (i, step) in own.iter().enumerate() {
        forced[i] =
            step.became == Became::Done(How::Forced) || inputs(step).into_iter().any(|input| forced[input]);
    }
    inputs(step).into_iter().filter(|input| forced[*input]).map(|input| own[input].title.clone()).collect()
}

/// A field's value as the key of an input, if it can be one.
fn as_key(value: &str) -> Option<CacheKey> {
    if value.len() != 64 {
        return None;
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(value.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(CacheKey(key))
}

fn read<'a>(value: &str, own: &'a [PastStep]) -> Option<&'a PastStep> {
    let key = as_key(value)?;
    own.iter().find(|input| input.key == key)
}

/// The one of which most is equal, the newest of several: the same instruction, or another one in the same place.
fn nearest<'a>(step: &PastStep, earlier: &'a [PastStep]) -> Option<&'a PastStep> {
    let place = |step: &'a PastStep| field(&step.fields, "root").or_else(|| field(&step.fields, "base"));
    let own_place = field(&step.fields, "root").or_else(|| field(&step.fields, "base"));
    let mut best: Option<(usize, &PastStep)> = None;
    for past in earlier.iter().filter(|past| past.fields.kind == step.fields.kind) {
        let same_text = text(&past.title) == text(&step.title);
        if !same_text && (own_place.is_none() || place(past) != own_place) {
            continue;
        }
        let equal = past.fields.fields.iter().filter(|field| step.fields.fields.contains(field)).count();
        let score = 2 * equal + 3 * usize::from(same_text);
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, past));
        }
    }
    best.map(|(_, past)| past)
}

/// A title without the stage and number before it.
pub(crate) fn text(title: &str) -> &str {
    title.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(title, |(_, text)| text)
}

fn field<'a>(fields: &'a KeyFields, name: &str) -> Option<&'a str> {
    fields.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn changes(step: &PastStep, past: &PastStep, own: &[PastStep]) -> Vec<Change> {
    let (before, after) = (parts(&past.fields), parts(&step.fields));
    let value = |parts: &[(String, String)], name: &str| {
        parts.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
    };
    let mut names: Vec<&String> = after.iter().map(|(name, _)| name).collect();
    names.extend(before.iter().map(|(name, _)| name).filter(|name| value(&after, name).is_none()));
    let mut changes = Vec::new();
    for name in names {
        let (was, is) = (value(&before, name), value(&after, name));
        if was == is {
            continue;
        }
        changes.push(match is.as_deref().and_then(|is| read(is, own)) {
            Some(PastStep { files: Some(files), .. }) => Change::Files { files: files.clone() },
            Some(input) => Change::Step { field: name.clone(), step: input.title.clone() },
            None if name == "selection" && step.files.is_some() => {
                Change::Files { files: step.files.clone().unwrap_or_default() }
            }
            None => Change::Field { field: name.clone(), before: was, after: is },
        });
    }
    changes
}

/// The fields, with each variable as one of its own.
fn parts(fields: &KeyFields) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    for (name, value) in &fields.fields {
        match serde_json::from_str::<Vec<String>>(value) {
            Ok(list) if name == "env" => {
                let variables = list.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
                parts.extend(variables.map(|(name, value)| (format!("env.{name}"), value.to_owned())));
            }
            _ => parts.push((name.clone(), value.clone())),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(
        build: &str,
        title: &str,
        became: Became,
        kind: &'static str,
        fields: &[(&str, &str)],
    ) -> PastStep {
        let fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let fields = KeyFields { kind: kind.into(), fields };
        let key = fields.key(crate::key::Purpose::Definition);
        PastStep { build: build.into(), title: title.into(), key, fields, became, files: None, origin: None }
    }

    fn run(build: &str, became: Became, args: &str, env: &str, root: &PastStep) -> PastStep {
        let (title, root) = (format!("[2/2] RUN {args}"), root.key.to_string());
        step(build, &title, became, "exec/2", &[("args", args), ("env", env), ("root", &root)])
    }

    fn base(build: &str, chain: &str) -> PastStep {
        step(build, "[1/2] FROM x", Became::Done(How::Free), "image/1", &[("chain", chain)])
    }

    const RAN: Became = Became::Done(How::Ran);

    fn field_change(field: &str, before: Option<&str>, after: Option<&str>) -> Change {
        let owned = |value: Option<&str>| value.map(str::to_owned);
        Change::Field { field: field.into(), before: owned(before), after: owned(after) }
    }

    #[test]
    fn what_changed_is_told_by_field_and_variable() {
        let root = base("new", "a");
        let earlier = [run("old", RAN, "make", r#"["A=1","B=2"]"#, &root), root.clone()];
        let again = run("new", RAN, "make", r#"["A=1","B=3","C=4"]"#, &root);
        let Why::Changed { build, changes, .. } = explain(&again, std::slice::from_ref(&root), &earlier)
        else {
            panic!()
        };
        assert_eq!(build, "old");
        assert_eq!(
            changes,
            [field_change("env.B", Some("2"), Some("3")), field_change("env.C", None, Some("4"))]
        );
        let other = run("new", RAN, "make all", r#"["A=1","B=2"]"#, &root);
        let Why::Changed { changes, .. } = explain(&other, &[root], &earlier) else { panic!() };
        assert_eq!(changes, [field_change("args", Some("make"), Some("make all"))]);
    }

    #[test]
    fn a_base_that_moved_is_told_as_the_step_it_is() {
        let (old, new) = (base("old", "a"), base("new", "b"));
        let earlier = [run("old", RAN, "make", "[]", &old), old];
        let again = run("new", RAN, "make", "[]", &new);
        let Why::Changed { changes, .. } = explain(&again, &[new], &earlier) else { panic!() };
        assert_eq!(changes, [Change::Step { field: "root".into(), step: "[1/2] FROM x".into() }]);
    }

    #[test]
    fn files_are_told_by_name() {
        let local = |build: &str, selection: &str| {
            step(
                build,
                "[internal] load build context",
                Became::Done(How::Free),
                "local/1",
                &[("selection", selection)],
            )
        };
        let copy = |build: &str, from: &PastStep| {
            let from = from.key.to_string();
            step(build, "[2/2] COPY . .", RAN, "file/2", &[("base", "b"), ("0.from", &from)])
        };
        let (old, mut new) = (local("old", "1"), local("new", "2"));
        let files = FileChanges::default();
        new.files = Some(files.clone());
        let earlier = [copy("old", &old), old];
        let step = copy("new", &new);
        let Why::Changed { changes, .. } = explain(&step, &[new], &earlier) else { panic!() };
        assert_eq!(changes, [Change::Files { files }]);
    }

    #[test]
    fn a_result_that_is_gone_and_inputs_that_were_forced_are_told_apart() {
        let root = base("new", "a");
        let earlier = [run("old", RAN, "make", "[]", &root)];
        let again = run("new", RAN, "make", "[]", &root);
        assert_eq!(
            explain(&again, std::slice::from_ref(&root), &earlier),
            Why::Evicted { build: "old".into() }
        );
        let forced = PastStep { became: Became::Done(How::Forced), ..root.clone() };
        let steps = vec![forced.title.clone()];
        assert_eq!(explain(&again, std::slice::from_ref(&forced), &earlier), Why::Inputs { steps });
        // Forced through a step that was not.
        let next = run("new", RAN, "next", "[]", &again);
        let steps = vec![again.title.clone()];
        let old = [PastStep { build: "old".into(), ..next.clone() }];
        assert_eq!(explain(&next, &[forced, again.clone()], &old), Why::Inputs { steps });
        let cached = PastStep { became: Became::Done(How::Cached), ..again.clone() };
        assert_eq!(
            explain(&cached, std::slice::from_ref(&root), &earlier),
            Why::Cached { build: Some("old".into()) }
        );
        assert_eq!(explain(&again, &[root], &[]), Why::New);
    }

    #[test]
    fn another_instruction_in_another_place_is_no_record_of_it() {
        let (root, elsewhere) = (base("new", "a"), base("old", "b"));
        let earlier = [run("old", RAN, "other", "[]", &elsewhere)];
        assert_eq!(explain(&run("new", RAN, "make", "[]", &root), &[root], &earlier), Why::New);
    }

    #[test]
    fn every_word_is_understood_again() {
        assert!(
            Became::ALL
                .iter()
                .all(|(became, text)| Became::parse(text) == Some(*became) && became.as_str() == *text)
        );
        assert_eq!(Became::parse("other"), None);
    }
}
