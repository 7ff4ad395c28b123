//! Platforms as `os[(version+feature…)]/architecture[/variant]`, written, normalised and matched as containerd does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which release of the system an image is made for.
pub const OS_VERSION: &str = "os.version";
/// What the system must have for it, as a list.
pub const OS_FEATURES: &str = "os.features";

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `os.version`, `os.features` and whatever else a document carries.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// A JSON value that can be hashed and ordered, by its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl std::hash::Hash for Json {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_string().hash(state);
    }
}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Json {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = normalise(architecture, variant);
        Platform { os: os.to_ascii_lowercase(), architecture, variant, extra: BTreeMap::new() }
    }

    /// The platform this binary was built for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// Whether an image for `self` runs where `wanted` is asked for.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        let (mine, theirs) = (self.normalised(), wanted.normalised());
        mine.variant == theirs.variant && self.fits_but_for_variant(wanted)
    }

    /// As [`Platform::satisfies`], for another variant of the same machine too.
    pub(crate) fn fits_but_for_variant(&self, wanted: &Platform) -> bool {
        self.normalised().architecture == wanted.normalised().architecture
            && self.fits_but_for_machine(wanted)
    }

    /// As [`Platform::satisfies`], whatever the machine: whether the system is the one, of such a release, and has what is needed.
    pub fn fits_but_for_machine(&self, wanted: &Platform) -> bool {
        let (mine, features) = (self.normalised(), wanted.os_features());
        mine.os == wanted.normalised().os
            && (mine.os != "windows" || is_for_windows(self.os_version(), wanted.os_version()))
            && self.os_features().iter().all(|feature| features.contains(feature))
    }

    /// Where both name a build of Windows, how far the one of `self` lies behind that which is `wanted`; the very
    /// version comes first, and last what names none.
    pub(crate) fn windows_behind(&self, wanted: &Platform) -> u32 {
        let Some((_, host)) = wanted.os_version().and_then(windows_build) else { return 0 };
        match self.os_version() {
            _ if wanted.os != "windows" => 0,
            same if same == wanted.os_version() => 0,
            None => u32::MAX,
            Some(own) => windows_build(own).map_or(u32::MAX, |(_, own)| 1 + u32::from(host.abs_diff(own))),
        }
    }

    /// Whether both are written the same way once they are normalised.
    pub fn is_same(&self, other: &Platform) -> bool {
        self.normalised().to_string() == other.normalised().to_string()
    }

    /// By the one name that each system and machine has.
    pub fn normalised(&self) -> Platform {
        let extra = self.extra.clone();
        Platform { extra, ..Platform::new(&self.os, &self.architecture, self.variant.as_deref()) }
    }

    /// The release of the system; that of Windows says on which machines an image runs.
    pub fn os_version(&self) -> Option<&str> {
        self.extra.get(OS_VERSION)?.0.as_str().filter(|version| !version.is_empty())
    }

    /// Sorted, each once.
    fn os_features(&self) -> BTreeSet<&str> {
        let list = self.extra.get(OS_FEATURES).and_then(|json| json.0.as_array());
        list.into_iter().flatten().filter_map(|feature| feature.as_str()).filter(|f| !f.is_empty()).collect()
    }

    /// Takes `VERSION+FEATURE+FEATURE`, of which any part may be absent; none if that is not what it is.
    fn set_options(&mut self, options: &str) -> Option<()> {
        let (version, features) = options.split_once('+').map_or((options, None), |(v, f)| (v, Some(f)));
        let version = decoded(version)?;
        if !version.is_empty() {
            self.extra.insert(OS_VERSION.to_owned(), Json(version.into()));
        }
        if let Some(features) = features {
            let feature = |text| decoded(text).filter(|feature| !feature.is_empty());
            let features: BTreeSet<String> = features.split('+').map(feature).collect::<Option<_>>()?;
            self.extra.insert(OS_FEATURES.to_owned(), Json(features.into_iter().collect()));
        }
        Some(())
    }
}

/// The Windows that containers for each later one run on as well: Server 2022.
const FIRST_STABLE_WINDOWS: u16 = 20348;

/// Whether what is made for one release of Windows runs on another: only on that build of it, until Server 2022; from
/// there on also on later ones. Where one says no version, on any.
fn is_for_windows(offered: Option<&str>, wanted: Option<&str>) -> bool {
    let (Some(offered), Some(host)) = (offered, wanted.and_then(windows_build)) else { return true };
    let Some((offered, build)) = windows_build(offered) else { return false };
    offered == host.0
        && if host.1 < FIRST_STABLE_WINDOWS {
            build == host.1
        } else {
            (FIRST_STABLE_WINDOWS..=host.1).contains(&build)
        }
}

/// `10.0` and `20348` of `10.0.20348.1`.
fn windows_build(version: &str) -> Option<((u8, u8), u16)> {
    let mut parts = version.split('.');
    let release = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((release, parts.next()?.parse().ok()?))
}

fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
    let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", v) => {
            ("amd64".to_owned(), v.filter(|v| *v != "v1").map(str::to_owned))
        }
        ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386".to_owned(), None),
        ("aarch64" | "arm64", v) => {
            ("arm64".to_owned(), v.filter(|v| !matches!(*v, "v8" | "8")).map(str::to_owned))
        }
        ("armhf", _) => ("arm".to_owned(), Some("v7".to_owned())),
        ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
        ("arm", None | Some("7")) => ("arm".to_owned(), Some("v7".to_owned())),
        ("arm", Some(v @ ("5" | "6" | "8"))) => ("arm".to_owned(), Some(format!("v{v}"))),
        ("powerpc64le", v) => ("ppc64le".to_owned(), v.map(str::to_owned)),
        (other, v) => (other.to_owned(), v.map(str::to_owned)),
    };
    (architecture, variant)
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let invalid = |reason: String| Error::invalid("platform", text, reason);
        let (first, rest) = text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)));
        // As containerd has it: `windows(10.0.20348.1+win32k)/amd64`.
        let (os, options) = match first.split_once('(') {
            Some((os, options)) => match options.strip_suffix(')') {
                Some(options) => (os, Some(options)),
                None => return Err(invalid("expected OS(VERSION)/ARCHITECTURE".to_owned())),
            },
            None => (first, None),
        };
        let parts: Vec<&str> =
            std::iter::once(os).chain(rest.into_iter().flat_map(|r| r.split('/'))).collect();
        if let Some(bad) = parts.iter().find(|part| part.is_empty() || !part.bytes().all(is_plain)) {
            return Err(invalid(format!("invalid component {bad:?}")));
        }
        if os.contains('.') {
            return Err(invalid(format!("invalid operating system {os:?}")));
        }
        let system = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let mut platform = match parts[..] {
            [_] if SYSTEMS.contains(&&*system) => Platform::new(&system, std::env::consts::ARCH, None),
            [_] if options.is_some() => {
                return Err(invalid(format!("{os:?} is not an operating system that is known")));
            }
            [architecture] => {
                let platform = Platform::new("linux", architecture, None);
                if !MACHINES.contains(&&*platform.architecture) {
                    return Err(invalid("unknown operating system or architecture".to_owned()));
                }
                platform
            }
            [_, architecture] => Platform::new(&system, architecture, None),
            [_, architecture, variant] => Platform::new(&system, architecture, Some(variant)),
            _ => return Err(invalid("more than three components".to_owned())),
        };
        let options = options.unwrap_or_default();
        let understood = platform.set_options(options);
        understood.ok_or_else(|| invalid(format!("invalid version or features {options:?}")))?;
        Ok(platform)
    }
}

/// What containerd takes for an operating system where it stands alone.
#[rustfmt::skip]
const SYSTEMS: &[&str] = &[
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd", "openbsd",
    "plan9", "solaris", "windows", "zos",
];

/// The same for an architecture.
#[rustfmt::skip]
const MACHINES: &[&str] = &[
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips", "mipsle", "mips64",
    "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm",
];

/// What stands for itself in every part.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// A version or feature, in which `%2B` stands for `+`; none if it is broken, or has control characters, which containerd takes.
/// What is printed as it is can be read as it is, which containerd refuses: a key's platform is read again.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte if stands_for_itself(byte) => byte,
            _ => return None,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.contains(char::is_control))
}

/// In a version or feature.
fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'%' | b'+' | b'(' | b')' | b'/')
}

/// As containerd writes it: what would be read as something else stands as `%2B`. Here that is also so for what is no printable
/// ASCII, which terminals may obey; it is read as what it was.
fn encoded(text: &str) -> String {
    let one = |byte| match byte {
        byte if stands_for_itself(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        let (version, features) = (self.os_version(), self.os_features());
        if version.is_some() || !features.is_empty() {
            let features: String = features.iter().map(|feature| format!("+{}", encoded(feature))).collect();
            write!(f, "({}{features})", encoded(version.unwrap_or_default()))?;
        }
        write!(f, "/{}", self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_machine_are_one_platform() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/ARM/6", "linux/arm/v6"),
            ("linux/i686", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
        for (text, normal) in [
            ("windows(10.0.20348.1)/amd64", "windows(10.0.20348.1)/amd64"),
            ("Windows()/x86_64", "windows/amd64"),
            ("macOS/arm64", "darwin/arm64"),
            ("linux(+simd+gpu+gpu)/amd64", "linux(+gpu+simd)/amd64"),
            ("windows(1%2b%28%41%29%2F..+win32k)/arm/7", "windows(1%2B%28A%29%2F..+win32k)/arm/v7"),
            ("windows(50%25done)/amd64", "windows(50%25done)/amd64"),
            ("linux(+100%25gpu+feat%2Bv2)/amd64", "linux(+100%25gpu+feat%2Bv2)/amd64"),
            ("windows(%C3%A9%E2%80%AE)/amd64", "windows(%C3%A9%E2%80%AE)/amd64"),
            ("windows(10%3A0%20rc%7E1+a%2Cb)/amd64", "windows(10:0 rc~1+a,b)/amd64"),
            ("openbsd(7.1)/riscv64", "openbsd(7.1)/riscv64"),
            ("riscv64", "linux/riscv64"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), normal);
            assert_eq!(normal.parse::<Platform>().unwrap(), platform);
        }
        let alone: Platform = "windows(10.0.17763)".parse().unwrap();
        assert_eq!(alone.os_version(), Some("10.0.17763"));
        for bad in [
            "linux/a/b/c",
            "windows(10/amd64",
            "windows(1)x/amd64",
            "windows(1)(2)/amd64",
            "windows(1/2)/amd64",
            "windows(%)/amd64",
            "windows(%+1)/amd64",
            "windows(%1B)/amd64",
            "windows(%FF)/amd64",
            "windows(1+)/amd64",
            "B(rc)",
            "(1)/amd64",
            "windows(1\t2)/amd64",
            "windows(\u{e9})/amd64",
            "B",
            "linux.x/amd64",
        ] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn windows_runs_what_is_made_for_its_build_and_from_server_2022_on_for_earlier_ones() {
        for (offered, wanted, fits) in [
            ("windows(10.0.17763.5)", "windows(10.0.17763.1)", true),
            ("windows(10.0.17763.5)", "windows(10.0.20348.1)", false),
            ("windows(10.0.14393)", "windows(10.0.17763)", false),
            ("windows(10.0.20348.9)", "windows(10.0.26100.1)", true),
            ("windows(10.0.26100.1)", "windows(10.0.20348.9)", false),
            ("windows(11.0.20348)", "windows(10.0.20348)", false),
            ("windows(new)", "windows(10.0.20348)", false),
            ("windows(10.0.17763)", "windows(new)", true),
            ("windows(10.0.17763)", "windows", true),
            ("windows", "windows(10.0.17763)", true),
            ("linux(1)", "linux(2)", true),
            ("linux(+a)", "linux", false),
            ("linux(+a)", "linux(+a+b)", true),
            ("linux", "linux(+a)", true),
        ] {
            let [offered, wanted] = [offered, wanted].map(|text| text.parse::<Platform>().unwrap());
            assert_eq!(offered.satisfies(&wanted), fits, "{offered} for {wanted}");
        }
    }
}
