//! Programs that this machine could not start because they are another one's: what to say of them, by the words in
//! which the kernel's refusal is told.

use std::ffi::OsStr;

use boxwright_cache::oci::Platform;
use boxwright_executor::emulate;

use crate::doctor::advice;

/// What may help, if `message` says that a program was there and the kernel found nothing to start it with.
/// `emulators` is where emulators are looked for.
pub(super) fn help(message: &str, platform: &Platform, emulators: &OsStr) -> Option<String> {
    let format = message.ends_with("exec format error");
    // Other than a program that is not there, which is not found before the attempt.
    let interpreter = message.contains("exec /") && message.ends_with("no such file or directory");
    let host = Platform::host();
    match emulate::mounts(platform, emulators) {
        Err(lack) if format || interpreter => {
            let commands = advice::emulator(&lack).join(" && ");
            let todo = if commands.is_empty() { String::new() } else { format!("; as root: {commands}") };
            Some(format!("{platform} needs an emulator on {host}: {}{todo}", advice::lack(&lack)))
        }
        Ok(_) if format => Some(format!(
            "this machine is {host}, and runs programs of another one only if an emulator is registered with binfmt_misc"
        )),
        _ => None,
    }
}
