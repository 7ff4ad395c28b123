//! `verify`.

use super::Session;
use super::build::Build;
use crate::call;
use crate::error::{Error, Result};

/// Build twice and name the first difference; takes the arguments of build, but leaves no image anywhere
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    build: Build,
}

impl Verify {
    pub(super) fn is_rawjson(&self) -> bool {
        self.build.is_rawjson()
    }

    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let verified = self.build.verify(session)?;
        let several = verified.images.len() > 1;
        for image in &verified.images {
            let platform = if several { format!("{} ", image.platform) } else { String::new() };
            match &image.difference {
                None => session.print(format_args!("{platform}{}", image.id))?,
                Some(lines) => {
                    session.print(format_args!("{platform}the builds differ"))?;
                    for line in lines {
                        session.print(call::visible(line).replace('\n', "\\n"))?;
                    }
                }
            }
        }
        if verified.images.iter().any(|image| image.difference.is_some()) {
            Err(Error::Found)
        } else {
            Ok(())
        }
    }
}
