//! What a terminal shows of a build at one moment, as lines: in the form of BuildKit's, and no more than fit. It writes nothing.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use boxwright_solver::{Definition, Event, LogStream, VertexId};

use super::Note;
use super::colours::Colours;
use super::text::{Unended, fitted, width_of};
use crate::call::visible_line;
use crate::explain;

#[derive(Debug)]
pub(super) struct Frame {
    begun: Instant,
    steps: Vec<Step>,
    vertices: HashMap<VertexId, usize>,
    /// How many vertices were planned and nothing was heard of yet.
    waiting: usize,
    /// The latest step that is no vertex.
    own: Option<usize>,
    /// How many lines of a step's output are shown while it runs.
    tail: usize,
}

#[derive(Debug)]
struct Step {
    name: String,
    started: Instant,
    ended: Option<(Outcome, Duration)>,
    notes: Vec<String>,
    output: VecDeque<String>,
    unended: Unended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Cached,
    Failed,
    Canceled,
}

/// A terminal on which there is room for times.
const NARROWEST: usize = 20;

/// A line before it is cut to the terminal's width.
struct Line {
    text: String,
    time: Option<Duration>,
    outcome: Option<Outcome>,
}

impl Frame {
    pub(super) fn new(tail: usize) -> Frame {
        let vertices = HashMap::new();
        Frame { begun: Instant::now(), steps: Vec::new(), vertices, waiting: 0, own: None, tail }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn note(&mut self, note: Note<'_>) {
        let end = |frame: &mut Frame, outcome| frame.own.into_iter().for_each(|own| frame.end(own, outcome));
        match note {
            Note::Began { name } => self.own = Some(self.begin(name)),
            Note::Line { text } => {
                let text = visible_line(text.strip_suffix(" done").unwrap_or(text));
                self.own.into_iter().for_each(|own| self.steps[own].notes.push(text.clone()));
            }
            Note::Ended { .. } => end(self, Outcome::Done),
            Note::Broke { .. } => end(self, Outcome::Failed),
            Note::Vertex { definition, event } => self.event(definition, event),
            Note::Why { definition, vertex, why } => {
                let step = self.step(definition, vertex);
                self.steps[step].notes.extend(explain::lines(why).iter().map(|line| visible_line(line)));
            }
        }
    }

    fn event(&mut self, definition: &Definition, event: &Event) {
        match event {
            Event::Keyed { .. } => {}
            Event::Planned { vertices } => {
                self.vertices.clear();
                self.waiting = vertices.len();
            }
            Event::Lost { message } => {
                let step = self.begin("importing cache");
                self.steps[step]
                    .notes
                    .push(visible_line(&format!("{message}; what it had is built instead")));
                self.end(step, Outcome::Failed);
            }
            Event::Started { vertex, .. } => {
                let step = self.step(definition, *vertex);
                self.steps[step].started = Instant::now();
            }
            Event::Ballast { vertex, ballast } => {
                let step = self.step(definition, *vertex);
                self.steps[step].notes.push(visible_line(&explain::ballast(ballast)));
            }
            // What is said once of how steps run is not for those alone who see them run.
            Event::Log { vertex, stream: LogStream::Notice, bytes } => {
                let step = self.step(definition, *vertex);
                self.steps[step].notes.push(visible_line(String::from_utf8_lossy(bytes).trim_end()));
            }
            Event::Log { vertex, bytes, .. } => {
                let (step, tail) = (self.step(definition, *vertex), self.tail);
                let Step { output, unended, .. } = &mut self.steps[step];
                for line in unended.lines(bytes) {
                    output.push_back(line);
                    if output.len() > tail {
                        output.pop_front();
                    }
                }
            }
            Event::Cached { vertex, .. } => self.end_vertex(definition, *vertex, Outcome::Cached),
            Event::Finished { vertex, .. } => self.end_vertex(definition, *vertex, Outcome::Done),
            Event::Failed { vertex, .. } => self.end_vertex(definition, *vertex, Outcome::Failed),
            Event::Canceled { vertex } => self.end_vertex(definition, *vertex, Outcome::Canceled),
        }
    }

    fn begin(&mut self, name: &str) -> usize {
        self.steps.push(Step {
            name: visible_line(name),
            started: Instant::now(),
            ended: None,
            notes: Vec::new(),
            output: VecDeque::new(),
            unended: Unended::default(),
        });
        self.steps.len() - 1
    }

    fn step(&mut self, definition: &Definition, vertex: VertexId) -> usize {
        if let Some(&step) = self.vertices.get(&vertex) {
            return step;
        }
        let step = self.begin(&definition.vertex(vertex).about.name);
        self.waiting = self.waiting.saturating_sub(1);
        self.vertices.insert(vertex, step);
        step
    }

    fn end_vertex(&mut self, definition: &Definition, vertex: VertexId, outcome: Outcome) {
        let step = self.step(definition, vertex);
        self.end(step, outcome);
    }

    fn end(&mut self, step: usize, outcome: Outcome) {
        let step = &mut self.steps[step];
        step.ended = Some((outcome, step.started.elapsed()));
        step.output.clear();
    }

    /// At most `height` lines if there is a limit, none wider than `width`. Where not all fit, what has ended first goes
    /// first, and then output.
    pub(super) fn lines(&self, width: usize, height: Option<usize>, colours: &Colours) -> Vec<String> {
        let ended = self.steps.iter().filter(|step| step.ended.is_some()).count();
        let total = self.steps.len() + self.waiting;
        let finished = if height.is_none() && ended == total { " FINISHED" } else { "" };
        let head =
            format!("[+] Building {:.1}s ({ended}/{total}){finished}", self.begun.elapsed().as_secs_f64());
        let mut groups: Vec<Vec<Line>> = self.steps.iter().map(Step::lines).collect();
        if let Some(height) = height {
            let mut room = height.saturating_sub(1);
            let mut surplus = groups.iter().map(Vec::len).sum::<usize>().saturating_sub(room);
            for (group, step) in groups.iter_mut().zip(&self.steps) {
                if surplus > 0 && step.ended.is_some() {
                    surplus = surplus.saturating_sub(group.len());
                    group.clear();
                }
            }
            groups.iter_mut().rev().for_each(|group| {
                group.truncate(room);
                room -= group.len();
            });
            self.add_output(&mut groups, room);
        }
        let lines = groups.iter().flatten().map(|line| line.shown(width, colours));
        std::iter::once(fitted(&head, width)).chain(lines).collect()
    }

    /// Below what runs, the last that it said, as far as there is room.
    fn add_output(&self, groups: &mut [Vec<Line>], mut room: usize) {
        for (group, step) in groups.iter_mut().zip(&self.steps).rev().filter(|(_, step)| step.ended.is_none())
        {
            let output: Vec<&str> =
                step.output.iter().map(String::as_str).chain(step.unended.shown()).collect();
            let some = output.len().min(self.tail).min(room);
            room -= some;
            let line = |text: &&str| Line { text: format!(" => => # {text}"), time: None, outcome: None };
            group.extend(output[output.len() - some..].iter().map(line));
        }
    }
}

impl Step {
    fn lines(&self) -> Vec<Line> {
        let outcome = self.ended.map(|(outcome, _)| outcome);
        let word = match outcome {
            None | Some(Outcome::Done) => "",
            Some(Outcome::Cached) => "CACHED ",
            Some(Outcome::Failed) => "ERROR ",
            Some(Outcome::Canceled) => "CANCELED ",
        };
        let time = self.ended.map_or_else(|| self.started.elapsed(), |(_, took)| took);
        let head = Line { text: format!(" => {word}{}", self.name), time: Some(time), outcome };
        let note = |text: &String| Line { text: format!(" => => {text}"), time: None, outcome };
        std::iter::once(head).chain(self.notes.iter().map(note)).collect()
    }
}

impl Line {
    fn shown(&self, width: usize, colours: &Colours) -> String {
        let time =
            self.time.filter(|_| width >= NARROWEST).map(|time| format!(" {:.1}s", time.as_secs_f64()));
        let time = time.unwrap_or_default();
        let room = width.saturating_sub(time.len());
        let mut line = fitted(&self.text, room);
        if !time.is_empty() {
            line.push_str(&" ".repeat(room.saturating_sub(width_of(&line))));
            line.push_str(&time);
        }
        colours.painted(self.outcome, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::How;
    use boxwright_solver::ir::{About, LocalSource, Op, SourceOp};
    use std::time::SystemTime;

    fn definition(names: &[String]) -> (Definition, Vec<VertexId>) {
        let mut definition = Definition::default();
        let ids = names.iter().map(|name| {
            let op =
                Op::Source(SourceOp::Local(LocalSource { name: name.clone(), ..LocalSource::default() }));
            definition.add(op, About { name: name.clone(), ..About::default() })
        });
        let ids = ids.collect();
        (definition, ids)
    }

    fn told(frame: &mut Frame, definition: &Definition, events: &[Event]) {
        events.iter().for_each(|event| frame.note(Note::Vertex { definition, event }));
    }

    fn started(vertex: VertexId) -> Event {
        Event::Started { vertex, at: SystemTime::now() }
    }

    fn log(vertex: VertexId, text: &str) -> Event {
        Event::Log { vertex, stream: LogStream::Stdout, bytes: text.into() }
    }

    fn shown(frame: &Frame, width: usize, height: Option<usize>) -> Vec<String> {
        frame.lines(width, height, &Colours::none())
    }

    #[test]
    fn steps_are_lines_with_their_time_at_the_edge_and_what_they_say_below_them() {
        let (definition, ids) =
            definition(&["[1/3] FROM x".into(), "[2/3] RUN y".into(), "[3/3] RUN z".into()]);
        let mut frame = Frame::new(2);
        frame.note(Note::Began { name: "[internal] load" });
        frame.note(Note::Line { text: "transferring: 3B done" });
        frame.note(Note::Ended { took: Duration::ZERO });
        told(
            &mut frame,
            &definition,
            &[
                Event::Planned { vertices: ids.clone() },
                Event::Cached { vertex: ids[0], how: How::Cached, origin: None },
                started(ids[1]),
                log(ids[1], "one\ntwo\nthr"),
                log(ids[1], "ee\n\u{1b}[32m10%\r20"),
            ],
        );
        let expected = [
            "[+] Building 0.0s (2/4)",
            " => [internal] load       0.0s",
            " => => transferring: 3B",
            " => CACHED [1/3] FROM x   0.0s",
            " => [2/3] RUN y           0.0s",
            " => => # three",
            " => => # 20",
        ];
        assert_eq!(shown(&frame, 30, Some(20)), expected);
        let failed = Event::Failed { vertex: ids[1], took: Duration::ZERO, message: "no".into() };
        told(&mut frame, &definition, &[failed, Event::Canceled { vertex: ids[2] }]);
        let all = shown(&frame, 30, None);
        assert_eq!(all[0], "[+] Building 0.0s (4/4) FIN...", "it is cut");
        assert_eq!(all[4..], [" => ERROR [2/3] RUN y     0.0s", " => CANCELED [3/3] RUN z  0.0s"]);
    }

    #[test]
    fn a_notice_of_how_a_step_ran_outlasts_its_output() {
        let (definition, ids) = definition(&["RUN x".into()]);
        let mut frame = Frame::new(2);
        let notice = Event::Log { vertex: ids[0], stream: LogStream::Notice, bytes: b"no network\n".into() };
        let finished = Event::Finished { vertex: ids[0], took: Duration::ZERO, how: How::Ran };
        told(&mut frame, &definition, &[started(ids[0]), notice, log(ids[0], "said\n"), finished]);
        assert_eq!(shown(&frame, 30, None)[1..], [" => RUN x                 0.0s", " => => no network"]);
    }

    #[test]
    fn no_word_of_others_breaks_a_line_or_drives_the_terminal() {
        let evil = "a\nb\tc\r\nd\re\u{1b}[2J";
        let (definition, ids) = definition(&[evil.into()]);
        let mut frame = Frame::new(2);
        frame.note(Note::Began { name: evil });
        frame.note(Note::Line { text: evil });
        told(
            &mut frame,
            &definition,
            &[Event::Lost { message: evil.into() }, started(ids[0]), log(ids[0], evil)],
        );
        let lines = shown(&frame, 80, Some(20));
        assert_eq!(lines[1].split_once("  0.0s").unwrap().0.trim_end(), " => a b c  d\u{fffd}e\u{fffd}[2J");
        assert!(!lines.iter().any(|line| line.contains(char::is_control)), "{lines:#?}");
    }

    #[test]
    fn no_line_is_wider_and_no_frame_higher_than_the_terminal() {
        let names: Vec<String> =
            (0..40).map(|n| format!("[{n}/40] RUN 漢字 {}", "long ".repeat(50))).collect();
        let (definition, ids) = definition(&names);
        let mut frame = Frame::new(6);
        told(&mut frame, &definition, &[Event::Planned { vertices: ids.clone() }]);
        for (n, id) in ids.iter().enumerate() {
            told(&mut frame, &definition, &[started(*id), log(*id, &format!("{}\n", "漢".repeat(300)))]);
            if n < 30 {
                let took = Duration::ZERO;
                told(&mut frame, &definition, &[Event::Finished { vertex: *id, took, how: How::Ran }]);
            }
        }
        for (width, height) in [(1, 1), (3, 2), (40, 5), (80, 12), (80, 24), (200, 60)] {
            let lines = shown(&frame, width, Some(height));
            assert!(lines.len() <= height, "{} lines in {height}", lines.len());
            assert!(lines.iter().all(|line| width_of(line) <= width), "{width}: {lines:#?}");
            assert!(lines.last().unwrap().contains("=>") || height == 1 || width < 4, "what runs is seen");
        }
        assert_eq!(shown(&frame, 80, None).len(), 41, "in the end all are");
    }
}
