//! `inspect` and `image inspect`.

use serde_json::Value;

use super::Session;
use crate::args::platform;
use crate::error::{Error, Result};
use crate::format::{Template, json};

/// Show everything that is known of an object, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// A Go template; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only objects of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Of an index the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
}

/// Show everything that is known of images, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct ImageInspect {
    /// A Go template; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Of an index the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl From<ImageInspect> for Inspect {
    fn from(image: ImageInspect) -> Inspect {
        let ImageInspect { format, platform, images } = image;
        Inspect { format, kind: Some("image".to_owned()), platform, names: images }
    }
}

impl Inspect {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let template = self.format.as_deref().filter(|f| !f.is_empty()).map(Template::parse).transpose()?;
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for name in &self.names {
            match self.look_up(session, name) {
                Ok(value) => found.push(value),
                Err(error) => errors.push(error),
            }
        }
        match template {
            Some(template) => found.iter().try_for_each(|v| session.print(template.render(v)?))?,
            None => session.print(json::pretty(&found))?,
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Several(errors)) }
    }

    fn look_up(&self, session: &Session<'_>, name: &str) -> Result<Value> {
        let platform = platform::one(self.platform.as_deref())?;
        match self.kind.as_deref() {
            Some("image") => Ok(session.engine.inspect(name, platform.as_ref())?),
            None | Some("") => session.engine.inspect(name, platform.as_ref()).map_err(|error| match error {
                Error::NoSuchImage(_) => Error::NoSuchObject(name.to_owned()),
                error => error,
            }),
            Some("container") => Err(Error::invalid(format!("No such container: {name}"))),
            Some(kind) => Err(Error::Later(format!("inspecting an object of type {kind:?}"))),
        }
    }
}
