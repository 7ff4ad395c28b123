//! Reading a `.dockerignore` file into patterns, normalised as moby's `ignorefile` does. Matching is elsewhere.

/// The patterns in order: comments and blank lines dropped, blanks trimmed, paths cleaned, leading slashes cut;
/// exceptions keep their `!`.
pub fn parse(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    text.split('\n').filter_map(pattern).collect()
}

fn pattern(line: &str) -> Option<String> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (exception, path) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        return Some(exception.to_owned());
    }
    let clean = clean_path(path);
    let clean = if clean.len() > 1 { clean.strip_prefix('/').unwrap_or(&clean) } else { &clean };
    Some(format!("{exception}{clean}"))
}

/// Go's `path.Clean`.
pub(crate) fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let mut clean = String::with_capacity(path.len() + 1);
    for part in parts {
        if rooted || !clean.is_empty() {
            clean.push('/');
        }
        clean.push_str(part);
    }
    if clean.is_empty() {
        clean.push(if rooted { '/' } else { '.' });
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_clean_patterns() {
        let text = b"\xef\xbb\xbf# c\r\n /a/../b/ \r\n\n!  /x//y\n!\n#d\n ./z\n/\n..\n";
        assert_eq!(parse(text), ["b", "!x/y", "!", "z", "/", ".."]);
    }

    #[test]
    fn a_comment_starts_in_the_first_column() {
        assert_eq!(parse(b" # x"), ["# x"]);
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, clean) in
            [("", "."), ("a//b/./c/", "a/b/c"), ("/../a", "/a"), ("a/..", "."), ("../../a", "../../a")]
        {
            assert_eq!(clean_path(path), clean);
        }
    }
}
