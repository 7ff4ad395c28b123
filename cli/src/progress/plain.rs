//! Progress as plain lines, in the form of BuildKit's: `#5 [build 2/3] RUN make`, `#5 0.123 output`, `#5 DONE 0.3s`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use boxwright_solver::{Definition, Event, VertexId};

use super::{Note, Watch};
use crate::call::visible_line;
use crate::explain;

/// A line of a step's output that is longer is shown in parts.
const LONGEST_LINE: usize = 16 << 10;

/// Writes each note as it comes. Output that can't be written is lost: a build does not fail for want of a reader.
#[derive(Debug)]
pub(crate) struct Plain<W>(Mutex<Display<W>>);

#[derive(Debug)]
struct Display<W> {
    out: W,
    steps: Vec<Step>,
    vertices: HashMap<VertexId, usize>,
    /// The one whose lines were written last, until it has ended.
    current: Option<usize>,
    /// The latest step that is no vertex.
    own: Option<usize>,
}

#[derive(Debug)]
struct Step {
    name: String,
    started: SystemTime,
    /// Output that no newline has ended yet.
    partial: Vec<u8>,
}

impl<W: Write + Send> Plain<W> {
    pub(crate) fn new(out: W) -> Plain<W> {
        let display = Display { out, steps: Vec::new(), vertices: HashMap::new(), current: None, own: None };
        Plain(Mutex::new(display))
    }

    /// Shows a line that is about no step.
    pub(crate) fn say(&self, text: &str) {
        let mut display = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let _ = writeln!(display.out, "{text}").and_then(|()| display.out.flush());
    }

    #[cfg(test)]
    fn into_inner(self) -> W {
        self.0.into_inner().unwrap().out
    }
}

impl<W: Write + Send> Watch for Plain<W> {
    fn note(&self, note: Note<'_>) {
        let mut display = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let _ = display.note(note).and_then(|()| display.out.flush());
    }
}

impl<W: Write> Display<W> {
    fn note(&mut self, note: Note<'_>) -> std::io::Result<()> {
        match note {
            Note::Began { name } => {
                let step = self.begin(name, SystemTime::now());
                self.own = Some(step);
                self.turn_to(step)
            }
            Note::Vertex { definition, event } => self.event(definition, event),
            Note::Why { definition, vertex, why } => {
                let step = self.step(definition, vertex);
                explain::lines(why).iter().try_for_each(|line| self.line(step, line))
            }
            Note::Line { text } => self.own.map_or(Ok(()), |step| self.line(step, text)),
            Note::Ended { took } => self.own.map_or(Ok(()), |step| self.end(step, &done(took))),
            Note::Broke { message } => {
                self.own.map_or(Ok(()), |step| self.end(step, &format!("ERROR: {message}")))
            }
        }
    }

    fn event(&mut self, definition: &Definition, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Keyed { .. } => Ok(()),
            Event::Lost { message } => {
                let step = self.begin("importing cache", SystemTime::now());
                let text = format!("ERROR: {message}; what it had is built instead");
                self.end(step, &text)
            }
            // A build solves several definitions, each with numbers of its own.
            Event::Planned { .. } => {
                self.vertices.clear();
                Ok(())
            }
            Event::Started { vertex, at } => {
                let step = self.step(definition, *vertex);
                self.steps[step].started = *at;
                self.turn_to(step)
            }
            Event::Ballast { vertex, ballast } => {
                let step = self.step(definition, *vertex);
                self.line(step, &explain::ballast(ballast))
            }
            Event::Cached { vertex, .. } => {
                let step = self.step(definition, *vertex);
                self.end(step, "CACHED")
            }
            Event::Log { vertex, bytes, .. } => {
                let step = self.step(definition, *vertex);
                self.output(step, bytes)
            }
            Event::Finished { vertex, took, .. } => {
                let step = self.step(definition, *vertex);
                self.end(step, &done(*took))
            }
            Event::Failed { vertex, message, .. } => {
                let step = self.step(definition, *vertex);
                let message = crate::engine::failed_process(definition, *vertex, message);
                self.end(step, &format!("ERROR: {message}"))
            }
            Event::Canceled { vertex } => {
                let step = self.step(definition, *vertex);
                self.end(step, "CANCELED")
            }
        }
    }

    fn begin(&mut self, name: &str, started: SystemTime) -> usize {
        // It is made of the Dockerfile's words.
        self.steps.push(Step { name: visible_line(name), started, partial: Vec::new() });
        self.steps.len() - 1
    }

    fn step(&mut self, definition: &Definition, vertex: VertexId) -> usize {
        if let Some(&step) = self.vertices.get(&vertex) {
            return step;
        }
        let step = self.begin(&definition.vertex(vertex).about.name, SystemTime::now());
        self.vertices.insert(vertex, step);
        step
    }

    /// What comes next is about `step`: says so, when what came before was not.
    fn turn_to(&mut self, step: usize) -> std::io::Result<()> {
        if self.current == Some(step) {
            return Ok(());
        }
        if let Some(interrupted) = self.current {
            writeln!(self.out, "#{} ...\n", interrupted + 1)?;
        }
        self.current = Some(step);
        writeln!(self.out, "#{} {}", step + 1, self.steps[step].name)
    }

    /// What a registry or a server said may be in it.
    fn line(&mut self, step: usize, text: &str) -> std::io::Result<()> {
        self.turn_to(step)?;
        writeln!(self.out, "#{} {}", step + 1, visible_line(text))
    }

    fn output(&mut self, step: usize, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = std::mem::take(&mut self.steps[step].partial);
        rest.extend_from_slice(bytes);
        while let Some(end) =
            rest.iter().position(|b| *b == b'\n').or((rest.len() > LONGEST_LINE).then_some(LONGEST_LINE))
        {
            let newline = usize::from(rest[end] == b'\n');
            let line: Vec<u8> = rest.drain(..end + newline).collect();
            self.output_line(step, &line[..end])?;
        }
        self.steps[step].partial = rest;
        Ok(())
    }

    fn output_line(&mut self, step: usize, line: &[u8]) -> std::io::Result<()> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let since = self.steps[step].started.elapsed().unwrap_or_default();
        self.turn_to(step)?;
        // As it is: programs colour what they say.
        writeln!(self.out, "#{} {:.3} {}", step + 1, since.as_secs_f64(), String::from_utf8_lossy(line))
    }

    fn end(&mut self, step: usize, verdict: &str) -> std::io::Result<()> {
        let partial = std::mem::take(&mut self.steps[step].partial);
        if !partial.is_empty() {
            self.output_line(step, &partial)?;
        }
        self.turn_to(step)?;
        self.current = None;
        writeln!(self.out, "#{} {}\n", step + 1, visible_line(verdict))
    }
}

fn done(took: Duration) -> String {
    format!("DONE {:.1}s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::ir::{About, LocalSource, Op, SourceOp};
    use boxwright_solver::{How, LogStream};

    fn definition(names: &[&str]) -> (Definition, Vec<VertexId>) {
        let mut definition = Definition::default();
        let ids = names.iter().map(|name| {
            let op =
                Op::Source(SourceOp::Local(LocalSource { name: (*name).into(), ..LocalSource::default() }));
            definition.add(op, About { name: (*name).into(), ..About::default() })
        });
        let ids = ids.collect();
        (definition, ids)
    }

    fn log(vertex: VertexId, bytes: &[u8]) -> Event {
        Event::Log { vertex, stream: LogStream::Stdout, bytes: bytes.to_vec() }
    }

    /// What is shown, with the times of output lines taken out.
    fn shown(definition: &Definition, events: &[Event]) -> String {
        let plain = Plain::new(Vec::new());
        for event in events {
            plain.note(Note::Vertex { definition, event });
        }
        let text = String::from_utf8(plain.into_inner()).unwrap();
        let without_time = |line: &str| match line.split(' ').collect::<Vec<_>>().as_slice() {
            [number, time, rest @ ..] if time.len() == 5 && time.as_bytes()[1] == b'.' => {
                format!("{number} T {}", rest.join(" "))
            }
            _ => line.to_owned(),
        };
        text.lines().map(|l| without_time(l) + "\n").collect()
    }

    #[test]
    fn steps_are_numbered_as_they_appear() {
        let (definition, ids) = definition(&["[1/2] FROM x", "[2/2] RUN y"]);
        let at = SystemTime::now();
        let text = shown(
            &definition,
            &[
                Event::Planned { vertices: ids.clone() },
                Event::Cached { vertex: ids[0], how: How::Cached, origin: None },
                Event::Started { vertex: ids[1], at },
                log(ids[1], b"one\r\ntw"),
                log(ids[1], b"o\nthree"),
                Event::Finished { vertex: ids[1], took: Duration::from_millis(340), how: How::Ran },
            ],
        );
        assert_eq!(
            text,
            "#1 [1/2] FROM x\n#1 CACHED\n\n#2 [2/2] RUN y\n#2 T one\n#2 T two\n#2 T three\n#2 DONE 0.3s\n\n"
        );
    }

    #[test]
    fn steps_that_run_side_by_side_say_whose_line_it_is() {
        let (definition, ids) = definition(&["a", "b"]);
        let at = SystemTime::now();
        let text = shown(
            &definition,
            &[
                Event::Started { vertex: ids[0], at },
                Event::Started { vertex: ids[1], at },
                log(ids[0], b"x\n"),
                Event::Canceled { vertex: ids[1] },
            ],
        );
        assert_eq!(text, "#1 a\n#1 ...\n\n#2 b\n#2 ...\n\n#1 a\n#1 T x\n#1 ...\n\n#2 b\n#2 CANCELED\n\n");
    }

    #[test]
    fn own_steps_have_lines_and_an_end() {
        let plain = Plain::new(Vec::new());
        plain.note(Note::Began { name: "exporting to image" });
        plain.note(Note::Line { text: "writing image sha256:1 done" });
        plain.note(Note::Ended { took: Duration::ZERO });
        let text = String::from_utf8(plain.into_inner()).unwrap();
        assert_eq!(text, "#1 exporting to image\n#1 writing image sha256:1 done\n#1 DONE 0.0s\n\n");
    }

    #[test]
    fn words_of_others_drive_no_terminal_but_a_step_may() {
        let (definition, ids) = definition(&["RUN \u{1b}[1m\nx"]);
        let message = "\u{1b}[2Jnot found".to_owned();
        let failed = Event::Failed { vertex: ids[0], took: Duration::ZERO, message };
        let text = shown(&definition, &[log(ids[0], b"\x1b[32mgreen\n"), failed]);
        assert_eq!(text, "#1 RUN \u{fffd}[1m x\n#1 T \u{1b}[32mgreen\n#1 ERROR: \u{fffd}[2Jnot found\n\n");
    }

    #[test]
    fn a_line_without_end_is_shown_in_parts() {
        let (definition, ids) = definition(&["a"]);
        let text = shown(&definition, &[log(ids[0], &vec![b'x'; LONGEST_LINE + 5])]);
        assert_eq!(text.lines().count(), 2, "the name and the first part");
    }
}
