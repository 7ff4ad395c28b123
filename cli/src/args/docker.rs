//! Flags of `build` that docker's scripts pass and that have nothing to change here: what they ask for is so anyway, or
//! they are refused.

use boxwright_frontend::gitref::parse_bool;

use super::fields::Fields;
use crate::error::{Error, Result};
use crate::report;

#[derive(Debug, clap::Args)]
pub(crate) struct DockerFlags {
    /// Accepted for docker's sake: no container is ever left over
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    rm: bool,
    /// Accepted for docker's sake: no container is ever left over
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Accepted for docker's sake: no context is sent anywhere
    #[arg(long, hide = true)]
    compress: bool,
    /// Accepted for docker's sake: there is one builder, whatever it is called
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
    #[command(flatten)]
    trust: ContentTrust,
    /// How containers are kept apart: `default`
    #[arg(long, value_name = "KIND", hide = true)]
    isolation: Option<String>,
    /// Accepted for docker's sake, with a warning: `--allow security.insecure` is what lets steps do more
    #[arg(long, value_name = "OPTION", hide = true)]
    security_opt: Vec<String>,
    /// Attestations of the image, as `type=sbom,disabled=true`: none can be made yet
    #[arg(long, value_name = "ATTESTATION", hide = true)]
    attest: Vec<String>,
    /// The same as --attest=type=provenance: only `false` so far
    #[arg(long, value_name = "ATTESTATION")]
    provenance: Option<String>,
    /// The same as --attest=type=sbom: only `false` so far
    #[arg(long, value_name = "ATTESTATION")]
    sbom: Option<String>,
}

/// Docker's flag of `build`, `run`, `pull` and `push`.
#[derive(Debug, clap::Args)]
pub(crate) struct ContentTrust {
    /// Accepted for docker's sake: signatures are not looked at
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::boolean, hide = true)]
    disable_content_trust: bool,
}

impl ContentTrust {
    /// Refuses to be asked for signatures.
    pub(crate) fn check(&self) -> Result<()> {
        match self.disable_content_trust {
            true => Ok(()),
            false => Err(Error::Later("--disable-content-trust=false".to_owned())),
        }
    }
}

impl DockerFlags {
    /// Refuses what would change something.
    pub(crate) fn check(&self) -> Result<()> {
        self.trust.check()?;
        isolation(self.isolation.as_deref().unwrap_or_default())?;
        if !self.rm {
            report::remark_once("WARNING: not heeded: --rm=false; there is no container to be left over");
        }
        if !self.security_opt.is_empty() {
            report::remark_once(
                "WARNING: not heeded: --security-opt; `RUN --security=insecure` and `--allow security.insecure` are what \
                 lets a step do more",
            );
        }
        let shorthands = [("provenance", &self.provenance), ("sbom", &self.sbom)];
        for (kind, text) in shorthands {
            if text.as_ref().is_some_and(|text| !text.is_empty() && parse_bool(text) != Some(false)) {
                return Err(later(kind));
            }
        }
        self.attest.iter().filter(|text| !text.is_empty()).try_for_each(|text| attestation(text))
    }
}

pub(super) fn isolation(kind: &str) -> Result<()> {
    if matches!(kind, "" | "default") {
        return Ok(());
    }
    Err(Error::invalid(format!("--isolation {kind}: on Linux there is only \"default\"")))
}

/// `type=KIND,disabled=true` is so anyway.
fn attestation(text: &str) -> Result<()> {
    let invalid = || Error::invalid(format!("invalid --attest {text:?}: type is required"));
    let mut fields = Fields::read(text, "--attest")?.ok_or_else(invalid)?;
    let kind = fields.kind()?;
    if !matches!(kind.as_str(), "provenance" | "sbom") {
        return Err(fields.invalid(&format!("{kind:?} is neither provenance nor sbom")));
    }
    if fields.boolean("disabled")? == Some(true) { Ok(()) } else { Err(later(&kind)) }
}

fn later(kind: &str) -> Error {
    Error::Later(format!("a {kind} attestation (--{kind}=false builds without)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::commands::Command;

    fn check(line: &str) -> Result<(), String> {
        let words = line.split(' ').map(std::ffi::OsString::from);
        let args: Args = super::super::parse(words).map_err(|error| format!("{error:?}"))?;
        let Command::Build(build) = args.command else { panic!("a build") };
        build.docker.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_so_anyway_is_accepted_and_what_is_not_is_refused() {
        for flags in [
            "--provenance=false --sbom=false --attest type=sbom,disabled=true",
            "--provenance false --sbom= --attest=type=provenance,mode=max,disabled=1",
            "--compress --rm=false --force-rm --security-opt label=disable --builder some --isolation default --disable-content-trust",
        ] {
            assert_eq!(check(&format!("boxwright build {flags} .")), Ok(()), "{flags}");
        }
        for (flags, words) in [
            (
                "--provenance=true",
                "a provenance attestation (--provenance=false builds without) is not supported yet",
            ),
            ("--provenance mode=max", "a provenance attestation"),
            ("--sbom true", "a sbom attestation"),
            ("--attest type=sbom,generator=x", "a sbom attestation"),
            ("--attest type=seal", "neither provenance nor sbom"),
            ("--attest sbom", "type is required"),
            ("--isolation hyperv", "on Linux there is only \"default\""),
            ("--disable-content-trust=false", "--disable-content-trust=false is not supported yet"),
        ] {
            let refused = check(&format!("boxwright build {flags} .")).unwrap_err();
            assert!(refused.contains(words), "{flags}: {refused}");
        }
    }
}
