//! One line of comma-separated values, by the rules of Go's `encoding/csv`: what `--mount`, `--device` and flags like
//! them are written in.

/// The fields of `line`.
///
/// # Errors
/// In Go's words.
pub fn fields(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let (field, end) = match line[at..].strip_prefix('"') {
            Some(_) => quoted(line, at + 1)?,
            None => plain(line, at)?,
        };
        fields.push(field);
        match end {
            Some(comma) => at = comma + 1,
            None => return Ok(fields),
        }
    }
}

/// The field, and where the comma after it is.
type Field = (String, Option<usize>);

fn plain(line: &str, at: usize) -> Result<Field, String> {
    let end = line[at..].find(',').map(|comma| at + comma);
    let field = &line[at..end.unwrap_or(line.len())];
    match field.find('"') {
        Some(quote) => Err(wrong(at + quote, "bare \" in non-quoted field")),
        None => Ok((field.to_owned(), end)),
    }
}

/// `at` is behind the quote that opens the field; two quotes in it are one.
fn quoted(line: &str, mut at: usize) -> Result<Field, String> {
    let mut field = String::new();
    loop {
        let Some(quote) = line[at..].find('"').map(|n| at + n) else {
            return Err(wrong(line.len(), "extraneous or missing \" in quoted-field"));
        };
        field.push_str(&line[at..quote]);
        at = quote + 1;
        match line.as_bytes().get(at) {
            None => return Ok((field, None)),
            Some(b',') => return Ok((field, Some(at))),
            Some(b'"') => field.push('"'),
            Some(_) => return Err(wrong(quote, "extraneous or missing \" in quoted-field")),
        }
        at += 1;
    }
}

fn wrong(at: usize, reason: &str) -> String {
    format!("parse error on line 1, column {}: {reason}", at + 1)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn fields_may_be_quoted() {
        for (line, expected) in [
            ("type=bind,target=/x", &["type=bind", "target=/x"][..]),
            ("a,,b,", &["a", "", "b", ""]),
            ("\"target=/a,b\",c", &["target=/a,b", "c"]),
            ("a,\"b\"\"c\"", &["a", "b\"c"]),
            ("\"\"", &[""]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_as_go_does() {
        assert_eq!(fields("").unwrap_err(), "EOF");
        assert_eq!(
            fields("a\"b").unwrap_err(),
            "parse error on line 1, column 2: bare \" in non-quoted field"
        );
        for line in ["\"a", "\"a\"b"] {
            assert!(
                fields(line).unwrap_err().ends_with("extraneous or missing \" in quoted-field"),
                "{line}"
            );
        }
    }
}
