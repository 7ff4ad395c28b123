//! `--filter NAME=VALUE`.

use crate::engine::ImageFilter;
use crate::error::Result;

/// A filter's name and value; both are empty when nothing was given.
pub(crate) type Pair = (String, String);

pub(crate) fn pair(text: &str) -> Result<Pair, String> {
    if text.is_empty() {
        return Ok(Pair::default());
    }
    let (name, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok((name.trim().to_lowercase(), value.trim().to_owned()))
}

/// The filters of a list of images.
pub(crate) fn images(pairs: &[Pair]) -> Result<Vec<ImageFilter>> {
    let given = pairs.iter().filter(|pair| **pair != Pair::default());
    given.map(|(name, value)| ImageFilter::parse(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_name_and_a_value() {
        assert_eq!(pair(" Label =a=b"), Ok(("label".to_owned(), "a=b".to_owned())));
        assert_eq!(pair("label!=a"), Ok(("label!".to_owned(), "a".to_owned())));
        assert!(pair("dangling").is_err());
        assert_eq!(images(&[pair("").unwrap()]).unwrap(), []);
    }
}
