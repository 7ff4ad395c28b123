//! The commands that change something.

use std::path::Path;

use boxwright_executor::emulate::Lack;

/// A program's package, for each of the managers that we know.
pub(super) type Package = [(&'static str, &'static str)];

pub(super) const GIT: [(&str, &str); 5] = [
    ("/usr/bin/apt-get", "apt-get install git"),
    ("/usr/bin/dnf", "dnf install git"),
    ("/usr/bin/zypper", "zypper install git"),
    ("/sbin/apk", "apk add git"),
    ("/usr/bin/pacman", "pacman -S git"),
];

pub(super) const UIDMAP: [(&str, &str); 5] = [
    ("/usr/bin/apt-get", "apt-get install uidmap"),
    ("/usr/bin/dnf", "dnf install shadow-utils"),
    ("/usr/bin/zypper", "zypper install shadow"),
    ("/sbin/apk", "apk add shadow-uidmap"),
    ("/usr/bin/pacman", "pacman -S shadow"),
];

pub(super) const SLIRP: [(&str, &str); 5] = [
    ("/usr/bin/apt-get", "apt-get install slirp4netns"),
    ("/usr/bin/dnf", "dnf install slirp4netns"),
    ("/usr/bin/zypper", "zypper install slirp4netns"),
    ("/sbin/apk", "apk add slirp4netns"),
    ("/usr/bin/pacman", "pacman -S slirp4netns"),
];

const EMULATOR: [(&str, &str); 3] = [
    ("/usr/bin/apt-get", "apt-get install qemu-user-static binfmt-support"),
    ("/usr/bin/dnf", "dnf install qemu-user-static"),
    ("/usr/bin/pacman", "pacman -S qemu-user-static qemu-user-static-binfmt"),
];

/// By the package manager that is there.
pub(super) fn install(package: &Package) -> Option<String> {
    let found = package.iter().find(|(manager, _)| Path::new(manager).exists());
    found.map(|(_, command)| (*command).to_owned())
}

/// Why programs of another machine don't run.
pub(crate) fn lack(lack: &Lack) -> String {
    match lack {
        Lack::Missing { name } => {
            format!("no emulator is registered with binfmt_misc, nor is there a {name}")
        }
        Lack::Unregistered { program, .. } => {
            format!("{} is not registered with binfmt_misc", program.display())
        }
        Lack::Unusable { program, why } => format!(
            "the emulator is registered without the flag F, so containers need it themselves, as {}: {why}",
            program.display()
        ),
    }
}

/// The kernel's list has to be mounted for an emulator to be put into it.
pub(crate) fn emulator(lack: &Lack) -> Vec<String> {
    let dir = "/proc/sys/fs/binfmt_misc";
    let status = std::fs::read_to_string(Path::new(dir).join("status"));
    let mut commands = match status.as_deref().map(str::trim) {
        Ok("disabled") => vec![format!("echo 1 > {dir}/status")],
        Ok(_) => Vec::new(),
        Err(_) => vec![format!("mount -t binfmt_misc binfmt_misc {dir}")],
    };
    match lack {
        Lack::Unregistered { entry, .. } => commands.push(format!("printf %s '{entry}' > {dir}/register")),
        Lack::Missing { .. } | Lack::Unusable { .. } => commands.extend(install(&EMULATOR)),
    }
    commands
}

/// A range for `user` in each of the files.
pub(super) fn ranges(user: &str, files: &[String]) -> Vec<String> {
    let texts = files.iter().map(|file| (file, std::fs::read_to_string(file).unwrap_or_default()));
    texts.map(|(file, text)| format!("echo '{user}:{}:65536' >> {file}", free_range(&text))).collect()
}

/// The first id behind all ranges that there are.
fn free_range(text: &str) -> u64 {
    let end = |line: &str| {
        let mut numbers = line.trim().split(':').skip(1).map(|field| field.parse::<u64>().ok());
        Some(numbers.next()??.saturating_add(numbers.next()??))
    };
    text.lines().filter_map(end).max().unwrap_or(0).max(100_000)
}

/// For the device by which a program speaks for a container, which is for everybody where udev makes it.
pub(super) fn tunnels() -> Option<String> {
    let device = "/dev/net/tun";
    match std::fs::File::options().read(true).write(true).open(device) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Some(format!("chmod 666 {device}")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some("modprobe tun".to_owned()),
        _ => None,
    }
}

/// For what keeps users from making user namespaces.
pub(super) fn user_namespaces() -> Vec<String> {
    let settings = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    let is = |name: &str, value: &str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
    };
    let wrong = settings.iter().filter(|(name, bad, _)| is(name, bad));
    wrong.map(|(name, _, good)| format!("sysctl -w {name}={good}")).collect()
}

#[cfg(test)]
mod tests {
    use super::free_range;

    #[test]
    fn a_new_range_is_nobodys() {
        assert_eq!(free_range(""), 100_000);
        assert_eq!(free_range("# comment\nann:100000:65536\nbob:300000:65536\ncarl:165536:65536\n"), 365_536);
        assert_eq!(free_range("ann:1000:5\nbad:x:1\n"), 100_000);
    }
}
