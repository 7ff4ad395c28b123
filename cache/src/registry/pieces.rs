//! Pushing a blob piece by piece (distribution-spec, "Pushing a blob in chunks"), where the whole did not get through: each
//! piece over a connection of its own, and what broke goes on where the server says that it broke.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;

use super::body::PROGRESS;
use super::session::{Failed, Opened, Session};
use super::upload::{Job, Open, read_part};
use crate::error::{Error, Result};

/// So little that what broke off a larger transfer may let it pass, and so much that it does not take many.
const PIECE: usize = 4 << 20;
/// A piece is in memory while it is sent, whatever a server would like it to be.
const LARGEST_PIECE: usize = 32 << 20;
pub(super) const LEAST_PIECE: usize = 256 << 10;
/// How often in a row a piece may break without having moved on by `PROGRESS` bytes.
const MAX_BREAKS: u32 = 5;
/// How often a server may forget all that it has.
const MAX_RESTARTS: u32 = 6;

enum Outcome {
    Done,
    /// The server takes no pieces.
    Unwanted,
    /// The server has forgotten what it had.
    Lost(Error),
}

/// Whether the blob got there; if not, the server takes no pieces.
pub(super) fn push(job: &Job<'_>, open: &mut Open<'_>) -> Result<bool> {
    let mut piece = PIECE;
    let mut restarts = 0;
    loop {
        match attempt(job, open, piece)? {
            Outcome::Done => return Ok(true),
            Outcome::Unwanted => return Ok(false),
            Outcome::Lost(error) if restarts == MAX_RESTARTS => return Err(error),
            Outcome::Lost(_) => (restarts, piece) = (restarts + 1, (piece / 2).max(LEAST_PIECE)),
        }
    }
}

/// From the start to the end, or until the server has lost it.
fn attempt(job: &Job<'_>, open: &mut Open<'_>, piece: usize) -> Result<Outcome> {
    let mut session = match job.open(None)? {
        Opened::Mounted => return Ok(Outcome::Done),
        Opened::Session(session) => session,
    };
    if session.least > LARGEST_PIECE {
        return Ok(Outcome::Unwanted);
    }
    session.alone = true;
    let piece = piece.max(session.least);
    let mut source = open()?;
    let mut hasher = job.blob.digest.algorithm().hasher();
    let mut sent = 0;
    while sent < job.blob.size {
        let bytes = read_part(&mut source, job.blob, sent, piece)?;
        hasher.update(&bytes);
        let (start, length) = (sent, bytes.len() as u64);
        let (back, outcome) = job.runtime.call(job.cancel, async move {
            let outcome = send(&mut session, start, &Arc::new(bytes)).await?;
            Ok((session, outcome))
        })?;
        session = back;
        match outcome {
            Outcome::Done => sent += length,
            other => return Ok(other),
        }
    }
    job.expect_digest(hasher.finish())?;
    let finished = job.runtime.call(job.cancel, async move { Ok(session.finish().await) })?;
    match finished {
        Ok(()) => Ok(Outcome::Done),
        // The answer may be all that was lost.
        Err(failed) if job.is_there()? => {
            drop(failed);
            Ok(Outcome::Done)
        }
        Err(Failed::Unsent(error) | Failed::Refused { error, again: None, .. }) => Err(error),
        Err(failed) => Ok(Outcome::Lost(failed.into_error())),
    }
}

/// How far one piece got, and how often it broke.
#[derive(Default)]
struct Progress {
    done: usize,
    /// Where it was when the breaks were last counted from nothing.
    reached: usize,
    breaks: u32,
}

impl Progress {
    /// It broke off with `done` of its bytes at the server. Whether it may go on.
    fn broke(&mut self, done: usize, all: usize) -> bool {
        self.done = done;
        if (done as u64) >= self.reached as u64 + PROGRESS {
            (self.breaks, self.reached) = (0, done);
        }
        self.breaks += 1;
        done == all || self.breaks <= MAX_BREAKS
    }
}

/// Sends one piece, again and again from where it broke.
async fn send(session: &mut Session, start: u64, piece: &Arc<Vec<u8>>) -> Result<Outcome> {
    let mut progress = Progress::default();
    while progress.done < piece.len() {
        let done = progress.done;
        let failed = match session.patch(start, piece, done).await {
            Ok(has) => match position(start, has, done + 1..=piece.len()) {
                Some(now) if progress.broke(now, piece.len()) => continue,
                Some(_) => return Err(session.error("the registry takes too little at a time")),
                None => {
                    return Err(Error::malformed("the registry's answer to a piece", "it has another one"));
                }
            },
            Err(failed) => failed,
        };
        let pause = match &failed {
            Failed::Refused { status, .. } if start == 0 && done == 0 && takes_none(*status) => {
                return Ok(Outcome::Unwanted);
            }
            Failed::Refused { again: Some(pause), .. } => *pause,
            Failed::Broken(_) | Failed::Refused { status: StatusCode::RANGE_NOT_SATISFIABLE, .. } => None,
            _ => return Err(failed.into_error()),
        };
        tokio::time::sleep(pause.unwrap_or(Duration::from_millis(100 << progress.breaks))).await;
        let now = match session.status().await {
            Ok(has) => has.and_then(|has| position(start, has, 0..=piece.len())),
            // Nothing is known; the piece itself will show.
            Err(Failed::Broken(_) | Failed::Refused { .. }) => Some(done),
            Err(failed) => return Err(failed.into_error()),
        };
        match now {
            Some(now) if progress.broke(now, piece.len()) => {}
            Some(_) => return Err(failed.into_error()),
            None => return Ok(Outcome::Lost(failed.into_error())),
        }
    }
    Ok(Outcome::Done)
}

/// How much of a piece that began at `start` a server has that has `has` bytes, if that makes sense.
fn position(start: u64, has: u64, expected: std::ops::RangeInclusive<usize>) -> Option<usize> {
    let done = usize::try_from(has.checked_sub(start)?).ok()?;
    expected.contains(&done).then_some(done)
}

fn takes_none(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
}
