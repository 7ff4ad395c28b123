//! The values of flags that are lists of `name=value`.

use boxwright_frontend::{csv, gitref::parse_bool};

use crate::error::{Error, Result};

/// `name=value,name=value`.
pub(super) struct Fields<'a> {
    flag: &'a str,
    text: &'a str,
    fields: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    /// None for a text that is no list of fields.
    pub(super) fn read(text: &'a str, flag: &'a str) -> Result<Option<Fields<'a>>> {
        if !text.contains('=') {
            return Ok(None);
        }
        let invalid = |reason: &str| Error::invalid(format!("invalid {flag} {text:?}: {reason}"));
        let mut fields = Vec::new();
        for field in csv::fields(text).map_err(|reason| invalid(&reason))? {
            let (name, value) =
                field.split_once('=').ok_or_else(|| invalid(&format!("{field:?} has no value")))?;
            let name = if super::annotation::is_option(name) { name.to_owned() } else { name.to_lowercase() };
            fields.push((name, value.to_owned()));
        }
        Ok(Some(Fields { flag, text, fields }))
    }

    pub(super) fn invalid(&self, reason: &str) -> Error {
        Error::invalid(format!("invalid {} {:?}: {reason}", self.flag, self.text))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.fields.iter().rposition(|(field, _)| field == name)?;
        Some(self.fields.remove(at).1)
    }

    /// All annotations' options, in order.
    pub(super) fn take_annotations(&mut self) -> Vec<(String, String)> {
        let is_one = |(name, _): &mut (String, String)| super::annotation::is_option(name);
        self.fields.extract_if(.., is_one).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    pub(super) fn kind(&mut self) -> Result<String> {
        self.take("type").ok_or_else(|| self.invalid("type is required"))
    }

    pub(super) fn required(&mut self, name: &str) -> Result<String> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| self.invalid(&format!("{name} is required")))
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        let value = self.take(name);
        value
            .map(|value| parse_bool(&value).ok_or_else(|| self.invalid(&format!("{name} is a truth value"))))
            .transpose()
    }

    /// What is not known is refused.
    pub(super) fn finish(self) -> Result<()> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::Later(format!("the option {name:?} of {}", self.flag))),
        }
    }
}
