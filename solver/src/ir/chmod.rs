//! What `--chmod` makes of permission bits: octal bits, or changes as chmod(1) of the BSDs reads them, which is what
//! BuildKit follows.

use std::fmt;
use std::str::FromStr;

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;
/// What a clause that names nobody leaves alone; BuildKit has it fixed.
const UMASK: u32 = 0o022;

/// `0755` or `u+rwX,go=`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chmod {
    /// As written.
    text: String,
    steps: Steps,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Steps {
    Octal(u32),
    Changes(Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Clear(u32),
    Set(u32),
    /// `X`: set in a directory, and where anybody could execute the file before all changes.
    SetIfExecutable(u32),
    /// `g=u`: the bits of the class at `from` become, join or leave those of `to`.
    Class {
        op: Operator,
        from: u32,
        to: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    Plus,
    Minus,
    Equals,
}

/// Why a text is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMode {
    /// It looks like a number.
    NotOctal,
    Syntax,
}

impl FromStr for Chmod {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Chmod, BadMode> {
        let steps = if text.starts_with(|c: char| c.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
            Steps::Octal(bits.ok_or(BadMode::NotOctal)?)
        } else {
            let clauses = text.split(',').map(clause).collect::<Option<Vec<_>>>();
            Steps::Changes(clauses.ok_or(BadMode::Syntax)?.concat())
        };
        Ok(Chmod { text: text.to_owned(), steps })
    }
}

impl fmt::Display for Chmod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Chmod {
    /// What becomes of the bits `mode`, set-id and sticky bits included.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.steps {
            Steps::Octal(bits) => *bits,
            Steps::Changes(steps) => {
                let executable = is_dir || mode & EXECUTE != 0;
                steps.iter().fold(mode, |now, step| step.apply(now, executable))
            }
        }
    }

    /// The mode of directories that are made on the way to what is copied; none if that is the usual one.
    pub fn of_parents(&self) -> Option<u32> {
        match self.steps {
            Steps::Octal(bits) => Some(bits & 0o777),
            Steps::Changes(_) => None,
        }
    }
}

impl Step {
    fn apply(self, mode: u32, executable: bool) -> u32 {
        match self {
            Step::Clear(bits) => mode & !bits,
            Step::Set(bits) => mode | bits,
            Step::SetIfExecutable(bits) if executable => mode | bits,
            Step::SetIfExecutable(_) => mode,
            Step::Class { op, from, to } => {
                let bits = (((mode >> from) & 0o7) * 0o111) & to;
                match op {
                    Operator::Plus => mode | bits,
                    Operator::Minus => mode & !bits,
                    Operator::Equals => (mode & !to) | bits,
                }
            }
        }
    }
}

/// `ug+rw-x`: who, and then any number of operators with what they set.
fn clause(text: &str) -> Option<Vec<Step>> {
    let operators = text.trim_start_matches(['u', 'g', 'o', 'a']);
    let who = text[..text.len() - operators.len()].bytes().fold(0, |who, class| {
        who | match class {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o007,
            _ => SET_ID | 0o777,
        }
    });
    let mut steps = Vec::new();
    let mut rest = operators;
    loop {
        let op = match rest.bytes().next()? {
            b'+' => Operator::Plus,
            b'-' => Operator::Minus,
            b'=' => Operator::Equals,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        operation(op, who, &rest[1..end], &mut steps)?;
        rest = &rest[end..];
        if rest.is_empty() {
            return Some(steps);
        }
    }
}

/// What one operator does. A copied class ends what was gathered before it, so that the order holds.
fn operation(op: Operator, who: u32, letters: &str, steps: &mut Vec<Step>) -> Option<()> {
    let mut gathered = Gathered { op, who, bits: 0, executable: 0, cleared: op != Operator::Equals };
    for letter in letters.bytes() {
        // Set-id and sticky bits are nothing that others have.
        let special = who == 0 || who & !0o007 != 0;
        match letter {
            b'r' => gathered.bits |= 0o444,
            b'w' => gathered.bits |= 0o222,
            b'x' => gathered.bits |= EXECUTE,
            b'X' if op == Operator::Plus => gathered.executable = EXECUTE,
            b's' if special => gathered.bits |= SET_ID,
            b't' if special => {
                // As in BSD, a sticky bit makes the clause name somebody, if nobody but the bit.
                gathered.who |= STICKY;
                gathered.bits |= STICKY;
            }
            b'X' | b's' | b't' => {}
            b'u' | b'g' | b'o' => {
                if gathered.bits != 0 {
                    gathered.flush(steps);
                }
                gathered.cleared = true;
                gathered.flush_executable(steps);
                let from = match letter {
                    b'u' => 6,
                    b'g' => 3,
                    _ => 0,
                };
                let to = if gathered.who == 0 { 0o777 & !UMASK } else { gathered.who & 0o777 };
                steps.push(Step::Class { op, from, to });
            }
            _ => return None,
        }
    }
    if gathered.bits != 0 || !gathered.cleared {
        gathered.flush(steps);
    }
    gathered.flush_executable(steps);
    Some(())
}

/// The letters of one operator, until they become steps.
struct Gathered {
    op: Operator,
    who: u32,
    bits: u32,
    executable: u32,
    /// Nothing is left to be taken away by `=`.
    cleared: bool,
}

impl Gathered {
    fn meant(&self, bits: u32) -> u32 {
        if self.who == 0 { bits & !UMASK } else { bits & self.who }
    }

    fn flush(&mut self, steps: &mut Vec<Step>) {
        let bits = self.meant(self.bits);
        self.bits = 0;
        self.cleared = true;
        match self.op {
            Operator::Minus => steps.push(Step::Clear(bits)),
            Operator::Plus => steps.push(Step::Set(bits)),
            Operator::Equals => {
                steps.push(Step::Clear(if self.who == 0 { SET_ID | 0o777 } else { self.who }));
                steps.push(Step::Set(bits));
            }
        }
    }

    fn flush_executable(&mut self, steps: &mut Vec<Step>) {
        if self.executable != 0 {
            steps.push(Step::SetIfExecutable(self.meant(self.executable)));
            self.executable = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str, before: u32) -> u32 {
        text.parse::<Chmod>().unwrap().apply(before, false)
    }

    #[test]
    fn changes_are_those_of_chmod() {
        for (text, before, after) in [
            ("0755", 0o644, 0o755),
            ("0", 0o644, 0),
            ("07421", 0, 0o7421),
            ("go-w", 0o666, 0o644),
            ("u=rw,g=r,o=r", 0o777, 0o644),
            ("u=rwx,go=u-w", 0, 0o755),
            ("go=", 0o777, 0o700),
            ("=", 0o777, 0),
            ("+", 0o421, 0o421),
            ("u=g", 0o742, 0o442),
            ("u=g-w", 0o762, 0o462),
            ("u+go", 0o021, 0o321),
            ("a=r,ug=rw,u+x", 0o777, 0o764),
            ("u+s,g+s", 0o755, 0o6755),
            ("u-s", 0o4755, 0o755),
            ("o+s", 0o755, 0o755),
            ("+t", 0o755, 0o1755),
            ("a=rx", 0o6777, 0o555),
            ("=rx", 0o4700, 0o555),
            ("+w", 0o444, 0o644),
            ("+x", 0o644, 0o755),
            ("-u", 0o755, 0),
            ("u+x+w", 0o400, 0o700),
            ("o+r,g+w,a+t,g-s,u+og", 0o2100, 0o1724),
        ] {
            assert_eq!(format!("{:o}", mode(text, before)), format!("{after:o}"), "{text} of {before:o}");
        }
    }

    #[test]
    fn a_capital_x_is_for_what_can_be_executed() {
        let chmod: Chmod = "u+rwX,go=rX".parse().unwrap();
        assert_eq!(chmod.apply(0o600, false), 0o644);
        // `=` knows no X, as in BuildKit.
        assert_eq!(chmod.apply(0o700, false), 0o744);
        assert_eq!(chmod.apply(0o400, true), 0o744);
        let chmod: Chmod = "a-x,a+X".parse().unwrap();
        assert_eq!(chmod.apply(0o755, false), 0o755, "what counts is how it was before");
        assert_eq!(chmod.apply(0o644, false), 0o644);
    }

    #[test]
    fn what_is_no_mode_is_told_from_a_bad_number() {
        for text in ["8", "64a", "10000", "99999999999999999999"] {
            assert_eq!(text.parse::<Chmod>(), Err(BadMode::NotOctal), "{text}");
        }
        for text in ["", ",", "u", "q+r", "u+q", "+7", "-1", "u+x,", "go", "rwx", "u+r w", "ü+x"] {
            assert_eq!(text.parse::<Chmod>(), Err(BadMode::Syntax), "{text}");
        }
    }
}
