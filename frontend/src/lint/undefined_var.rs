//! UndefinedVar: a variable that nothing sets.

use boxwright_solver::Span;

use super::{Rule, Scene};
use crate::ast::{Copy, Instruction, Kind, Word};
use crate::diagnostic::{Diagnostic, nearest_variable};
use crate::syntax::{Lexer, Mode};

/// A variable that neither the stage nor its base sets is empty; it mostly is misspelt, or an ARG before the first FROM
/// that the stage does not repeat. An ARG without a value counts as set. RUN, CMD and ENTRYPOINT are not looked at:
/// their variables are the shell's.
///
/// Where nobody could look at the base image, a name in capitals may well be one that it sets: then only what looks like
/// a misspelt name is told.
///
/// Bad:
/// ```text
/// FROM alpine
/// COPY $src .
/// ```
/// Good:
/// ```text
/// FROM alpine
/// ARG src
/// COPY $src .
/// ```
pub(super) const RULE: Rule =
    Rule::new("UndefinedVar", "undefined-var", "Variables should be defined before their use");

/// Steer BuildKit's SBOM scanner and are never in an environment.
const NEVER_SET: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

pub(super) fn check(instruction: &Instruction, scene: &Scene<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Kind::Arg(args) = &instruction.kind {
        for (at, arg) in args.iter().enumerate() {
            let before = |name: &str| args[..at].iter().any(|arg| arg.name.text == name);
            found.extend(arg.default.iter().flat_map(|word| of_word(word, scene, &before)));
        }
        return found;
    }
    each_word(&instruction.kind, &mut |word| found.extend(of_word(word, scene, &|_| false)));
    if let Kind::Run(run) = &instruction.kind {
        for (mount, option) in run.mounts.iter().flat_map(|m| m.options.iter().map(move |option| (m, option)))
        {
            let value = option.split_once('=').map_or("", |(_, value)| value);
            found.extend(undefined(scene.lexer, value, mount.span, scene, &|_| false));
        }
    }
    if let Kind::Copy(copy) | Kind::Add(copy) = &instruction.kind {
        let lexer = Lexer::new('\\').mode(Mode { literal_quotes: true, ..Mode::PLAIN });
        for document in copy.contents.iter().filter(|document| document.expand) {
            found.extend(undefined(lexer, &document.content, instruction.span, scene, &|_| false));
        }
    }
    found
}

/// Hands the words in which variables are expanded to `each`.
fn each_word(kind: &Kind, each: &mut dyn FnMut(&Word)) {
    match kind {
        Kind::Env(pairs) | Kind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).for_each(each);
        }
        Kind::Copy(copy) | Kind::Add(copy) => copied(copy).for_each(each),
        Kind::Volume(words) => words.iter().for_each(each),
        Kind::Stopsignal(word) | Kind::User(word) | Kind::Workdir(word) => each(word),
        _ => {}
    }
}

fn copied(copy: &Copy) -> impl Iterator<Item = &Word> {
    let flags = [&copy.chown, &copy.chmod, &copy.checksum];
    let flags = flags.into_iter().flatten().chain(&copy.exclude);
    flags.chain(&copy.sources).chain([&copy.dest])
}

fn of_word(word: &Word, scene: &Scene<'_>, declared: &dyn Fn(&str) -> bool) -> Vec<Diagnostic> {
    undefined(scene.lexer, &word.text, word.span, scene, declared)
}

/// `span` is that of the words that `text` is part of.
fn undefined(
    lexer: Lexer,
    text: &str,
    span: Span,
    scene: &Scene<'_>,
    declared: &dyn Fn(&str) -> bool,
) -> Vec<Diagnostic> {
    if !text.contains('$') {
        return Vec::new();
    }
    let expansion = lexer.expand(text, scene.variables).unwrap_or_default();
    let known = |name: &str| (scene.declared)(name) || declared(name) || NEVER_SET.contains(&name);
    let found = expansion.unmatched.iter().filter(|name| !known(name)).filter_map(|name| {
        let meant = nearest_variable(name, (scene.names)());
        let of_the_base = scene.unknown_base && meant.is_none() && !name.contains(char::is_lowercase);
        let suggestion = meant.map(|meant| format!("${meant}"));
        let message = format!("Usage of undefined variable '${name}'");
        (!of_the_base).then(|| Diagnostic { suggestion, ..RULE.at(span, message) })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_variable_is_set_before_it_is_used() {
        let expected = "UndefinedVar 2 Usage of undefined variable '$src'";
        for line in [
            "COPY $src .",
            "ADD --chown=$src a .",
            "ENV A=$src",
            "ARG A=$src",
            "LABEL $src=a",
            "USER ${src}",
            "VOLUME /a$src",
            "WORKDIR /$src",
            "RUN --mount=type=cache,target=/a$src a",
            "COPY <<E /a\n$src\nE",
        ] {
            assert_eq!(found(&format!("FROM scratch\n{line}\nARG src")), [expected], "{line}");
            assert!(found(&format!("FROM scratch\nARG src\n{line}")).is_empty(), "{line}");
        }
        assert!(found("FROM scratch\nARG src b=$src\nRUN $other\nCMD [\"$other\"]").is_empty());
        assert!(found("FROM scratch\nCOPY <<'E' /a\n$src\nE\n").is_empty());
    }

    #[test]
    fn a_misspelt_name_is_told() {
        let expected = "UndefinedVar 2 Usage of undefined variable '$PAHT' (did you mean $PATH?)";
        assert_eq!(found("FROM x\nENV PATH=$PAHT:/bin\n"), [expected]);
    }

    #[test]
    fn a_base_that_nobody_knows_may_set_what_is_in_capitals() {
        assert!(found("FROM python\nARG V=$PYTHON_VERSION\n").is_empty());
        assert_eq!(found("FROM scratch\nARG V=$PYTHON_VERSION\n").len(), 1);
        assert_eq!(found("FROM python\nARG V=$python_version\n").len(), 1);
    }
}
