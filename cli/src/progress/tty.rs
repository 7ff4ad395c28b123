//! Progress on a terminal: one frame that is painted again and again in the same place, ten times a second while something
//! runs. What else is said meanwhile comes above it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::colours::Colours;
use super::frame::Frame;
use super::{Note, Watch};
use crate::patient::Stderr;
use crate::report;

const PAUSE: Duration = Duration::from_millis(100);
/// Of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

#[derive(Debug)]
pub(crate) struct Tty {
    screen: Arc<Screen>,
    painter: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Screen {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    frame: Frame,
    colours: Colours,
    has_ended: bool,
    painted: Painted,
}

/// What is on the terminal: so many lines, when it was that wide.
#[derive(Clone, Copy, Debug, Default)]
struct Painted {
    lines: usize,
    width: usize,
}

impl Tty {
    /// Shows steps with so many lines of what they say, until it is dropped.
    pub(super) fn start(colours: Colours, tail: usize) -> Tty {
        let frame = Frame::new(tail);
        let state = State { frame, colours, has_ended: false, painted: Painted::default() };
        let screen = Arc::new(Screen { state: Mutex::new(state), ended: Condvar::new() });
        report::hold();
        let painter = {
            let screen = Arc::clone(&screen);
            // Without it a build is shown in the end.
            std::thread::Builder::new()
                .name("progress".to_owned())
                .spawn(move || screen.paint_until_end())
                .ok()
        };
        Tty { screen, painter }
    }
}

impl Watch for Tty {
    fn note(&self, note: Note<'_>) {
        self.screen.lock().frame.note(note);
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.screen.lock().has_ended = true;
        self.screen.ended.notify_all();
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
        }
        self.screen.lock().paint(None);
        report::release();
    }
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn paint_until_end(&self) {
        let mut state = self.lock();
        while !state.has_ended {
            let (_, height) = size();
            // The cursor is on a line of its own below.
            state.paint(Some(height.saturating_sub(1)));
            state = self.ended.wait_timeout(state, PAUSE).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl State {
    fn paint(&mut self, height: Option<usize>) {
        let (width, _) = size();
        let above = report::held();
        if self.frame.is_empty() && above.is_empty() {
            return;
        }
        let lines =
            if self.frame.is_empty() { Vec::new() } else { self.frame.lines(width, height, &self.colours) };
        let text = painted(self.painted, width, &above, &lines);
        self.painted = Painted { lines: lines.len(), width };
        // Nobody is left who could be told.
        let _ = Stderr.write_all(text.as_bytes());
    }
}

/// Columns and rows.
fn size() -> (usize, usize) {
    let told = rustix::termios::tcgetwinsize(rustix::stdio::stderr());
    let told = told.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    (if told.0 == 0 { USUAL.0 } else { told.0 }, if told.1 == 0 { USUAL.1 } else { told.1 })
}

/// What turns the frame that is there into the next, in one piece so that the terminal never shows half of it.
fn painted(before: Painted, width: usize, above: &[String], lines: &[String]) -> String {
    let mut text = String::from("\u{1b}[?25l\r");
    // In a terminal that became narrower lines may be broken: how many there are now, nobody knows. So it begins anew.
    if before.lines > 0 && before.width <= width {
        let _ = write!(text, "\u{1b}[{}A", before.lines);
    }
    // What is said may be longer than a line, and goes on where the frame was.
    text.push_str(if above.is_empty() { "" } else { "\u{1b}[J" });
    above.iter().for_each(|line| text.extend([line, "\n"]));
    text.push_str("\u{1b}[?7l");
    // Erased before it is written: after a full line the cursor is still on its last character.
    lines.iter().for_each(|line| text.extend(["\u{1b}[K", line, "\n"]));
    text + "\u{1b}[J\u{1b}[?7h\u{1b}[?25h"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_takes_the_place_of_the_one_before() {
        let lines = ["one".to_owned(), "two".to_owned()];
        let body = "\u{1b}[?7l\u{1b}[Kone\n\u{1b}[Ktwo\n\u{1b}[J\u{1b}[?7h\u{1b}[?25h";
        let start = "\u{1b}[?25l\r";
        assert_eq!(painted(Painted::default(), 80, &[], &lines), format!("{start}{body}"));
        let before = Painted { lines: 3, width: 80 };
        assert_eq!(painted(before, 80, &[], &lines), format!("{start}\u{1b}[3A{body}"));
        assert_eq!(painted(before, 60, &[], &lines), format!("{start}{body}"), "narrower: below");
        let above = ["said".to_owned()];
        assert_eq!(
            painted(before, 90, &above, &lines),
            format!("{start}\u{1b}[3A\u{1b}[Jsaid\n{body}"),
            "not cut"
        );
    }
}
