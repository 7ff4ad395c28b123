//! One upload of a blob, from the POST that opens it (and may find the blob in another repository) to the PUT that ends it.
//! Says what became of each request; what to do then is decided by `upload` and `pieces`.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RANGE,
};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::auth::Actions;
use super::body::{Moved, moving, rest};
use super::reason::reason_of;
use super::transport::{Ask, Transport, location};
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference};

pub(super) enum Opened {
    /// The registry had the blob in the other repository.
    Mounted,
    Session(Session),
}

pub(super) struct Session {
    transport: Arc<Transport>,
    ask: Ask,
    /// Where the next request goes.
    url: Url,
    blob: Descriptor,
    /// Whether each request has a connection of its own.
    pub(super) alone: bool,
    /// No piece but the last may be smaller.
    pub(super) least: usize,
}

/// Why a request of an upload did not succeed.
pub(super) enum Failed {
    /// The connection broke or stood still.
    Broken(Error),
    /// The server said no; and after what pause it may be asked again, if that makes sense.
    Refused { error: Error, status: StatusCode, again: Option<Option<Duration>> },
    /// It was not sent.
    Unsent(Error),
}

impl Failed {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failed::Broken(error) | Failed::Refused { error, .. } | Failed::Unsent(error) => error,
        }
    }
}

impl Session {
    /// Opens an upload. With `from`, a repository of the same registry, the blob may be found there instead; a registry
    /// that does not want to look there is asked without.
    pub(super) async fn open(
        transport: Arc<Transport>,
        reference: &Reference,
        blob: &Descriptor,
        from: Option<String>,
    ) -> Result<Opened> {
        let doing = format!("pushing blob {}", blob.digest);
        let mut ask = transport.ask(reference, Method::POST, Actions::Push, "blobs/uploads/", doing).await?;
        ask.thing = ("repository", reference.familiar_name());
        ask.headers.push((CONTENT_LENGTH, "0".to_owned()));
        let algorithm = blob.digest.algorithm();
        if algorithm != Algorithm::Sha256 {
            ask.url.query_pairs_mut().append_pair("digest-algorithm", algorithm.name());
        }
        let mut mounted = None;
        if let Some(from) = from {
            let mut mount = ask.clone();
            mount
                .url
                .query_pairs_mut()
                .append_pair("mount", &blob.digest.to_string())
                .append_pair("from", &from);
            mount.scope.from = Some(from);
            match transport.send(&mount).await {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(Opened::Mounted),
                Ok(response) => mounted = Some(response),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(_) => {}
            }
        }
        let response = match mounted {
            Some(response) => response,
            None => transport.send(&ask).await?,
        };
        let url = location(&ask, &response)?;
        let least = response.headers().get("oci-chunk-min-length");
        let least = least.and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
        Ok(Opened::Session(Session { transport, ask, url, blob: blob.clone(), alone: false, least }))
    }

    /// Sends everything in one request, which ends the upload.
    pub(super) async fn put(&self, body: (Body, Moved)) -> Result<(), Failed> {
        let headers = self.headers(self.blob.size, None);
        self.send(Method::PUT, self.last_url(), headers, Some(body)).await.map(drop)
    }

    /// Sends a piece, of which the first byte is the `start`th of the blob, without the `done` bytes that the server has.
    /// Gives how many bytes of the blob the server has then.
    pub(super) async fn patch(
        &mut self,
        start: u64,
        piece: &Arc<Vec<u8>>,
        done: usize,
    ) -> Result<u64, Failed> {
        let (first, end) = (start + done as u64, start + piece.len() as u64);
        let headers = self.headers(end - first, Some(format!("{first}-{}", end - 1)));
        let body = Some(rest(piece, done));
        let response = self.send(Method::PATCH, self.url.clone(), headers, body).await?;
        self.follow(&response).map_err(Failed::Unsent)?;
        Ok(received(&response).unwrap_or(end))
    }

    /// How many bytes the server has, or nothing if it knows no such upload any more.
    pub(super) async fn status(&mut self) -> Result<Option<u64>, Failed> {
        match self.send(Method::GET, self.url.clone(), Vec::new(), None).await {
            Ok(response) => {
                self.follow(&response).map_err(Failed::Unsent)?;
                Ok(received(&response))
            }
            Err(Failed::Refused { again: None, status, .. }) if status != StatusCode::UNAUTHORIZED => {
                Ok(None)
            }
            Err(failed) => Err(failed),
        }
    }

    /// Ends an upload whose pieces are all there.
    pub(super) async fn finish(&self) -> Result<(), Failed> {
        self.send(Method::PUT, self.last_url(), self.headers(0, None), None).await.map(drop)
    }

    pub(super) fn error(&self, reason: &str) -> Error {
        self.ask.error(reason)
    }

    fn headers(&self, length: u64, range: Option<String>) -> Vec<(HeaderName, String)> {
        let mut headers =
            vec![(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, length.to_string())];
        headers.extend(range.map(|range| (CONTENT_RANGE, range)));
        headers
    }

    fn last_url(&self) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        url
    }

    /// The server says with each answer where the next request belongs.
    fn follow(&mut self, response: &Response) -> Result<()> {
        if response.headers().contains_key(LOCATION) {
            self.url = location(&self.ask, response)?;
        }
        Ok(())
    }

    /// Sends one request; a token that ran out is replaced for the next one.
    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: Vec<(HeaderName, String)>,
        body: Option<(Body, Moved)>,
    ) -> Result<Response, Failed> {
        let (transport, ask) = (&self.transport, &self.ask);
        let client = transport.upload_client(ask, &url, self.alone).map_err(Failed::Unsent)?;
        let sent_with = transport.authorization(ask, &url).map_err(Failed::Unsent)?;
        let headers: HeaderMap =
            headers.into_iter().filter_map(|(n, v)| Some((n, v.parse().ok()?))).collect();
        let mut request = client.request(method, url.clone()).headers(headers);
        if let Some(value) = sent_with {
            request = request.header(AUTHORIZATION, value);
        }
        let moved = match body {
            Some((body, moved)) => {
                request = request.body(body);
                moved
            }
            None => Moved::now(),
        };
        let response = match moving(transport.idle_timeout(), moved, request.send()).await {
            Some(Ok(response)) => response,
            Some(Err(e)) => return Err(Failed::Broken(ask.error(reason_of(e)))),
            None => return Err(Failed::Broken(ask.error("the transfer stopped in the middle"))),
        };
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED && transport.is_own(ask, &url) {
            transport.tokens.forget(&ask.scope);
            transport.token(ask, &response).await.map_err(Failed::Unsent)?;
            let error = ask.error("the registry refused the token that it had given");
            return Err(Failed::Refused { error, status, again: Some(Some(Duration::ZERO)) });
        }
        let accepted = transport.accept(ask, response).await;
        accepted.map_err(|failure| Failed::Refused { error: failure.error, status, again: failure.again })
    }
}

/// How many bytes a `Range: 0-N` stands for. Some say `0-0` for none, and one byte is soon sent again.
fn received(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let range = range.trim().trim_start_matches("bytes=");
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}
