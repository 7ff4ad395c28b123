//! A file behind any URL: asked for unless it is unchanged, through redirects, and read as it comes. What it is and
//! where it is kept is its caller's business.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::hosts::Trust;
use super::reason::reason_of;
use super::runtime::cancellable;
use super::transport::Transport;
use super::{Client, Inner};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Chunks that wait between the network and the reader, each of at most a few hundred KiB.
const QUEUE: usize = 8;
const MAX_TRIES: u32 = 4;
const MAX_REDIRECTS: u32 = 10;

/// What a server says of a file so that one can ask later whether it is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Without the mark of a weak one.
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

#[derive(Debug)]
pub enum Answer {
    /// It is what the validators that were sent stand for.
    Unchanged,
    File(FileReader),
}

/// Reads a file that is on its way. Errors are [`crate::Error`] inside an [`io::Error`].
pub struct FileReader {
    pub validators: Validators,
    chunks: mpsc::Receiver<Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
    /// The network thread ends with the last client.
    _client: Client,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileReader({:?})", self.validators)
    }
}

impl Client {
    /// The file at `url`, of at most `limit` bytes; nothing of it if it is what `known` stands for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no URL of HTTP, [`Error::Registry`] or [`Error::Cancelled`]; later ones come out
    /// of the reader. No error holds the credentials that may be in `url`.
    pub fn open_file(
        &self,
        url: &str,
        known: Option<&Validators>,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Answer> {
        let Inner { transport, runtime } = self.0.as_ref();
        let shared = Arc::clone(transport);
        let ask = Arc::new(Ask::new(url, known.cloned().unwrap_or_default())?);
        let asked = Arc::clone(&ask);
        let response = runtime.call(cancel, async move { asked.send(&shared).await })?;
        let validators = validators(response.headers());
        let same = response.status() == StatusCode::NOT_MODIFIED
            || ask.known.etag.is_some() && ask.known.etag == validators.etag;
        if same {
            return Ok(Answer::Unchanged);
        }
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(ask.too_large(limit));
        }
        let (sender, chunks) = mpsc::channel(QUEUE);
        let (idle, cancel) = (transport.idle_timeout(), cancel.clone());
        runtime.spawn(async move {
            let copied = cancellable(&cancel, copy(&ask, response, &sender, limit, idle)).await;
            if let Err(error) = copied {
                // A reader that is gone needs no error.
                let _ = sender.send(Err(error)).await;
            }
        })?;
        Ok(Answer::File(FileReader {
            validators,
            chunks,
            chunk: io::Cursor::default(),
            _client: self.clone(),
        }))
    }
}

async fn copy(
    ask: &Ask,
    mut response: Response,
    sender: &mpsc::Sender<Result<Vec<u8>>>,
    limit: u64,
    idle: Duration,
) -> Result<()> {
    let mut total = 0;
    loop {
        let chunk = match tokio::time::timeout(idle, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(e)) => return Err(ask.error(reason_of(e))),
            Err(_) => return Err(ask.error("the transfer stopped in the middle")),
        };
        total += chunk.len() as u64;
        if total > limit {
            return Err(ask.too_large(limit));
        }
        if sender.send(Ok(chunk.into())).await.is_err() {
            return Ok(());
        }
    }
}

struct Ask {
    /// Without credentials.
    url: Url,
    login: Option<(String, String)>,
    known: Validators,
}

impl Ask {
    fn new(text: &str, known: Validators) -> Result<Ask> {
        let mut url: Url = text
            .parse()
            .ok()
            .filter(|url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Error::invalid("URL", without_login(text), "not one of HTTP"))?;
        let decoded = |text: &str| percent_decoded(text);
        let login = (!url.username().is_empty() || url.password().is_some())
            .then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Ask { url, login, known })
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let (doing, reason) = (format!("fetching {}", self.url), reason.into());
        Error::Registry { registry: host, doing, reason, remedy: None }
    }

    fn too_large(&self, limit: u64) -> Error {
        self.error(format!("the file is larger than the limit of {limit} bytes"))
    }

    /// A success, or "not modified".
    async fn send(&self, transport: &Transport) -> Result<Response> {
        let mut pause = Duration::from_millis(250);
        let mut tries = 1;
        loop {
            match self.follow(transport).await {
                Ok(response) => return Ok(response),
                Err((error, may_pass)) if !may_pass || tries == MAX_TRIES => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
            }
            (tries, pause) = (tries + 1, pause * 2);
        }
    }

    /// Follows redirects; tells of a failure whether it may pass.
    async fn follow(&self, transport: &Transport) -> Result<Response, (Error, bool)> {
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(transport, &url).await?;
            let status = response.status();
            match status.as_u16() {
                301 | 302 | 303 | 307 | 308 => url = self.redirect(&response).map_err(|e| (e, false))?,
                304 if self.known != Validators::default() => return Ok(response),
                _ if status.is_success() => return Ok(response),
                code => {
                    let may_pass = matches!(code, 408 | 429 | 500 | 502 | 503 | 504);
                    return Err((self.error(format!("invalid response status {status}")), may_pass));
                }
            }
        }
        Err((self.error(format!("more than {MAX_REDIRECTS} redirects")), false))
    }

    async fn once(&self, transport: &Transport, url: &Url) -> Result<Response, (Error, bool)> {
        let trust = Trust { plain: url.scheme() == "http", ..Trust::default() };
        let client = transport.client_with(trust).map_err(|e| (self.error(e), false))?;
        let mut request = client.get(url.clone());
        let mut header = |name: HeaderName, value: &Option<String>| {
            if let Some(value) = value {
                request = request.try_clone().expect("it has no body").header(name, value);
            }
        };
        header(IF_NONE_MATCH, &self.known.etag);
        // A server that knows tags is not asked by time: two changes can have the same second.
        if self.known.etag.is_none() {
            header(IF_MODIFIED_SINCE, &self.known.last_modified);
        }
        if let Some((user, password)) = self.login.as_ref().filter(|_| is_same_origin(&self.url, url)) {
            request = request.basic_auth(user, Some(password));
        }
        match tokio::time::timeout(transport.idle_timeout(), request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) if e.is_connect() || e.is_builder() => Err((self.error(reason_of(e)), false)),
            Ok(Err(e)) => Err((self.error(reason_of(e)), true)),
            Err(_) => Err((self.error("no answer in time"), true)),
        }
    }

    /// Whoever asks with a password means to be asked back in private.
    fn redirect(&self, response: &Response) -> Result<Url> {
        let header = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let mut target = header
            .and_then(|l| response.url().join(l).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| self.error("a redirect to nowhere"))?;
        if self.login.is_some() && self.url.scheme() == "https" && target.scheme() == "http" {
            return Err(self.error("a redirect from https to http, after a password was given"));
        }
        // What the server puts in there is not ours to send.
        let _ = target.set_username("");
        let _ = target.set_password(None);
        Ok(target)
    }
}

fn is_same_origin(a: &Url, b: &Url) -> bool {
    let origin =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    origin(a) == origin(b)
}

fn validators(headers: &HeaderMap) -> Validators {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
    Validators {
        etag: text(ETAG).map(|tag| tag.strip_prefix("W/").unwrap_or(tag).to_owned()),
        last_modified: text(LAST_MODIFIED).map(str::to_owned),
    }
}

/// For an error about a text that can't be taken apart.
pub(super) fn without_login(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', a, b, ..] => {
                std::str::from_utf8(&[*a, *b]).ok().and_then(|d| u8::from_str_radix(d, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let n = self.chunk.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.chunk = io::Cursor::new(chunk),
                Some(Err(e)) => return Err(io::Error::other(e)),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_out_of_the_url() {
        let ask = Ask::new("https://u%40x:p%3A@a.example/b?c#d", Validators::default()).unwrap();
        assert_eq!(ask.url.as_str(), "https://a.example/b?c");
        assert_eq!(ask.login, Some(("u@x".to_owned(), "p:".to_owned())));
        let error = ask.error("x").to_string();
        assert!(!error.contains("p%3A") && error.contains("https://a.example/b?c"), "{error}");
        let error = Ask::new("ftp://u:secret@a/", Validators::default()).map(|_| ()).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn weak_tags_are_compared_as_strong_ones() {
        let headers = HeaderMap::from_iter([(ETAG, "W/\"a\"".parse().unwrap())]);
        assert_eq!(validators(&headers).etag.as_deref(), Some("\"a\""));
    }
}
