//! One HTTP exchange with a registry, done right: scheme, token, redirects, retries, time limits and error text.
//! Redirects are followed here and never by the HTTP library, so that no token travels with them (R7).

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::Options;
use super::auth::{Actions, Scope, Token, Tokens};
use super::body::Incoming;
use super::hosts::Trust;
use super::login::Credentials;
use super::origin::{Origin, is_loopback};
use super::reason::{reason_of, registry_error};
use crate::error::{Error, Result};
use crate::oci::Reference;

/// How often a request is sent at most when the server or the way to it fails.
const MAX_TRIES: u32 = 4;
const MAX_REDIRECTS: u32 = 10;
/// A server that wants a longer pause than this gets its refusal reported instead.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
const MAX_ERROR_BODY: usize = 16 << 10;
/// A server's words are not waited for longer than this.
const MAX_ERROR_WAIT: Duration = Duration::from_secs(10);

/// One request that may be sent more than once, and what to call it in an error.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) scope: Scope,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    /// Small, and empty for most.
    pub(super) body: Vec<u8>,
    pub(super) registry: String,
    /// "fetching manifest of busybox:latest".
    pub(super) doing: String,
    /// What a 404 means: the kind of thing and its name.
    pub(super) thing: (&'static str, String),
}

impl Ask {
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        registry_error(&self.registry, &self.doing, reason.into())
    }
}

/// Why an exchange failed, and whether another try makes sense (after what pause, if the server said).
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Option<Option<Duration>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, again: None }
    }
}

#[derive(Debug)]
pub(super) struct Transport {
    pub(super) options: Options,
    /// Made when they are needed: loading the CA certificates takes longer than a whole local pull.
    clients: Mutex<HashMap<Trust, Client>>,
    /// What was found out about registries on this machine.
    loopback: Mutex<HashMap<String, Origin>>,
    failed_mirrors: Mutex<HashSet<String>>,
    pub(super) tokens: Tokens,
    /// What was found out about who we are to a registry. Asking can mean to run a program, so it is done once.
    pub(super) logins: tokio::sync::Mutex<HashMap<String, Option<Credentials>>>,
}

impl Transport {
    pub(super) fn new(options: Options) -> Transport {
        Transport {
            options,
            clients: Mutex::default(),
            loopback: Mutex::default(),
            failed_mirrors: Mutex::default(),
            tokens: Tokens::default(),
            logins: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.options.idle_timeout
    }

    /// A request for `/v2/REPOSITORY/path`.
    pub(super) async fn ask(
        &self,
        reference: &Reference,
        method: Method,
        actions: Actions,
        path: &str,
        doing: String,
    ) -> Result<Ask> {
        let registry = reference.registry().to_owned();
        let origin = self.origin(&registry).await?;
        let url = origin.url(&format!("/v2/{}/{path}", reference.repository()))?;
        let scope = Scope { origin, repository: reference.repository().to_owned(), actions, from: None };
        let thing = ("image", reference.familiar());
        Ok(Ask { method, scope, url, headers: Vec::new(), body: Vec::new(), registry, doing, thing })
    }

    /// Sends the request until it succeeds, is refused for good, or has been tried often enough.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Response> {
        let mut pause = Duration::from_millis(250);
        for _ in 1..MAX_TRIES {
            match self.exchange(ask).await {
                Ok(response) => return Ok(response),
                Err(Failure { error, again: None }) => return Err(error),
                Err(Failure { again: Some(wanted), .. }) => tokio::time::sleep(wanted.unwrap_or(pause)).await,
            }
            pause *= 2;
        }
        self.exchange(ask).await.map_err(|failure| failure.error)
    }

    /// Sends once, with a token if one is needed, and follows redirects.
    async fn exchange(&self, ask: &Ask) -> Result<Response, Failure> {
        let mut response = self.once(ask, ask.url.clone(), self.tokens.get(&ask.scope).as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.tokens.forget(&ask.scope);
            let token = self.token(ask, &response).await?;
            response = self.once(ask, ask.url.clone(), Some(&token)).await?;
        }
        for _ in 0..MAX_REDIRECTS {
            let Some(target) = self.redirect_target(ask, &response)? else {
                return check_status(ask, response).await;
            };
            response = self.once(ask, target, None).await?;
        }
        Err(ask.error(format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    pub(super) async fn once(&self, ask: &Ask, url: Url, token: Option<&Token>) -> Result<Response, Failure> {
        let client = self.client(ask, &url)?;
        let mut request = client.request(ask.method.clone(), url);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if !ask.body.is_empty() {
            request = request.body(ask.body.clone());
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, authorization(ask, token)?);
        }
        match tokio::time::timeout(self.options.idle_timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            // Nobody listens, or nobody is there: that is not a passing failure.
            Ok(Err(e)) if e.is_connect() => Err(ask.error(reason_of(e)).into()),
            Ok(Err(e)) => Err(Failure { error: ask.error(reason_of(e)), again: Some(None) }),
            Err(_) => Err(Failure { error: ask.error("no answer in time"), again: Some(None) }),
        }
    }

    /// The authorisation header for `ask`, if it has a token; for requests that are sent elsewhere.
    pub(super) fn authorization(&self, ask: &Ask, url: &Url) -> Result<Option<HeaderValue>> {
        if !self.is_own(ask, url) {
            return Ok(None);
        }
        self.tokens.get(&ask.scope).map(|token| authorization(ask, &token)).transpose()
    }

    /// Whether `url` is the registry's own.
    pub(super) fn is_own(&self, ask: &Ask, url: &Url) -> bool {
        Origin::of_url(url).as_ref() == Some(&ask.scope.origin)
    }

    /// The client for the later requests of an upload, which go where the registry said.
    pub(super) fn upload_client(&self, ask: &Ask, url: &Url, alone: bool) -> Result<Client> {
        if !self.may_be_asked(ask, url) {
            return Err(ask.error(format!("an upload to {}://, which is not safe", url.scheme())));
        }
        self.client_alone(ask, url, alone)
    }

    /// `response` if it is a success, else the error it stands for.
    pub(super) async fn accept(&self, ask: &Ask, response: Response) -> Result<Response, Failure> {
        check_status(ask, response).await
    }

    /// The headers and the whole body of what `ask` asks for, again if the body breaks off.
    pub(super) async fn fetch(&self, ask: &Ask, limit: u64) -> Result<(HeaderMap, Vec<u8>)> {
        let mut tries = 1;
        loop {
            let response = self.send(ask).await?;
            let headers = response.headers().clone();
            match self.read(ask, response, limit).await {
                Ok(body) => return Ok((headers, body)),
                Err(Failure { again: Some(_), .. }) if tries < MAX_TRIES => tries += 1,
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// The whole body, which must not be longer than `limit` bytes.
    pub(super) async fn read(&self, ask: &Ask, response: Response, limit: u64) -> Result<Vec<u8>, Failure> {
        let too_long = || Failure::from(ask.error(format!("the answer is longer than {limit} bytes")));
        let broken = |reason: String| Failure { error: ask.error(reason), again: Some(None) };
        if response.content_length().is_some_and(|n| n > limit) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        let mut incoming = Incoming::new(response, self.options.idle_timeout);
        while let Some(chunk) = incoming.next().await.map_err(broken)? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Where `registry` answers. One on this machine of which nothing is known is asked without TLS first: the question
    /// holds no secret, and a TLS server refuses it at once, while a plain server may wait long for the rest of a TLS
    /// handshake.
    pub(super) async fn origin(&self, registry: &str) -> Result<Origin> {
        let secure = Origin::of_registry(registry, "https")?;
        if self.options.hosts.is_plain(&secure) {
            return Origin::of_registry(registry, "http");
        }
        if !is_loopback(registry) || self.options.hosts.has_tls(&secure)? {
            return Ok(secure);
        }
        if let Some(origin) = self.loopback.lock().unwrap_or_else(|e| e.into_inner()).get(registry) {
            return Ok(origin.clone());
        }
        let plain = Origin::of_registry(registry, "http")?;
        let failed = |reason: String| registry_error(registry, "connecting", reason);
        let client = self.client_with(Trust { plain: true, ..Trust::default() }).map_err(failed)?;
        let ping = client.get(plain.url("/v2/")?).send();
        let origin = match tokio::time::timeout(self.options.connect_timeout, ping).await {
            Ok(Ok(response)) if response.status() != StatusCode::BAD_REQUEST => plain,
            Ok(Err(e)) if e.is_connect() => return Err(failed(reason_of(e))),
            Err(_) => return Err(failed("no answer in time".to_owned())),
            Ok(_) => secure,
        };
        let mut known = self.loopback.lock().unwrap_or_else(|e| e.into_inner());
        Ok(known.entry(registry.to_owned()).or_insert(origin).clone())
    }

    /// A client for `url`, asked on behalf of the registry of `ask`.
    pub(super) fn client(&self, ask: &Ask, url: &Url) -> Result<Client> {
        self.client_alone(ask, url, false)
    }

    /// The same; with `alone`, its connections serve one request each.
    fn client_alone(&self, ask: &Ask, url: &Url, alone: bool) -> Result<Client> {
        let origin = Origin::of_url(url).ok_or_else(|| ask.error("a URL that is not one of HTTP"))?;
        let trust = Trust { alone, ..self.options.hosts.trust(&origin, &ask.scope.origin)? };
        self.client_with(trust).map_err(|reason| ask.error(reason))
    }

    pub(super) fn client_with(&self, trust: Trust) -> Result<Client, String> {
        let mut clients = self.clients.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = self.options.http_client(&trust)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }

    /// The mirrors' names for `reference`, but for mirrors that failed before.
    pub(super) fn mirrors(&self, reference: &Reference) -> Result<Vec<Reference>> {
        let mut mirrors = self.options.hosts.mirrors(reference)?;
        let failed = self.failed_mirrors.lock().unwrap_or_else(|e| e.into_inner());
        mirrors.retain(|mirror| !failed.contains(mirror.registry()));
        Ok(mirrors)
    }

    /// Nothing more is asked of this mirror.
    pub(super) fn give_up_mirror(&self, mirror: &Reference) {
        let mut failed = self.failed_mirrors.lock().unwrap_or_else(|e| e.into_inner());
        failed.insert(mirror.registry().to_owned());
    }

    /// Without TLS only servers are asked of which that is known, and only on behalf of such a server; those on this
    /// machine only for a registry that is here too.
    pub(super) fn may_be_asked(&self, ask: &Ask, url: &Url) -> bool {
        match (url.scheme(), Origin::of_url(url)) {
            ("https", Some(_)) => true,
            ("http", Some(origin)) => {
                let registry = &ask.scope.origin;
                let here = origin.is_loopback() && registry.is_loopback();
                let known = origin == *registry || self.options.hosts.is_plain(&origin);
                registry.is_plain() && (here || known)
            }
            _ => false,
        }
    }

    /// Where to go on, if `response` is a redirect.
    fn redirect_target(&self, ask: &Ask, response: &Response) -> Result<Option<Url>> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let target = location(ask, response)?;
        if !self.may_be_asked(ask, &target) {
            let (scheme, host) = (target.scheme(), target.host_str().unwrap_or_default());
            return Err(ask.error(format!("a redirect to {scheme}://{host}, which is not safe to follow")));
        }
        // What changes something is meant for the registry alone.
        if !matches!(ask.method, Method::GET | Method::HEAD) && !self.is_own(ask, &target) {
            let host = target.host_str().unwrap_or_default();
            return Err(ask.error(format!("a redirect of a {} to {host}", ask.method)));
        }
        Ok(Some(target))
    }
}

pub(super) fn authorization(ask: &Ask, token: &Token) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(token.header());
    let mut value = value.map_err(|_| ask.error("the token server's token cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The `Location` header, absolute or relative to the URL that was asked.
pub(super) fn location(ask: &Ask, response: &Response) -> Result<Url> {
    let header = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
    let target = header.and_then(|l| response.url().join(l).ok());
    target.ok_or_else(|| ask.error("the answer holds no usable Location"))
}

/// `response` if it is a success, else the error it stands for.
async fn check_status(ask: &Ask, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let pause = retry_after(response.headers());
    let message = error_message(response).await;
    let again = match status.as_u16() {
        408 | 429 | 500 | 502 | 503 | 504 if pause.is_none_or(|p| p <= MAX_RETRY_AFTER) => Some(pause),
        _ => None,
    };
    Err(Failure { error: refusal(ask, status, &message, pause), again })
}

/// Reads a line as the header of a pause, and the one below as the server's time.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_headers(text: &str) {
    let lines = text.lines().filter_map(|line| line.parse::<HeaderValue>().ok());
    let _ = retry_after(&[RETRY_AFTER, DATE].into_iter().zip(lines).collect());
}

/// The pause that a server wants, given in seconds or as a time of the day that its `Date` names (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wanted = text(RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // `Sun, 06 Nov 1994 08:49:37 GMT`: by the server's clock, ours may be another one.
    let parts = |date: &str| {
        let (day, clock) = (date.get(..16)?.to_owned(), date.get(17..25)?);
        let mut numbers = clock.split(':').map(|n| n.parse::<u64>().ok());
        let seconds = numbers.next()?? * 3600 + numbers.next()?? * 60 + numbers.next()??;
        Some((day, seconds))
    };
    let ((day, until), (today, now)) = (parts(wanted)?, parts(text(DATE)?)?);
    (day == today).then(|| Duration::from_secs(until.saturating_sub(now)))
}

fn refusal(ask: &Ask, status: StatusCode, message: &str, pause: Option<Duration>) -> Error {
    let (what, name) = &ask.thing;
    let detail = if message.is_empty() { status.to_string() } else { message.to_owned() };
    match status {
        StatusCode::NOT_FOUND => Error::NotFound { what, name: name.clone() },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ask.error(format!(
            "access to {} denied: it does not exist or needs a login ({detail})",
            ask.scope.repository
        )),
        StatusCode::TOO_MANY_REQUESTS => {
            let when = pause.map_or(String::new(), |p| format!(", try again in {} s", p.as_secs()));
            ask.error(format!("too many requests{when} ({detail})"))
        }
        _ if message.is_empty() => ask.error(format!("the registry answered {status}")),
        _ => ask.error(format!("the registry answered {status}: {message}")),
    }
}

/// The messages of an error body (distribution-spec, "Error Codes"), or nothing.
async fn error_message(mut response: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut body = Vec::new();
    let end = tokio::time::Instant::now() + MAX_ERROR_WAIT;
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(end, response.chunk()).await {
        if body.len() + chunk.len() > MAX_ERROR_BODY {
            return String::new();
        }
        body.extend_from_slice(&chunk);
    }
    let Ok(body) = serde_json::from_slice::<Body>(&body) else { return String::new() };
    let texts: Vec<String> = body
        .errors
        .into_iter()
        .map(|e| if e.message.is_empty() { e.code } else { e.message })
        // A server's words reach a terminal: no control characters, and not too many.
        .map(|text| text.chars().filter(|c| !c.is_control()).take(200).collect())
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_pause_is_a_number_or_a_time_of_its_clock() {
        let pause = |after: &str| {
            let date = "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap();
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, after.parse().unwrap()), (DATE, date)]))
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for text in ["Mon, 07 Nov 1994 08:49:38 GMT", "soon", "-1", "Sun, 06 Nov 1994 08:50"] {
            assert_eq!(pause(text), None, "{text}");
        }
    }
}
