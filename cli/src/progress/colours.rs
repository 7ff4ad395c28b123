//! The colours of steps on a terminal, which `BUILDKIT_COLORS` may choose: `run=blue:error=255,0,0`.

use super::frame::Outcome;

/// As the numbers of "Select Graphic Rendition" (ECMA-48); nothing is no colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Colours {
    run: String,
    cancel: String,
    error: String,
}

const NAMES: [&str; 8] = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

impl Colours {
    pub(super) fn none() -> Colours {
        Colours { run: String::new(), cancel: String::new(), error: String::new() }
    }

    /// BuildKit's, but for those that are `chosen`; and what of those is not understood.
    pub(super) fn chosen(chosen: &str) -> (Colours, Vec<String>) {
        let [run, cancel, error] = ["34", "33", "31"].map(str::to_owned);
        let (mut colours, mut unknown) = (Colours { run, cancel, error }, Vec::new());
        for choice in chosen.split(':').filter(|choice| !choice.is_empty()) {
            let understood = choice.split_once('=').and_then(|(what, name)| Some((what, number(name)?)));
            match understood {
                Some(("run", number)) => colours.run = number,
                Some(("cancel", number)) => colours.cancel = number,
                Some(("error", number)) => colours.error = number,
                // Of warnings nothing is shown while a build runs.
                Some(("warning", _)) => {}
                _ => unknown.push(choice.to_owned()),
            }
        }
        (colours, unknown)
    }

    pub(super) fn painted(&self, outcome: Option<Outcome>, line: String) -> String {
        let number = match outcome {
            None => "",
            Some(Outcome::Done | Outcome::Cached) => &self.run,
            Some(Outcome::Failed) => &self.error,
            Some(Outcome::Canceled) => &self.cancel,
        };
        if number.is_empty() { line } else { format!("\u{1b}[{number}m{line}\u{1b}[0m") }
    }
}

/// Of a name, or of `RED,GREEN,BLUE`.
fn number(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    if name.contains(',') {
        let parts = name.split(',').map(|part| part.trim().parse::<u8>().ok().map(|part| part.to_string()));
        let parts = parts.collect::<Option<Vec<String>>>().filter(|parts| parts.len() == 3)?;
        return Some(format!("38;2;{}", parts.join(";")));
    }
    let (first, plain) = name.strip_prefix("light-").map_or((30, name.as_str()), |plain| (90, plain));
    let at = NAMES.iter().position(|known| *known == plain);
    at.map(|at| (first + at).to_string()).or_else(|| (name == "default").then(|| "39".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_names_or_are_three_numbers() {
        let (colours, unknown) =
            Colours::chosen("run=light-Green:error=1,2,255:warning=white:cancel=default");
        assert_eq!(colours, Colours { run: "92".into(), cancel: "39".into(), error: "38;2;1;2;255".into() });
        assert!(unknown.is_empty());
        let (colours, unknown) = Colours::chosen("run=pink:error=1,2:cancel=1,2,256::x=red:run");
        assert_eq!(colours, Colours::chosen("").0);
        assert_eq!(unknown, ["run=pink", "error=1,2", "cancel=1,2,256", "x=red", "run"]);
        assert_eq!(Colours::none().painted(Some(Outcome::Failed), "x".into()), "x");
        assert_eq!(colours.painted(Some(Outcome::Failed), "x".into()), "\u{1b}[31mx\u{1b}[0m");
    }
}
