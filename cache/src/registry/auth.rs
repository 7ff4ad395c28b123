//! What a registry's challenge says (bearer tokens by distribution's "token" authentication, and basic), and what was
//! sent to answer it. That belongs to one origin, repository and set of actions, and goes nowhere else (R7).

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

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
    /// Empty for what belongs to no repository.
    pub(super) repository: String,
    pub(super) actions: Actions,
    /// Another repository that is read for this one.
    pub(super) from: Option<String>,
}

impl Scope {
    /// What a token has to allow.
    fn needs(&self) -> Vec<String> {
        let own = (!self.repository.is_empty())
            .then(|| format!("repository:{}:{}", self.repository, self.actions.names()));
        let other = self.from.iter().map(|from| format!("repository:{from}:{}", Actions::Pull.names()));
        own.into_iter().chain(other).collect()
    }
}

/// What goes into the `Authorization` header. Its text is never printed.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn basic(user: &str, password: &str) -> Token {
        Token(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    pub(super) fn bearer(text: &str) -> Token {
        Token(format!("Bearer {text}"))
    }

    pub(super) fn header(&self) -> &str {
        &self.0
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

    pub(super) fn put(&self, scope: Scope, token: Token, life: Duration) {
        let end = Instant::now() + life.saturating_sub(MARGIN).max(Duration::from_secs(1));
        self.0.lock().unwrap_or_else(|e| e.into_inner()).insert(scope, (token, end));
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
    /// A number of seconds, or what some servers take for that.
    #[serde(default)]
    expires_in: Value,
    refresh_token: Option<String>,
}

impl TokenAnswer {
    pub(super) fn life(&self) -> Duration {
        self.expires_in.as_u64().map_or(DEFAULT_LIFE, |s| Duration::from_secs(s.clamp(1, 86_400)))
    }

    pub(super) fn token(&self) -> Option<Token> {
        let text = self.token.as_ref().or(self.access_token.as_ref()).filter(|t| !t.is_empty())?;
        Some(Token::bearer(text))
    }

    /// What may be sent instead of a password from now on.
    pub(super) fn identity(self) -> Option<String> {
        self.refresh_token.filter(|token| !token.is_empty())
    }
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

    pub(super) fn is_basic(&self) -> bool {
        self.scheme == "basic"
    }

    pub(super) fn realm(&self) -> Option<&str> {
        self.parameters.get("realm").map(String::as_str)
    }

    pub(super) fn service(&self) -> Option<&str> {
        self.parameters.get("service").map(String::as_str)
    }

    /// What a token has to allow: what `scope` needs, and what the registry asks for besides.
    pub(super) fn scopes(&self, scope: &Scope) -> Vec<String> {
        let mut all = scope.needs();
        let asked = self.parameters.get("scope").map_or("", String::as_str);
        for asked in asked.split_ascii_whitespace() {
            if !all.iter().any(|known| covers(known, asked)) {
                all.push(asked.to_owned());
            }
        }
        all
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

/// Whether `wide` (`repository:a:pull,push`) allows all that `narrow` does.
fn covers(wide: &str, narrow: &str) -> bool {
    let (Some((thing, actions)), Some((other, wanted))) = (wide.rsplit_once(':'), narrow.rsplit_once(':'))
    else {
        return wide == narrow;
    };
    thing == other && wanted.split(',').all(|action| actions.split(',').any(|a| a == action))
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
        Scope { origin, repository: "a/b".into(), actions: Actions::Push, from: None }
    }

    #[test]
    fn challenges_are_read_with_their_quotes_and_commas() {
        let header = r#"Bearer realm="https://auth.example/token?x=1,2",service=reg,scope="repository:a/b:pull", Basic realm="a \"b\"""#;
        let challenges = Challenge::parse(header);
        assert_eq!(challenges.len(), 2);
        assert!(challenges[0].is_bearer() && !challenges[1].is_bearer());
        assert_eq!(challenges[0].realm(), Some("https://auth.example/token?x=1,2"));
        assert_eq!(challenges[1].realm(), Some(r#"a "b""#));
        assert_eq!(challenges[0].service(), Some("reg"));
    }

    #[test]
    fn a_token_is_for_what_is_needed_and_for_what_the_registry_wants_besides() {
        let scopes = |header: &str, scope: &Scope| Challenge::parse(header)[0].scopes(scope);
        assert_eq!(scopes("bearer realm=https://auth.example/t", &scope()), ["repository:a/b:pull,push"]);
        let narrower = r#"Bearer scope="repository:a/b:pull repository:a/b:delete plugin""#;
        let all = ["repository:a/b:pull,push", "repository:a/b:delete", "plugin"];
        assert_eq!(scopes(narrower, &scope()), all);
        let mount = Scope { from: Some("c".into()), ..scope() };
        assert_eq!(scopes("Bearer x=y", &mount), ["repository:a/b:pull,push", "repository:c:pull"]);
        let nothing = Scope { repository: String::new(), ..scope() };
        assert!(scopes("Bearer x=y", &nothing).is_empty());
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in ["", ",,,", "realm=\"x\"", "=", "\"", "Bearer realm=\"open"] {
            assert!(Challenge::parse(text).iter().all(|c| c.realm().is_none_or(|r| r == "open")), "{text}");
        }
    }

    #[test]
    fn a_life_that_cannot_be_read_is_the_usual_one() {
        let life = |expires_in: &str| {
            let answer = format!(r#"{{"token":"t"{expires_in}}}"#);
            serde_json::from_str::<TokenAnswer>(&answer).unwrap().life().as_secs()
        };
        assert_eq!(life(r#","expires_in":300"#), 300);
        assert_eq!(life(r#","expires_in":0"#), 1);
        for text in ["", "null", r#""300""#, "-1", "300.5", "1e30", "[]"] {
            let field = if text.is_empty() { String::new() } else { format!(r#","expires_in":{text}"#) };
            assert_eq!(life(&field), 60, "{text}");
        }
    }

    #[test]
    fn tokens_stay_in_their_scope_and_out_of_print() {
        let tokens = Tokens::default();
        let answer: TokenAnswer = serde_json::from_str(r#"{"token":"secret"}"#).unwrap();
        let token = answer.token().unwrap();
        tokens.put(scope(), token.clone(), answer.life());
        assert_eq!(token.header(), "Bearer secret");
        assert!(!format!("{token:?} {tokens:?}").contains("secret"));
        assert!(tokens.get(&scope()).is_some());
        assert!(tokens.get(&Scope { actions: Actions::Pull, ..scope() }).is_none());
        assert!(tokens.get(&Scope { repository: "a".into(), ..scope() }).is_none());
        tokens.forget(&scope());
        assert!(tokens.get(&scope()).is_none());
    }
}
