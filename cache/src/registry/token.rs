//! Answers a registry's challenge: with a password, or with a token from the server that the registry names. Credentials go
//! to the registry that they are for and, with TLS or on this machine, to its token server, and are never redirected (R7).

use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::auth::{Actions, Challenge, Scope, Token, TokenAnswer};
use super::login::{Credentials, Logins};
use super::reason::reason_of;
use super::transport::{Ask, Transport, authorization};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

const MAX_TOKEN_BODY: u64 = 1 << 20;
/// What token servers know this program by.
const CLIENT_ID: &str = "boxwright";
/// A password does not end, and of a token of the user's nobody knows when; it is taken from where it is kept again after this.
const PASSWORD_LIFE: std::time::Duration = std::time::Duration::from_secs(86_400);

impl Transport {
    /// What answers the challenge of `refused`; kept for the requests that follow.
    pub(super) async fn token(&self, ask: &Ask, refused: &Response) -> Result<Token> {
        let credentials = self.credentials(ask).await?;
        let challenges = challenges(refused);
        if let Some(challenge) = challenges.iter().find(|c| c.is_bearer()) {
            // It is the registry's own token already, and no token server's business.
            if let Some(Credentials::Bearer { token }) = &credentials {
                let token = Token::bearer(token);
                self.tokens.put(ask.scope.clone(), token.clone(), PASSWORD_LIFE);
                return Ok(token);
            }
            let answer = self.ask_for_token(ask, challenge, credentials.as_ref(), false).await?;
            let token =
                answer.token().ok_or_else(|| ask.error("the token server's answer holds no token"))?;
            self.tokens.put(ask.scope.clone(), token.clone(), answer.life());
            return Ok(token);
        }
        let basic = challenges.iter().any(Challenge::is_basic);
        match credentials.filter(|_| basic) {
            Some(Credentials::Password { user, password }) => {
                let token = Token::basic(&user, &password);
                self.tokens.put(ask.scope.clone(), token.clone(), PASSWORD_LIFE);
                Ok(token)
            }
            _ if basic => Err(ask.error("the registry wants a login")),
            _ => Err(ask.error("the registry wants a login of a kind that is not known")),
        }
    }

    /// Who we are to the registry. What is public can be pulled by somebody whose credentials can't be found.
    async fn credentials(&self, ask: &Ask) -> Result<Option<Credentials>> {
        let Some(logins) = &self.options.logins else { return Ok(None) };
        let mut known = self.logins.lock().await;
        // No registry has such a name, so that who pushes is told what is wrong.
        let as_nobody = format!("{} as nobody", ask.registry);
        let pulls = ask.scope.actions == Actions::Pull;
        if let Some(found) = known.get(&ask.registry).or_else(|| known.get(&as_nobody).filter(|_| pulls)) {
            return Ok(found.clone());
        }
        match find(logins, ask).await {
            Ok(found) => {
                known.insert(ask.registry.clone(), found.clone());
                Ok(found)
            }
            Err(error) if pulls && !matches!(error, Error::Cancelled) => {
                (logins.remark)(&format!("WARNING: going on without a login: {error}"));
                known.insert(as_nobody, None);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the server that the challenge names, for an identity token as well if `lasting`.
    async fn ask_for_token(
        &self,
        ask: &Ask,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
        lasting: bool,
    ) -> Result<TokenAnswer> {
        let realm: Option<Url> = challenge.realm().and_then(|r| r.parse().ok());
        let realm = realm
            .filter(|url| self.may_be_asked(ask, url))
            .ok_or_else(|| ask.error("the registry names no usable token server"))?;
        let request = self.token_request(ask, challenge, realm, credentials, lasting)?;
        let asking = tokio::time::timeout(self.idle_timeout(), request.send());
        let response = match asking.await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(ask.error(format!("asking for a token: {}", reason_of(e)))),
            Err(_) => return Err(ask.error("asking for a token: no answer in time")),
        };
        if !response.status().is_success() {
            return Err(ask.error(format!("access denied: the token server answered {}", response.status())));
        }
        let body = self.read(ask, response, MAX_TOKEN_BODY).await.map_err(|failure| failure.error)?;
        // The parser's message could quote the token.
        serde_json::from_slice(&body).map_err(|_| ask.error("the token server's answer is not JSON"))
    }

    /// GET with a password or anonymously; POST, as OAuth2 has it, with an identity token.
    fn token_request(
        &self,
        ask: &Ask,
        challenge: &Challenge,
        mut url: Url,
        credentials: Option<&Credentials>,
        lasting: bool,
    ) -> Result<RequestBuilder> {
        let client = self.client(ask, &url)?;
        let scopes = challenge.scopes(&ask.scope);
        let service = challenge.service().map(|service| ("service", service));
        if let Some(Credentials::Identity { token, .. }) = credentials {
            let mut form = Url::parse("form:").expect("it is a URL");
            let fields =
                [("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token)];
            form.query_pairs_mut().extend_pairs(service).extend_pairs(fields);
            if !scopes.is_empty() {
                form.query_pairs_mut().append_pair("scope", &scopes.join(" "));
            }
            let body = form.query().unwrap_or_default().to_owned();
            return Ok(client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body));
        }
        let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
        url.query_pairs_mut().extend_pairs(service).extend_pairs(scopes);
        let Some(Credentials::Password { user, password }) = credentials else { return Ok(client.get(url)) };
        url.query_pairs_mut().append_pair("account", user);
        if lasting {
            url.query_pairs_mut().append_pair("client_id", CLIENT_ID).append_pair("offline_token", "true");
        }
        let password = authorization(ask, &Token::basic(user, password))?;
        Ok(client.get(url).header(reqwest::header::AUTHORIZATION, password))
    }

    /// Whether `registry` takes the credentials. Gives what should be kept: they, or the identity token given for them.
    pub(super) async fn log_in(&self, registry: &str, credentials: Credentials) -> Result<Credentials> {
        let origin = self.origin(registry).await?;
        let url = origin.url("/v2/")?;
        let scope = Scope { origin, repository: String::new(), actions: Actions::Pull, from: None };
        let (registry, doing) = (registry.to_owned(), "logging in".to_owned());
        let thing = ("registry", registry.clone());
        let ask =
            Ask { method: Method::GET, scope, url, headers: vec![], body: vec![], registry, doing, thing };
        let first = self.try_once(&ask, None).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return accepted(&ask, &first).map(|()| credentials);
        }
        // It is for the registry itself, and no token server could tell whether it is good.
        if let Credentials::Bearer { token } = &credentials {
            accepted(&ask, &self.try_once(&ask, Some(&Token::bearer(token))).await?)?;
            return Ok(credentials);
        }
        let challenges = challenges(&first);
        if let Some(challenge) = challenges.iter().find(|c| c.is_bearer()) {
            let answer = self.ask_for_token(&ask, challenge, Some(&credentials), true).await?;
            let token =
                answer.token().ok_or_else(|| ask.error("the token server's answer holds no token"))?;
            accepted(&ask, &self.try_once(&ask, Some(&token)).await?)?;
            let user = credentials.user().to_owned();
            return Ok(answer.identity().map_or(credentials, |token| Credentials::Identity { user, token }));
        }
        match &credentials {
            Credentials::Password { user, password } if challenges.iter().any(Challenge::is_basic) => {
                let token = Token::basic(user, password);
                accepted(&ask, &self.try_once(&ask, Some(&token)).await?)?;
                Ok(credentials)
            }
            _ => Err(ask.error("the registry wants a login of a kind that is not known")),
        }
    }

    async fn try_once(&self, ask: &Ask, token: Option<&Token>) -> Result<Response> {
        self.once(ask, ask.url.clone(), token).await.map_err(|failure| failure.error)
    }
}

/// A program may ask its user something. It ends when nobody waits for its answer any more.
async fn find(logins: &Logins, ask: &Ask) -> Result<Option<Credentials>> {
    let (logins, registry) = (logins.clone(), ask.registry.clone());
    let waiting = Waiting::new()?;
    let (cancel, ended) = (waiting.cancel.clone(), waiting.ended.clone());
    let finding = tokio::task::spawn_blocking(move || {
        let found = logins.find(&registry, &cancel);
        ended.raise();
        found
    });
    finding.await.map_err(|_| ask.error("looking for credentials failed"))?
}

/// Dropped before the end, it raises `cancel`, and gives whoever sees that the time to end.
struct Waiting {
    cancel: Cancel,
    ended: Cancel,
}

impl Waiting {
    fn new() -> Result<Waiting> {
        Ok(Waiting { cancel: Cancel::new()?, ended: Cancel::new()? })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.cancel.raise();
        if !self.ended.is_raised() {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&self.ended, PollFlags::IN)], Some(&second));
        }
    }
}

fn challenges(refused: &Response) -> Vec<Challenge> {
    let headers = refused.headers().get_all(WWW_AUTHENTICATE);
    headers.iter().filter_map(|h| h.to_str().ok()).flat_map(Challenge::parse).collect()
}

fn accepted(ask: &Ask, response: &Response) -> Result<()> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(ask.error(format!("login attempt to {} failed with status: {status}", ask.url)))
}
