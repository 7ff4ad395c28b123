//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*` and `?`, which no line end matches, and escapes.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Any,
    One,
    Char(char),
}

#[derive(Clone, Debug)]
pub(super) struct Glob {
    items: Vec<Item>,
}

impl Glob {
    pub(super) fn parse(pattern: &str) -> Result<Glob, String> {
        let mut items = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            items.push(match c {
                '*' => Item::Any,
                '?' => Item::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '/' | '}')) => Item::Char(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}'")),
                    None => return Err("invalid escape '\\' at the end".to_owned()),
                },
                c => Item::Char(c),
            });
        }
        Ok(Glob { items })
    }

    pub(super) fn cut_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = self.match_end(&chars, longest).unwrap_or(0);
        chars[end..].iter().collect()
    }

    pub(super) fn cut_suffix(&self, value: &str, longest: bool) -> String {
        let reversed = Glob { items: self.items.iter().rev().copied().collect() };
        let chars: Vec<char> = value.chars().rev().collect();
        let end = reversed.match_end(&chars, longest).unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    /// Replaces the first longest match, or all of them.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut at = 0;
        let mut matched_to = None;
        while at <= chars.len() {
            let found = self.match_end(&chars[at..], true).map(|length| at + length);
            match found {
                // An empty match right behind another match is none.
                Some(end) if end > at || matched_to != Some(at) => {
                    result.push_str(replacement);
                    if !all {
                        result.extend(&chars[end..]);
                        return result;
                    }
                    matched_to = Some(end);
                    if end > at {
                        at = end;
                        continue;
                    }
                }
                _ => {}
            }
            result.extend(chars.get(at));
            at += 1;
        }
        result
    }

    /// How many characters from the start on the pattern matches: the most, or the fewest.
    fn match_end(&self, chars: &[char], longest: bool) -> Option<usize> {
        let mut live = vec![false; self.items.len() + 1];
        live[0] = true;
        self.close(&mut live);
        let mut best = None;
        for at in 0..=chars.len() {
            if live[self.items.len()] {
                best = Some(at);
                if !longest {
                    break;
                }
            }
            let Some(&c) = chars.get(at).filter(|_| live.contains(&true)) else { break };
            live = self.step(&live, c);
        }
        best
    }

    fn step(&self, live: &[bool], c: char) -> Vec<bool> {
        let mut next = vec![false; live.len()];
        for (i, item) in self.items.iter().enumerate().filter(|(i, _)| live[*i]) {
            match item {
                Item::Any if c != '\n' => next[i] = true,
                Item::One if c != '\n' => next[i + 1] = true,
                Item::Char(wanted) if *wanted == c => next[i + 1] = true,
                _ => {}
            }
        }
        self.close(&mut next);
        next
    }

    /// A star may match nothing.
    fn close(&self, live: &mut [bool]) {
        for (i, item) in self.items.iter().enumerate() {
            if live[i] && *item == Item::Any {
                live[i + 1] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_suffixes_short_and_long() {
        let cut = |pattern: &str| {
            let glob = Glob::parse(pattern).unwrap();
            [false, true]
                .map(|longest| (glob.cut_prefix("abcabc", longest), glob.cut_suffix("abcabc", longest)))
        };
        assert_eq!(cut("a*c"), [("abc".into(), "abc".into()), (String::new(), String::new())]);
        assert_eq!(cut("?b"), [("cabc".into(), "abcabc".into()), ("cabc".into(), "abcabc".into())]);
        assert_eq!(cut("*"), [("abcabc".into(), "abcabc".into()), (String::new(), String::new())]);
    }

    #[test]
    fn replacement_of_one_and_all() {
        let replace = |pattern: &str, all| Glob::parse(pattern).unwrap().replace("abcabc", "-", all);
        assert_eq!((replace("b", false), replace("b", true)), ("a-cabc".into(), "a-ca-c".into()));
        assert_eq!((replace("*", true), replace("", true)), ("-".into(), "-a-b-c-a-b-c-".into()));
        assert_eq!(replace("x", true), "abcabc");
    }

    #[test]
    fn escapes_protect_what_has_a_meaning_and_nothing_else() {
        assert_eq!(Glob::parse("\\*").unwrap().cut_prefix("*a", false), "a");
        for bad in ["\\", "\\x", "\\\\\\"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }
}
