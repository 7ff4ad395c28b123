//! File systems that belong to one container, made as detached mounts: nobody sees them, and they end with the last
//! descriptor or with the namespace they are attached in.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::thread::UnshareFlags;

use crate::dev::bind;
use crate::error::{Error, Result};
use crate::sys;

/// Lower directories, top first, and where writes go.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    pub(crate) lowers: Vec<BorrowedFd<'a>>,
    pub(crate) upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// Whiteouts and opaque marks are those that a user namespace may write.
    pub(crate) user_xattrs: bool,
    /// Of the mount. `nodev`: a device in an image, or one that root makes in the container, is that of the host; it can
    /// be there, but nobody can open it.
    pub(crate) attributes: MountAttrFlags,
}

impl Overlay<'_> {
    /// The mount, as a descriptor of its root.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Refusal> {
        let mut said = String::new();
        match self.with_layers_one_by_one(&mut said) {
            // Before Linux 6.7 there is only the list of all of them.
            Err(Errno::INVAL) => self.with_layers_in_a_list(&mut said),
            result => result,
        }
        .map_err(|errno| Refusal { errno, said })
    }

    fn with_layers_one_by_one(&self, said: &mut String) -> rustix::io::Result<OwnedFd> {
        self.create(said, |context| {
            for lower in &self.lowers {
                fsconfig_set_string(context, c"lowerdir+", fd_path(*lower).as_str())?;
            }
            Ok(())
        })
    }

    /// One option may have 255 bytes only: the names are relative, from a thread that has a working directory of its
    /// own, which is enough for more than sixty layers.
    fn with_layers_in_a_list(&self, said: &mut String) -> rustix::io::Result<OwnedFd> {
        let names: Vec<String> = self.lowers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let list = names.join(":");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sys::namespace::unshare(UnshareFlags::FS)?;
                rustix::process::chdir(c"/proc/self/fd")?;
                self.create(said, |context| fsconfig_set_string(context, c"lowerdir", list.as_str()))
            });
            thread.join().unwrap_or(Err(Errno::AGAIN))
        })
    }

    fn create(
        &self,
        said: &mut String,
        set_lowers: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<OwnedFd> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &CStr, value: &str| fsconfig_set_string(&context, key, value);
        let configured = (|| {
            set(c"source", "boxwright")?;
            set_lowers(context.as_fd())?;
            if let Some((upper, work)) = self.upper {
                set(c"upperdir", &fd_path(upper))?;
                set(c"workdir", &fd_path(work))?;
                // Otherwise the end of every container would write out the whole file system below it.
                fsconfig_set_flag(&context, c"volatile")?;
            }
            // Layers are what images brought; none of these features may take their word for anything. "off" would
            // still follow redirects that are there, where the kernel was configured so.
            set(c"redirect_dir", "nofollow")?;
            set(c"metacopy", "off")?;
            set(c"index", "off")?;
            if self.user_xattrs {
                fsconfig_set_flag(&context, c"userxattr")?;
            }
            fsconfig_create(&context)
        })();
        if configured.is_err() {
            said.push_str(&messages(&context));
        }
        configured?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
    }
}

/// Why there is no overlay.
#[derive(Debug)]
pub(crate) struct Refusal {
    errno: Errno,
    /// By the kernel.
    said: String,
}

impl Refusal {
    /// Whether the kernel mounts no overlay of this file system, or none at all.
    pub(crate) fn is_of_file_system(&self) -> bool {
        matches!(self.errno, Errno::INVAL | Errno::NODEV | Errno::PERM | Errno::OPNOTSUPP)
    }

    pub(crate) fn reason(&self) -> String {
        format!("{}{}", std::io::Error::from(self.errno), self.said)
    }

    pub(crate) fn into_error(self) -> Error {
        Error::Setup { doing: "mounting the overlay".to_owned(), reason: self.reason() }
    }
}

/// A detached mount of a directory of the host, which hears of nothing that is mounted there later.
pub(crate) fn bind_alone(dir: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let bound = bind(dir, false).map_err(Error::io("binding", "a copy"))?;
    let changed = sys::mount::set_propagation(bound.as_fd(), MountPropagationFlags::PRIVATE.bits().into())
        .and_then(|()| sys::mount::add_attributes(bound.as_fd(), attributes, false));
    match changed {
        Ok(()) => Ok(bound),
        Err(Errno::NOSYS) => {
            Err(Error::Unsupported("where no overlay can be mounted, Linux 5.12 is needed".to_owned()))
        }
        Err(errno) => Err(Error::io("binding", "a copy")(errno)),
    }
}

/// A detached tmpfs with the options given.
pub(crate) fn tmpfs(options: &[(&CStr, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    filesystem(c"tmpfs", options, attributes)
}

/// A detached file system that needs none of the container's namespaces.
pub(crate) fn filesystem(
    name: &CStr,
    options: &[(&CStr, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let make = || {
        let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            if value.is_empty() {
                fsconfig_set_flag(&context, *key)?;
            } else {
                fsconfig_set_string(&context, *key, *value)?;
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(Error::io("mounting", name.to_string_lossy().as_ref()))
}

fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What the kernel has to say about a mount that it refused.
fn messages(context: &OwnedFd) -> String {
    let mut said = String::new();
    let mut buffer = [0; 512];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        // A letter for its kind and a blank come first.
        said.push_str("; ");
        said.push_str(line.get(2..).unwrap_or(&line).trim_end());
        if length == 0 {
            break;
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories `0`, `1` … each with a file of its own name, and an upper and a work directory.
    fn layers(count: usize) -> (tempfile::TempDir, Vec<OwnedFd>, OwnedFd, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(format!("file{name}")), name).unwrap();
            OwnedFd::from(std::fs::File::open(path).unwrap())
        };
        let lowers = (0..count).map(|n| make(&n.to_string())).collect();
        let (upper, work) = (make("upper"), make("work"));
        std::fs::remove_file(dir.path().join("work/filework")).unwrap();
        (dir, lowers, upper, work)
    }

    fn names(mount: &OwnedFd) -> usize {
        let dir =
            rustix::fs::openat(mount, c".", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let entries = rustix::fs::Dir::new(dir).unwrap();
        entries.filter(|e| e.as_ref().unwrap().file_name().to_bytes().starts_with(b"file")).count()
    }

    #[test]
    fn both_ways_to_name_the_layers_mount_the_same() {
        let (_dir, lowers, upper, work) = layers(40);
        let overlay = Overlay {
            lowers: lowers.iter().rev().map(AsFd::as_fd).collect(),
            upper: Some((upper.as_fd(), work.as_fd())),
            user_xattrs: false,
            attributes: MountAttrFlags::MOUNT_ATTR_NODEV,
        };
        let mount = overlay.mount().unwrap();
        assert_eq!(names(&mount), 41);
        drop(mount);
        let read_only = Overlay { lowers: overlay.lowers, upper: None, ..overlay };
        let mut said = String::new();
        assert_eq!(
            names(&read_only.with_layers_in_a_list(&mut said).expect("the kernel takes the list")),
            40
        );
    }

    #[test]
    fn a_refusal_says_why() {
        let (_dir, lowers, upper, _work) = layers(1);
        let file = tempfile::tempfile().unwrap();
        let overlay = Overlay {
            lowers: vec![lowers[0].as_fd()],
            upper: Some((upper.as_fd(), file.as_fd())),
            user_xattrs: false,
            attributes: MountAttrFlags::MOUNT_ATTR_NODEV,
        };
        let error = overlay.mount().unwrap_err().into_error().to_string();
        assert!(error.starts_with("mounting the overlay: "), "{error}");
    }
}
