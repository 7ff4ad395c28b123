//! A shell for images that have none: words, quotes, variables and a few commands of its own; any other is a program of the
//! image. It runs inside a container, in a sealed copy of our binary.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write};
use std::iter::Peekable;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::str::Chars;

const HELP: &str = "\
This image has no shell; this is a small one of Boxwright's. It knows
  cd DIR, pwd, ls [DIR], cat FILE, echo, env, export NAME=VALUE, unset NAME, id, exit [CODE]
and starts programs of the image. Words may be quoted, $NAME is a variable, $? the last exit code,
; ends a command, && and || go on after success and failure. There are no pipes and no redirections.";

struct Shell {
    env: BTreeMap<String, String>,
    code: u8,
    ended: bool,
}

/// Reads commands from standard input to its end, or to `exit`; gives the exit code.
pub(crate) fn run() -> u8 {
    let mut shell = Shell {
        env: std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect(),
        code: 0,
        ended: false,
    };
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        let _ = print(format_args!("{HELP}\n"));
    }
    let mut input = std::io::stdin().lock();
    while !shell.ended {
        if terminal {
            let _ = print(format_args!("{} # ", current()));
        }
        let mut line = Vec::new();
        match input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => shell.line(&String::from_utf8_lossy(&line)),
        }
    }
    shell.code
}

/// What joins a command to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    Always,
    And,
    Or,
}

/// A part of a word; what a variable is shows when the command is run.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

type Word = Vec<Piece>;

impl Shell {
    fn line(&mut self, line: &str) {
        let commands = match parse(line) {
            Ok(commands) => commands,
            Err(reason) => return self.complain(&reason, 2),
        };
        for (join, words) in commands {
            let goes_on = match join {
                Join::Always => true,
                Join::And => self.code == 0,
                Join::Or => self.code != 0,
            };
            if goes_on && !self.ended && !words.is_empty() {
                let words: Vec<String> = words.iter().map(|word| self.expand(word)).collect();
                self.command(&words);
            }
        }
    }

    fn expand(&self, word: &[Piece]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) => self.variable(name),
        };
        word.iter().map(piece).collect()
    }

    fn variable(&self, name: &str) -> String {
        if name == "?" { self.code.to_string() } else { self.env.get(name).cloned().unwrap_or_default() }
    }

    fn complain(&mut self, reason: &str, code: u8) {
        let _ = writeln!(std::io::stderr(), "{reason}");
        self.code = code;
    }

    fn command(&mut self, words: &[String]) {
        let (name, rest) = (words[0].as_str(), &words[1..]);
        let first = rest.first().map(String::as_str);
        let result = match name {
            "cd" => cd(first.map_or_else(|| self.variable("HOME"), str::to_owned)),
            "pwd" => print(format_args!("{}\n", current())),
            "echo" => print(format_args!("{}\n", rest.join(" "))),
            "help" => print(format_args!("{HELP}\n")),
            "env" if rest.is_empty() => {
                self.env.iter().try_for_each(|(name, value)| print(format_args!("{name}={value}\n")))
            }
            "export" => {
                let pairs = rest.iter().filter_map(|word| word.split_once('='));
                self.env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
                Ok(())
            }
            "unset" => {
                rest.iter().for_each(|name| drop(self.env.remove(name)));
                Ok(())
            }
            "exit" => {
                self.ended = true;
                self.code = first.map_or(self.code, |code| code.parse().unwrap_or(2));
                return;
            }
            "ls" if !self.is_program("ls") => ls(rest),
            "cat" if !self.is_program("cat") => cat(rest),
            "id" if !self.is_program("id") => id(),
            _ => return self.program(name, rest),
        };
        match result {
            Ok(()) => self.code = 0,
            Err(reason) => self.complain(&format!("{name}: {reason}"), 1),
        }
    }

    /// What the image has itself knows more flags.
    fn is_program(&self, name: &str) -> bool {
        self.variable("PATH").split(':').any(|dir| dir.starts_with('/') && Path::new(dir).join(name).exists())
    }

    fn program(&mut self, name: &str, args: &[String]) {
        let found = if name.contains('/') {
            Some(name.to_owned())
        } else {
            let path = self.variable("PATH");
            let dirs = path.split(':').filter(|dir| dir.starts_with('/'));
            dirs.map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).is_file())
        };
        let Some(found) = found else {
            return self.complain(&format!("{name}: not found; `help` lists what there is"), 127);
        };
        match Command::new(&found).arg0(name).args(args).env_clear().envs(&self.env).status() {
            Ok(status) => {
                let code =
                    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
                self.code = u8::try_from(code & 0xff).unwrap_or(u8::MAX);
            }
            Err(error) => self.complain(&format!("{name}: {error}"), 126),
        }
    }
}

type Done = Result<(), String>;

fn print(text: std::fmt::Arguments<'_>) -> Done {
    let mut out = std::io::stdout();
    out.write_fmt(text).and_then(|()| out.flush()).map_err(|e| e.to_string())
}

fn current() -> String {
    std::env::current_dir().map_or_else(|_| "?".to_owned(), |dir| lossy(dir.into_os_string()))
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

fn cd(dir: String) -> Done {
    let dir = if dir.is_empty() { "/".to_owned() } else { dir };
    std::env::set_current_dir(&dir).map_err(|e| format!("{dir}: {e}"))
}

/// With mode, owner and size, as there is no reason to ask for less.
fn ls(args: &[String]) -> Done {
    let places: Vec<&str> = args.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    for place in if places.is_empty() { vec!["."] } else { places } {
        let failed = |e: std::io::Error| format!("{place}: {e}");
        let path = Path::new(place);
        if !path.is_dir() {
            entry(path, place).map_err(failed)?;
            continue;
        }
        let listed = fs::read_dir(path).map_err(failed)?;
        let mut names: Vec<OsString> = listed.flatten().map(|found| found.file_name()).collect();
        names.sort_unstable();
        for name in names {
            entry(&path.join(&name), &name.to_string_lossy()).map_err(failed)?;
        }
    }
    Ok(())
}

fn entry(path: &Path, name: &str) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let letter = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    };
    let link = fs::read_link(path).map_or_else(|_| String::new(), |to| format!(" -> {}", to.display()));
    let mode = meta.mode() & 0o7777;
    let (owner, size) = (format!("{}:{}", meta.uid(), meta.gid()), meta.size());
    writeln!(std::io::stdout(), "{letter}{mode:04o} {owner:>9} {size:>10} {name}{link}")
}

fn cat(files: &[String]) -> Done {
    for path in files {
        let failed = |e: std::io::Error| format!("{path}: {e}");
        let mut file = fs::File::open(path).map_err(failed)?;
        let mut buffer = [0; 1 << 16];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                length => std::io::stdout().write_all(&buffer[..length]).map_err(failed)?,
            }
        }
    }
    Ok(())
}

fn id() -> Done {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let groups = rustix::process::getgroups().map_err(|e| e.to_string())?;
    let groups: Vec<String> = groups.iter().map(|group| group.as_raw().to_string()).collect();
    print(format_args!("uid={uid} gid={gid} groups={}\n", groups.join(",")))
}

/// The commands of a line, each with how it is joined to the one before.
fn parse(line: &str) -> Result<Vec<(Join, Vec<Word>)>, String> {
    let mut commands = vec![(Join::Always, Vec::new())];
    let mut word: Option<Word> = None;
    let mut rest = line.chars().peekable();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (c, quote) {
            (c, Some(mark)) if c == mark => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => rest.next().into_iter().for_each(|c| push(&mut word, c)),
            ('$', None | Some('"')) => variable(&mut rest, &mut word)?,
            (c, Some(_)) => push(&mut word, c),
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => finish(&mut commands, &mut word),
            (';' | '&' | '|', None) => {
                let twice = c != ';' && rest.next_if_eq(&c).is_some();
                let join = match c {
                    ';' => Join::Always,
                    '&' if twice => Join::And,
                    '|' if twice => Join::Or,
                    c => return Err(unknown(c)),
                };
                finish(&mut commands, &mut word);
                commands.push((join, Vec::new()));
            }
            ('<' | '>' | '(' | ')' | '`', None) => return Err(unknown(c)),
            (c, None) => push(&mut word, c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    finish(&mut commands, &mut word);
    Ok(commands)
}

fn unknown(c: char) -> String {
    format!("`{c}` is not known here; `help` tells what is")
}

/// What follows a dollar sign; alone it stands for itself.
fn variable(rest: &mut Peekable<Chars<'_>>, word: &mut Option<Word>) -> Result<(), String> {
    let braces = rest.next_if_eq(&'{').is_some();
    let mut name: String = rest.next_if_eq(&'?').into_iter().collect();
    while let Some(c) = rest.next_if(|c| name != "?" && (c.is_alphanumeric() || *c == '_')) {
        name.push(c);
    }
    if braces && rest.next_if_eq(&'}').is_none() {
        return Err("a brace is not closed".to_owned());
    }
    if name.is_empty() {
        push(word, '$');
    } else {
        word.get_or_insert_default().push(Piece::Variable(name));
    }
    Ok(())
}

fn push(word: &mut Option<Word>, c: char) {
    let word = word.get_or_insert_default();
    match word.last_mut() {
        Some(Piece::Text(text)) => text.push(c),
        _ => word.push(Piece::Text(c.to_string())),
    }
}

fn finish(commands: &mut [(Join, Vec<Word>)], word: &mut Option<Word>) {
    if let (Some(word), Some((_, words))) = (word.take(), commands.last_mut()) {
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_and_words() {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) => format!("<{name}>"),
        };
        let word = |word: &Word| word.iter().map(piece).collect::<String>();
        let words = |words: &[Word]| words.iter().map(word).collect::<Vec<_>>().join("|");
        let parse = |line: &str| {
            let commands = parse(line)?;
            Ok(commands.iter().map(|(join, all)| format!("{join:?} {}", words(all))).collect::<Vec<_>>())
        };
        assert_eq!(parse("ls  -l '/a b' \"c $D\" e\\ f # no").unwrap(), ["Always ls|-l|/a b|c <D>|e f"]);
        assert_eq!(parse("a && b || c; d").unwrap(), ["Always a", "And b", "Or c", "Always d"]);
        assert_eq!(parse("echo $?x ${A}b '$C' $ ''").unwrap(), ["Always echo|<?>x|<A>b|$C|$|"]);
        for line in ["a | b", "a > f", "'a", "${a", "a &"] {
            let refused: Result<_, String> = parse(line);
            assert!(refused.is_err(), "{line}");
        }
    }
}
