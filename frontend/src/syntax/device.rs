//! `--device` of RUN: the name of a CDI device, and whether the step can do without it.

use crate::ast::{Device, Word};
use crate::csv;
use crate::diagnostic::Diagnostic;
use crate::notation::parse_bool;

const KEYS: [&str; 2] = ["name", "required"];

pub(super) fn parse(word: &Word) -> Result<Device, Box<Diagnostic>> {
    let fail = |message: String| Box::new(Diagnostic::error(message, word.span));
    let fields =
        csv::fields(&word.text).map_err(|reason| fail(format!("failed to parse csv devices: {reason}")))?;
    let mut device = Device { name: String::new(), required: false, span: word.span };
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                let invalid = || fail(format!("invalid value for required: {value}"));
                device.required = parse_bool(value).ok_or_else(invalid)?;
            }
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(fail(format!("device name already set to {}", device.name)));
            }
            ("name", Some(value)) => value.clone_into(&mut device.name),
            // `vendor.com/class=name` stands for itself.
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(fail(format!("invalid field '{field}' must be a key=value pair"))),
            (key, Some(_)) => {
                let unknown = Diagnostic::error(format!("unexpected key '{key}' in '{field}'"), word.span);
                return Err(Box::new(unknown.did_you_mean(key, KEYS)));
            }
        }
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::Span;

    fn device(text: &str) -> Result<(String, bool), String> {
        let parsed = parse(&Word { text: text.to_owned(), span: Span::default() });
        parsed.map(|device| (device.name, device.required)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_has_a_name_and_may_be_required() {
        for (text, name, required) in [
            ("vendor1.com/device=foo", "vendor1.com/device=foo", false),
            ("vendor1.com/device", "vendor1.com/device", false),
            ("name=vendor1.com/device=foo,required", "vendor1.com/device=foo", true),
            ("vendor1.com/device=*,required=false", "vendor1.com/device=*", false),
        ] {
            assert_eq!(device(text), Ok((name.to_owned(), required)), "{text}");
        }
        for (text, message) in [
            ("a=b,name=c", "device name already set to a=b"),
            ("a=b,c", "invalid field 'c' must be a key=value pair"),
            ("a=b,requird=true", "unexpected key 'requird' in 'requird=true' (did you mean required?)"),
            ("a=b,required=perhaps", "invalid value for required: perhaps"),
        ] {
            assert_eq!(device(text), Err(message.to_owned()), "{text}");
        }
    }
}
