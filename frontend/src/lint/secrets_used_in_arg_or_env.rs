//! SecretsUsedInArgOrEnv: names that look like those of secrets.

use std::borrow::Cow;

use super::{Rule, Scene};
use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::notation::quote;

const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "passwd", "password", "pword", "secret", "token"];
const HARMLESS: [&str; 3] = ["file", "public", "version"];

/// The value of an ENV is in the image for everybody to read, that of an ARG in its history. A secret mount is in
/// neither. A word of the name, between underscores, decides.
///
/// Bad: `ARG AWS_SECRET_ACCESS_KEY`
///
/// Good: `RUN --mount=type=secret,id=aws,env=AWS_SECRET_ACCESS_KEY aws s3 cp ...`
pub(super) const RULE: Rule = Rule::new(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
);

pub(super) fn check(keyword: &str, name: &Word, scene: &Scene<'_>) -> Option<Diagnostic> {
    let text = if keyword == "ENV" { scene.text(name) } else { Cow::Borrowed(name.text.as_str()) };
    let has = |words: &[&str]| text.split('_').any(|part| words.iter().any(|w| part.eq_ignore_ascii_case(w)));
    let message = || {
        let name = quote(&text);
        format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name})")
    };
    (has(&SECRET) && !has(&HARMLESS)).then(|| RULE.at(name.span, message()))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn words_of_the_name_decide() {
        let expected = "SecretsUsedInArgOrEnv 2 Do not use ARG or ENV instructions for sensitive data (ARG \"GITHUB_TOKEN\")";
        assert_eq!(found("FROM x\nARG GITHUB_TOKEN\n"), [expected]);
        assert_eq!(found("FROM x\nENV A=1 passWord=2 api_KEY=3\n").len(), 2);
        assert!(found("FROM x\nARG TOKENS KEYBOARD PUBLIC_KEY TOKEN_FILE AUTH_MODULE_VERSION\n").is_empty());
    }
}
