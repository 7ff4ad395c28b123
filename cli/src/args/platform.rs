//! `--platform`, of one platform or of several.

use boxwright_cache::oci::Platform;

use crate::error::Result;

/// The variable that names the platform where no flag does, as docker has it.
pub(crate) const DEFAULT: &str = "DOCKER_DEFAULT_PLATFORM";

/// One; an empty text is none.
pub(crate) fn one(text: Option<&str>) -> Result<Option<Platform>> {
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

/// Those of all flags, each of which may name several with commas between; each once, in order.
pub(crate) fn several(flags: &[String]) -> Result<Vec<Platform>> {
    let mut asked: Vec<Platform> = Vec::new();
    for text in flags.iter().flat_map(|flag| flag.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        let platform = parse(text)?;
        if !asked.contains(&platform) {
            asked.push(platform);
        }
    }
    Ok(asked)
}

fn parse(text: &str) -> Result<Platform> {
    if text == "local" { Ok(Platform::host()) } else { Ok(text.parse()?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_repeated_flags_are_the_same() {
        let names = |flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            several(&flags).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let both = ["linux/amd64", "linux/arm/v7"];
        assert_eq!(names(&["linux/amd64, linux/arm"]).unwrap(), both);
        assert_eq!(names(&["amd64", "linux/x86_64,", "linux/armhf,linux/arm/v7"]).unwrap(), both);
        assert_eq!(names(&["local"]).unwrap(), [Platform::host().to_string()]);
        assert!(names(&[""]).unwrap().is_empty());
        assert!(names(&["linux/amd64,a b"]).unwrap_err().to_string().contains("\"a b\""));
        assert!(one(Some("")).unwrap().is_none());
    }
}
