//! Working without root: the process moves into a user namespace in which it is root. The only place where that is
//! done, and where it is asked whether it was. The ids of the namespace are mapped when something needs them.

mod mapper;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use boxwright_cache::{Cancel, ids};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use crate::error::{Error, Result};
use crate::{sys, user};
use mapper::{Mapper, ranges};

/// Which ids of a container there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Ids {
    /// Root's: all of them.
    Real,
    /// Those of `/etc/subuid` and `/etc/subgid`.
    Mapped,
    /// The user's own, as 0.
    Single,
}

/// Why there are no [`Ids::Mapped`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unmapped {
    /// These files have no range for the user.
    NoRanges { user: String, files: Vec<String> },
    /// What a helper said, or why it did not start.
    Refused(String),
}

/// How far this process is.
#[derive(Debug)]
enum State {
    /// It is in the namespace that it was started in.
    Outside,
    /// It has a namespace, in which it is nobody so far.
    Unmapped {
        mapper: Result<Mapper, Unmapped>,
        uid: Uid,
        gid: Gid,
    },
    Mapped(Ids, Option<Unmapped>),
    /// Why it has no ids.
    Failed(String),
    /// It was asked to end while it waited for them.
    Cancelled,
}

static STATE: Mutex<State> = Mutex::new(State::Outside);
/// The state is `Unmapped`: what processes that may not lock look at.
static UNSETTLED: AtomicBool = AtomicBool::new(false);
/// What ends the wait.
static CANCEL: Mutex<Option<Cancel>> = Mutex::new(None);
static ENTERED: OnceLock<()> = OnceLock::new();

/// Moves the process into a user namespace of its own, with a mount namespace to match. Nothing is done for a process that
/// may mount already. To be called in `main`, before any thread is started. Whoever needs ids there has to ask for them, by
/// [`settle`] or `boxwright_cache::ids`.
///
/// # Errors
/// When the machine does not let users make user namespaces.
pub fn enter_user_namespace() -> Result<()> {
    if may_mount() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let name = user::name_of(uid.as_raw())?;
    let uids = ranges("/etc/subuid", &name, uid.as_raw())?;
    let gids = ranges("/etc/subgid", &name, uid.as_raw())?;
    let files = [("/etc/subuid", &uids), ("/etc/subgid", &gids)];
    let lacking = files.iter().filter(|(_, ranges)| ranges.is_empty()).map(|(file, _)| (*file).to_owned());
    let lacking: Vec<String> = lacking.collect();
    let mapper = if lacking.is_empty() {
        Ok(Mapper::start((uid.as_raw(), &uids), (gid.as_raw(), &gids))?)
    } else {
        let user = if name.is_empty() { uid.as_raw().to_string() } else { name };
        Err(Unmapped::NoRanges { user, files: lacking })
    };
    sys::namespace::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(refused)?;
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(Error::io("separating mounts from", "those of the host"))?;
    let _ = ENTERED.set(());
    *state() = State::Unmapped { mapper, uid, gid };
    UNSETTLED.store(true, Ordering::Release);
    ids::settle_by(|| !is_unsettled() || settle().is_ok());
    Ok(())
}

/// Has `newuidmap` and `newgidmap` looked for in these directories. To be called before they are needed, once.
pub fn helpers_in(directories: Vec<PathBuf>) {
    let _ = mapper::PLACES.set(directories);
}

/// Has the ids mapped while something else is done.
pub fn ask_for_ids() {
    if let State::Unmapped { mapper: Ok(mapper), .. } = &mut *state() {
        mapper.ask();
    }
}

/// Whether the ids may have to be waited for.
pub fn is_unsettled() -> bool {
    UNSETTLED.load(Ordering::Acquire)
}

/// Whoever waits for ids does so until this token is raised, which is told by [`Cancel::begin_long`] when that begins.
pub fn settle_until(cancel: &Cancel) {
    *CANCEL.lock().unwrap_or_else(PoisonError::into_inner) = Some(cancel.clone());
}

/// Gives the process its ids, if it has none yet: it is root of its namespace then.
///
/// # Errors
/// When not even the user's own id can be had, and [`Error::Cancelled`]; again each time.
pub fn settle() -> Result<Ids> {
    settle_with_reason().map(|(ids, _)| ids)
}

/// The same, with the reason where one id is all there is.
pub(crate) fn settle_with_reason() -> Result<(Ids, Option<Unmapped>)> {
    let mut state = state();
    if let State::Unmapped { .. } = &*state {
        *state = match std::mem::replace(&mut *state, State::Outside) {
            State::Unmapped { mapper, uid, gid } => map(mapper, uid, gid),
            other => other,
        };
        UNSETTLED.store(false, Ordering::Release);
    }
    match &*state {
        State::Mapped(ids, why) => Ok((*ids, why.clone())),
        State::Failed(reason) => Err(no_ids(reason)),
        State::Cancelled => Err(Error::Cancelled),
        State::Outside | State::Unmapped { .. } => Ok((Ids::Real, None)),
    }
}

fn map(mapper: Result<Mapper, Unmapped>, uid: Uid, gid: Gid) -> State {
    let cancel = CANCEL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mapped = match mapper.map(|mapper| mapper.map(cancel.as_ref())) {
        Ok(None) => return State::Cancelled,
        Ok(Some(mapped)) => mapped.map_err(Unmapped::Refused),
        Err(why) => Err(why),
    };
    match mapped {
        Ok(()) => State::Mapped(Ids::Mapped, None),
        // Without the helpers, or with ranges that they refuse, the user's own id is what there is.
        Err(why) => match map_single(uid, gid) {
            Ok(()) => State::Mapped(Ids::Single, Some(why)),
            // With one helper's map written there can't be another one.
            Err(error) => State::Failed(match why {
                Unmapped::Refused(said) => said,
                Unmapped::NoRanges { .. } => error.to_string(),
            }),
        },
    }
}

/// Ends what waits for somebody to need ids. Nobody may from now on.
pub fn forget() {
    let mut state = state();
    if let State::Unmapped { .. } = &*state {
        *state = State::Failed("the command has ended".to_owned());
        UNSETTLED.store(false, Ordering::Release);
    }
}

/// Why the process has no ids, if it asked for some.
pub fn failure() -> Option<Error> {
    match &*state() {
        State::Failed(reason) => Some(no_ids(reason)),
        State::Cancelled => Some(Error::Cancelled),
        State::Outside | State::Unmapped { .. } | State::Mapped(..) => None,
    }
}

fn no_ids(reason: &str) -> Error {
    Error::Setup { doing: "mapping ids".to_owned(), reason: reason.to_owned() }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the user namespace is one that this process made, so that nobody else works in it.
pub(crate) fn entered() -> bool {
    ENTERED.get().is_some()
}

/// Whether ids, devices and mounts are restricted as they are in a user namespace, ours or somebody else's.
pub fn in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"],
        // A kernel without user namespaces.
        Err(_) => false,
    })
}

/// Where one id is all there is, the kernel lets nobody change groups.
pub(crate) fn may_set_groups() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // It is said with the map.
    let _ = settle();
    *ANSWER.get_or_init(|| std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|s| s.trim() != "deny"))
}

pub(crate) fn may_mount() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

fn refused(errno: Errno) -> Error {
    Error::Unsupported(format!(
        "this machine does not let this user make a user namespace ({errno}); as root it works, or see \
         /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
    ))
}

fn map_single(uid: Uid, gid: Gid) -> Result<()> {
    let write = |path: &'static str, text: String| {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = file.and_then(|file| rustix::io::write(&file, text.as_bytes()));
        written.map(drop).map_err(Error::io("writing", path))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}
