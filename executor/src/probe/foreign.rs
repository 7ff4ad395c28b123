//! Programs of other machines: the smallest there can be is run as one of an image would be, in a root that has
//! nothing else but what a container would get for it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use boxwright_cache::oci::Platform;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Answer;
use super::child::{attempt, attempt_in_namespace};
use super::overlay::{mounted, open};
use super::scratch::Scratch;
use crate::emulate::{self, Interpreter, Lack};

/// The architectures for which there is a program to try.
pub const PLATFORMS: &[&str] = &["amd64", "arm64"];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Emulation {
    Works,
    /// The kernel has nobody who could run such programs in a container; what is lacking, if that is known.
    Lacking(Option<Lack>),
    /// Somebody ran it, and not well.
    Broken,
}

/// What the program ends with.
const CODE: u8 = 42;

/// Runs a program for `architecture`, one of [`PLATFORMS`]. `emulators` is where emulators are looked for.
///
/// # Errors
/// When it can't be tried.
pub fn emulation(store: &Path, architecture: &str, emulators: &OsStr) -> Answer<Emulation> {
    attempt_in_namespace(0, || {
        let scratch = Scratch::below(store)?;
        scratch.dir("top")?;
        let path = scratch.file("top/program", &program(architecture)?)?;
        make_executable(&path)?;
        let platform = Platform::new("linux", architecture, None);
        let (interpreters, lack) = match emulate::interpreters(&platform, emulators) {
            Ok(interpreters) => (interpreters, None),
            Err(lack) => (Vec::new(), Some(lack)),
        };
        interpreters.into_iter().try_for_each(|interpreter| place(&scratch, interpreter))?;
        // What is told of overlays elsewhere is no obstacle here.
        let root = mounted(&scratch).or_else(|_| open(&scratch.path("top")))?;
        attempt(0, || {
            let entered = rustix::process::fchdir(&root).and_then(|()| rustix::process::chroot(c"."));
            entered.map_err(|e| format!("entering the root: {e}"))?;
            run(lack)
        })
    })
}

fn make_executable(path: &Path) -> Answer {
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, executable).map_err(|e| format!("making {}: {e}", path.display()))
}

/// A copy does here what a mount does in a container.
fn place(scratch: &Scratch, mut interpreter: Interpreter) -> Answer {
    let name = format!("top/{}", interpreter.target.trim_start_matches('/'));
    if let Some((dir, _)) = name.rsplit_once('/') {
        scratch.dir(dir)?;
    }
    let path = scratch.path(&name);
    let failed = |e| format!("copying {}: {e}", interpreter.target);
    let mut copy = File::create_new(&path).map_err(failed)?;
    std::io::copy(&mut interpreter.file, &mut copy).map_err(failed)?;
    make_executable(&path)
}

fn run(lack: Option<Lack>) -> Answer<Emulation> {
    // There is no /dev in that root.
    let pipe = Stdio::piped;
    match Command::new("/program").stdin(pipe()).stdout(pipe()).stderr(pipe()).output() {
        Ok(output) if output.status.code() == Some(CODE.into()) => Ok(Emulation::Works),
        Ok(_) => Ok(Emulation::Broken),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOEXEC | Errno::NOENT) => Ok(Emulation::Lacking(lack)),
            _ => Err(format!("running a program: {error}")),
        },
    }
}

fn program(architecture: &str) -> Answer<Vec<u8>> {
    match architecture {
        // mov edi, CODE; mov eax, 60 (exit); syscall
        "amd64" => Ok(elf(62, &[0xbf, CODE, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05])),
        // mov x0, CODE; mov x8, 93 (exit); svc 0
        "arm64" => {
            let words = [0xd280_0000 | u32::from(CODE) << 5, 0xd280_0ba8, 0xd400_0001];
            Ok(elf(183, &words.map(u32::to_le_bytes).concat()))
        }
        other => Err(format!("there is no program to try for {other}")),
    }
}

/// A static program of 64 bits, little-endian, that is one segment: its headers and then the code.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    let shorts = |out: &mut Vec<u8>, values: &[u16]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let longs = |out: &mut Vec<u8>, values: &[u64]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    // An executable; version 1.
    shorts(&mut out, &[2, machine, 1, 0]);
    // Where it starts, where the segments are listed, no sections.
    longs(&mut out, &[BASE + HEADERS, 64, 0]);
    // No flags; the sizes of the headers, one segment.
    shorts(&mut out, &[0, 0, 64, 56, 1, 0, 0, 0]);
    // To be loaded, readable and executable.
    shorts(&mut out, &[1, 0, 5, 0]);
    let size = HEADERS + code.len() as u64;
    longs(&mut out, &[0, BASE, BASE, size, size, 0x1_0000]);
    out.extend_from_slice(code);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_for_this_machine_runs() {
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, program(own).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Command::new(path).status().unwrap().code(), Some(CODE.into()));
        for other in PLATFORMS {
            assert!(program(other).is_ok(), "{other}");
        }
    }
}
