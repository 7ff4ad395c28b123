//! The regular expressions of `--filter name=…`: what names of things are looked for by, and no more.

/// Letters that stand for themselves, `.` for any one, `*`, `+` and `?` behind one, `\\` before one that stands for itself,
/// `^` at the beginning and `$` at the end. A part of the name has to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    from_start: bool,
    to_end: bool,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    /// None is any.
    letter: Option<char>,
    least: usize,
    most: usize,
}

impl Pattern {
    /// None where there is more in it than we know.
    pub(crate) fn parse(text: &str) -> Option<Pattern> {
        let (from_start, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let mut pattern = Pattern { from_start, to_end: false, items: Vec::new() };
        let mut letters = rest.chars().peekable();
        while let Some(letter) = letters.next() {
            let letter = match letter {
                '$' if letters.peek().is_none() => {
                    pattern.to_end = true;
                    continue;
                }
                '.' => None,
                '\\' => Some(letters.next().filter(char::is_ascii_punctuation)?),
                '*' | '+' | '?' | '^' | '$' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
                letter => Some(letter),
            };
            let (least, most) = match letters.peek() {
                Some('*') => (0, usize::MAX),
                Some('+') => (1, usize::MAX),
                Some('?') => (0, 1),
                _ => (1, 1),
            };
            if (least, most) != (1, 1) {
                letters.next();
            }
            pattern.items.push(Item { letter, least, most });
        }
        Some(pattern)
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // The places of the name up to which the items so far may reach.
        let mut places: Vec<bool> = (0..=name.len()).map(|at| at == 0 || !self.from_start).collect();
        for item in &self.items {
            let mut next = vec![false; name.len() + 1];
            for at in (0..=name.len()).filter(|at| places[*at]) {
                let fits = |letter: &&char| item.letter.is_none_or(|wanted| wanted == **letter);
                let run = name[at..].iter().take_while(fits).take(item.most).count();
                if run >= item.least {
                    next[at + item.least..=at + run].fill(true);
                }
            }
            places = next;
        }
        if self.to_end { places[name.len()] } else { places.contains(&true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_by_a_regular_expression() {
        for (pattern, found, others) in [
            ("", &["", "a"][..], &[][..]),
            ("v_2", &["v_2", "av_23"], &["v-2", "v_"]),
            ("^v_2$", &["v_2"], &["v_23", "av_2"]),
            ("^v", &["v", "va"], &["av"]),
            ("v$", &["v", "av"], &["va"]),
            ("^$", &[""], &["a"]),
            ("a.c", &["abc", "xa.cx"], &["ac"]),
            ("^a\\.c", &["a.c"], &["abc"]),
            ("^a.*z$", &["az", "abcz", "azaz"], &["a", "zaza"]),
            ("^ab+c?$", &["ab", "abbc"], &["a", "ac", "abcc"]),
            ("^.*.*.*.*.*.*.*.*x$", &["aax"], &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            found.iter().for_each(|name| assert!(parsed.matches(name), "{pattern} {name}"));
            others.iter().for_each(|name| assert!(!parsed.matches(name), "{pattern} {name}"));
        }
        for odd in ["a|b", "(a)", "[ab]", "a{2}", "*", "a**", "a^", "a$b", "\\d", "a\\"] {
            assert_eq!(Pattern::parse(odd), None, "{odd}");
        }
    }
}
