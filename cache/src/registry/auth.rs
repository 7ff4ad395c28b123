//! Anonymous bearer tokens (distribution-spec "token" authentication): what a registry's challenge says, and the
//! tokens it led to. A token belongs to one origin, repository and set of actions, and goes nowhere else (R7).

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::origin::Origin;

/// What a request does to a repository, and so what its token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Actions {
    Pull,
    Push,
}

impl Actions {
    fn names(self) -> &'static str {
        match self {
            Actions::Pull => "pull",
            Actions::Push => "pull,push",
        }
    }
}

/// Where a token may be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) origin: Origin,
    pub(super) repository: String,
    pub(super) actions: Actions,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:{}", self.repository, self.actions.names())
    }
}

/// A bearer token. Its text is never printed.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Scope, (Token, Instant)>>);

/// Tokens live this long when their server does not say (distribution, "Token Response Fields").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is renewed this long before its end, so that it does not run out on the way.
const MARGIN: Duration = Duration::from_secs(5);

impl Tokens {
    pub(super) fn get(&self, scope: &Scope) -> Option<Token> {
        let tokens = self.0.lock().unwrap_or_else(|e| e.into_inner());
        tokens.get(scope).filter(|(_, end)| Instant::now() < *end).map(|(token, _)| token.clone())
    }

    pub(super) fn put(&self, scope: Scope, answer: TokenAnswer) -> Option<Token> {
        let life = answer.expires_in.map_or(DEFAULT_LIFE, |s| Duration::from_secs(s.clamp(1, 86_400)));
        let end = Instant::now() + life.saturating_sub(MARGIN).max(Duration::from_secs(1));
        let text = answer.token.or(answer.access_token).filter(|t| !t.is_empty())?;
        let token = Token(text);
        self.0.lock().unwrap_or_else(|e| e.into_inner()).insert(scope, (token.clone(), end));
        Some(token)
    }

    pub(super) fn forget(&self, scope: &Scope) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).remove(scope);
    }
}

/// What a token server answers; OAuth2 calls the same thing `access_token`.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    scheme: String,
    parameters: HashMap<String, String>,
}

impl Challenge {
    pub(super) fn is_bearer(&self) -> bool {
        self.scheme == "bearer"
    }

    pub(super) fn realm(&self) -> Option<&str> {
        self.parameters.get("realm").map(String::as_str)
    }

    /// The query of the token request: the challenge's own service and scope, else what `scope` needs.
    pub(super) fn query(&self, scope: &Scope) -> Vec<(&'static str, String)> {
        let asked = self.parameters.get("scope").filter(|s| !s.is_empty());
        let scope = asked.cloned().unwrap_or_else(|| scope.to_string());
        let service = self.parameters.get("service").map(|s| ("service", s.clone()));
        service.into_iter().chain([("scope", scope)]).collect()
    }

    /// All challenges of one header value.
    pub(super) fn parse(header: &str) -> Vec<Challenge> {
        let mut challenges: Vec<Challenge> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(word_end);
            if word.is_empty() {
                return challenges;
            }
            match (tail.strip_prefix('='), challenges.last_mut()) {
                (Some(value), Some(challenge)) => {
                    let (value, after) = parameter_value(value);
                    challenge.parameters.insert(word.to_ascii_lowercase(), value);
                    rest = after;
                }
                // A parameter before any scheme is no challenge at all.
                (Some(_), None) => return challenges,
                (None, _) => {
                    challenges.push(Challenge { scheme: word.to_ascii_lowercase(), ..Challenge::default() });
                    rest = tail;
                }
            }
        }
    }
}

/// A token or quoted string at the start of `text`, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let origin = Origin::of_url(&"https://r.example/".parse().unwrap()).unwrap();
        Scope { origin, repository: "a/b".into(), actions: Actions::Push }
    }

    #[test]
    fn challenges_are_read_with_their_quotes_and_commas() {
        let header = r#"Bearer realm="https://auth.example/token?x=1,2",service=reg,scope="repository:a/b:pull", Basic realm="a \"b\"""#;
        let challenges = Challenge::parse(header);
        assert_eq!(challenges.len(), 2);
        assert!(challenges[0].is_bearer() && !challenges[1].is_bearer());
        assert_eq!(challenges[0].realm(), Some("https://auth.example/token?x=1,2"));
        assert_eq!(challenges[1].realm(), Some(r#"a "b""#));
        let query = challenges[0].query(&scope());
        assert_eq!(query, [("service", "reg".into()), ("scope", "repository:a/b:pull".into())]);
    }

    #[test]
    fn a_challenge_without_scope_asks_for_what_the_request_needs() {
        let challenge = &Challenge::parse("bearer realm=https://auth.example/t")[0];
        assert_eq!(challenge.query(&scope()), [("scope", "repository:a/b:pull,push".into())]);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in ["", ",,,", "realm=\"x\"", "=", "\"", "Bearer realm=\"open"] {
            assert!(Challenge::parse(text).iter().all(|c| c.realm().is_none_or(|r| r == "open")), "{text}");
        }
    }

    #[test]
    fn tokens_stay_in_their_scope_and_out_of_print() {
        let tokens = Tokens::default();
        let answer = TokenAnswer { token: Some("secret".into()), access_token: None, expires_in: None };
        let token = tokens.put(scope(), answer).unwrap();
        assert_eq!(token.header(), "Bearer secret");
        assert!(!format!("{token:?} {tokens:?}").contains("secret"));
        assert!(tokens.get(&scope()).is_some());
        assert!(tokens.get(&Scope { actions: Actions::Pull, ..scope() }).is_none());
        assert!(tokens.get(&Scope { repository: "a".into(), ..scope() }).is_none());
        tokens.forget(&scope());
        assert!(tokens.get(&scope()).is_none());
    }
}
