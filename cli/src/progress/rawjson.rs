//! Progress for programs: BuildKit's `SolveStatus` as JSON, one object a line, each with what is new: `vertexes` whole,
//! `statuses` of what a vertex does, `logs` and `warnings` with their bytes in base64.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use boxwright_cache::Digest;
use boxwright_frontend::Diagnostic;
use boxwright_solver::{Definition, Event, LogStream, VertexId};
use serde_json::{Value, json};

use super::{LOAD_DEFINITION, Note, Watch};
use crate::explain;
use crate::format::time;

/// What BuildKit says of steps that were stopped, by which its readers know them.
const CANCELED: &str = "context canceled";

/// Writes each note as it comes. Output that can't be written is lost: a build does not fail for want of a reader.
#[derive(Debug)]
pub(crate) struct RawJson<W>(Mutex<State<W>>);

#[derive(Debug)]
struct State<W> {
    out: W,
    /// By their digests, as they were told last.
    vertexes: HashMap<Digest, Value>,
    /// A build solves several definitions, each with numbers of its own.
    solves: usize,
    steps: usize,
    /// The latest step that is no vertex.
    own: Option<Digest>,
}

impl<W: Write + Send> RawJson<W> {
    pub(crate) fn new(out: W) -> RawJson<W> {
        RawJson(Mutex::new(State { out, vertexes: HashMap::new(), solves: 0, steps: 0, own: None }))
    }
}

impl<W: Write + Send> Watch for RawJson<W> {
    fn note(&self, note: Note<'_>) {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let _ = state.note(note);
    }
}

/// The vertex that warnings are about: BuildKit's readers drop those that are about none.
fn definition_digest() -> Digest {
    Digest::of(LOAD_DEFINITION.as_bytes())
}

/// The warnings of a build, which are known when it has been solved.
pub(crate) fn warnings(warnings: &[Diagnostic]) -> String {
    let told = warnings.iter().map(|warning| {
        let (first, last) = warning.lines();
        let rule = warning.rule.map_or(String::new(), |rule| format!("{rule}: "));
        let short = format!("{rule}{} (line {first})", warning.title());
        json!({
            "vertex": definition_digest().to_string(),
            "level": 1,
            "short": BASE64_STANDARD.encode(short),
            "range": [{"start": {"line": first}, "end": {"line": last}}],
        })
    });
    let told: Vec<Value> = told.collect();
    if told.is_empty() { String::new() } else { format!("{}\n", json!({"warnings": told})) }
}

/// What is said beside the steps.
pub(crate) fn remark(line: &str) -> String {
    let vertex = definition_digest().to_string();
    let short = BASE64_STANDARD.encode(line);
    format!("{}\n", json!({"warnings": [{"vertex": vertex, "level": 1, "short": short}]}))
}

impl<W: Write> State<W> {
    fn note(&mut self, note: Note<'_>) -> std::io::Result<()> {
        match note {
            Note::Began { name } => self.begin(name).map(|digest| self.own = Some(digest)),
            Note::Line { text } => self.own.map_or(Ok(()), |own| self.status(own, text)),
            Note::Ended { .. } => self.own.map_or(Ok(()), |own| self.end(own, None)),
            Note::Broke { message } => self.own.map_or(Ok(()), |own| self.end(own, Some(message))),
            Note::Vertex { definition, event } => self.event(definition, event),
            Note::Why { definition, vertex, why } => {
                let digest = self.vertex(definition, vertex);
                explain::lines(why).iter().try_for_each(|line| self.status(digest, line))
            }
        }
    }

    fn event(&mut self, definition: &Definition, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Keyed { .. } => Ok(()),
            Event::Lost { message } => {
                let digest = self.begin("importing cache")?;
                self.end(digest, Some(message))
            }
            Event::Planned { vertices } => {
                self.solves += 1;
                let planned: Vec<Value> = vertices
                    .iter()
                    .map(|vertex| {
                        let digest = self.vertex(definition, *vertex);
                        self.vertexes[&digest].clone()
                    })
                    .collect();
                self.tell(&json!({"vertexes": planned}))
            }
            Event::Started { vertex, at } => {
                let digest = self.vertex(definition, *vertex);
                self.change(digest, |vertex| vertex["started"] = timestamp(*at).into())
            }
            Event::Ballast { vertex, ballast } => {
                let digest = self.vertex(definition, *vertex);
                self.status(digest, &explain::ballast(ballast))
            }
            Event::Log { vertex, stream, bytes } => {
                let digest = self.vertex(definition, *vertex);
                let stream = match stream {
                    LogStream::Stdout => 1,
                    LogStream::Stderr | LogStream::Notice => 2,
                };
                let (data, now) = (BASE64_STANDARD.encode(bytes), timestamp(SystemTime::now()));
                let log =
                    json!({"vertex": digest.to_string(), "stream": stream, "data": data, "timestamp": now});
                self.tell(&json!({"logs": [log]}))
            }
            Event::Cached { vertex, .. } => {
                let digest = self.vertex(definition, *vertex);
                self.vertexes.entry(digest).and_modify(|vertex| vertex["cached"] = true.into());
                self.end(digest, None)
            }
            Event::Finished { vertex, .. } => {
                let digest = self.vertex(definition, *vertex);
                self.end(digest, None)
            }
            Event::Failed { vertex, message, .. } => {
                let digest = self.vertex(definition, *vertex);
                self.end(digest, Some(&crate::engine::failed_process(definition, *vertex, message)))
            }
            Event::Canceled { vertex } => {
                let digest = self.vertex(definition, *vertex);
                self.end(digest, Some(CANCELED))
            }
        }
    }

    /// A step that is no vertex.
    fn begin(&mut self, name: &str) -> std::io::Result<Digest> {
        self.steps += 1;
        let digest = match definition_digest() {
            digest if name.starts_with(LOAD_DEFINITION) && !self.vertexes.contains_key(&digest) => digest,
            _ => Digest::of(format!("step {}", self.steps).as_bytes()),
        };
        self.vertexes.insert(digest, json!({"digest": digest.to_string(), "name": name}));
        self.change(digest, |vertex| vertex["started"] = timestamp(SystemTime::now()).into())?;
        Ok(digest)
    }

    /// Readers tell vertices by their digests and ask nothing else of these.
    fn vertex(&mut self, definition: &Definition, id: VertexId) -> Digest {
        let named = |id: VertexId| Digest::of(format!("{} {}", self.solves, id.index()).as_bytes());
        let digest = named(id);
        let vertex = definition.vertex(id);
        let inputs =
            || vertex.op.inputs().into_iter().map(|input| named(input).to_string()).collect::<Vec<_>>();
        let told = || json!({"digest": digest.to_string(), "inputs": inputs(), "name": vertex.about.name});
        self.vertexes.entry(digest).or_insert_with(told);
        digest
    }

    fn end(&mut self, digest: Digest, error: Option<&str>) -> std::io::Result<()> {
        self.change(digest, |vertex| {
            let now = timestamp(SystemTime::now());
            if vertex["started"].is_null() {
                vertex["started"] = now.clone().into();
            }
            vertex["completed"] = now.into();
            if let Some(error) = error {
                vertex["error"] = error.into();
            }
        })
    }

    fn change(&mut self, digest: Digest, change: impl FnOnce(&mut Value)) -> std::io::Result<()> {
        let vertex = self.vertexes.get_mut(&digest).expect("what is changed was told before");
        change(vertex);
        let vertex = vertex.clone();
        self.tell(&json!({"vertexes": [vertex]}))
    }

    fn status(&mut self, digest: Digest, text: &str) -> std::io::Result<()> {
        let now = timestamp(SystemTime::now());
        let id = text.strip_suffix(" done").unwrap_or(text);
        self.tell(&json!({"statuses": [{
            "id": id, "vertex": digest.to_string(), "current": 0, "timestamp": now, "started": now, "completed": now,
        }]}))
    }

    /// In one piece: remarks come from other threads.
    fn tell(&mut self, status: &Value) -> std::io::Result<()> {
        self.out.write_all(format!("{status}\n").as_bytes())
    }
}

/// With the nanoseconds that Go has.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = time::rfc3339(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::How;
    use boxwright_solver::ir::{About, LocalSource, Op, SourceOp};
    use std::time::Duration;

    fn lines(raw: RawJson<Vec<u8>>) -> Vec<Value> {
        let out = String::from_utf8(raw.0.into_inner().unwrap().out).unwrap();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_vertex_is_told_whole_each_time() {
        let mut definition = Definition::default();
        let op = Op::Source(SourceOp::Local(LocalSource { name: "x".into(), ..LocalSource::default() }));
        let vertex = definition.add(op, About { name: "[1/1] RUN \u{1b}x".into(), ..About::default() });
        let raw = RawJson::new(Vec::new());
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        for event in [
            Event::Planned { vertices: vec![vertex] },
            Event::Started { vertex, at },
            Event::Log { vertex, stream: LogStream::Stderr, bytes: b"\xff\n".to_vec() },
            Event::Failed { vertex, took: Duration::ZERO, message: "no".into() },
        ] {
            raw.note(Note::Vertex { definition: &definition, event: &event });
        }
        let told = lines(raw);
        let digest = told[0]["vertexes"][0]["digest"].clone();
        assert!(digest.as_str().unwrap().parse::<Digest>().is_ok());
        let name = "[1/1] RUN \u{1b}x";
        assert_eq!(told[0], json!({"vertexes": [{"digest": digest, "inputs": [], "name": name}]}));
        let begun = json!({"digest": digest, "inputs": [], "name": name, "started": "1970-01-01T00:00:01.500000000Z"});
        assert_eq!(told[1], json!({"vertexes": [begun]}));
        let log = &told[2]["logs"][0];
        assert_eq!((&log["vertex"], &log["stream"], &log["data"]), (&digest, &2.into(), &"/wo=".into()));
        let failed = &told[3]["vertexes"][0];
        assert_eq!((&failed["error"], &failed["started"]), (&"no".into(), &begun["started"]));
        assert!(failed["completed"].is_string());
    }

    /// What was written at once.
    #[derive(Default)]
    struct Pieces(Vec<String>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_in_one_piece_however_long_it_is() {
        let raw = RawJson::new(Pieces::default());
        raw.note(Note::Began { name: &"n".repeat(100_000) });
        raw.note(Note::Line { text: "line" });
        let pieces = raw.0.into_inner().unwrap().out.0;
        assert_eq!(pieces.len(), 2);
        for piece in &pieces {
            assert!(serde_json::from_str::<Value>(piece).is_ok() && piece.ends_with('\n'));
        }
    }

    #[test]
    fn what_is_found_was_started_and_steps_of_ours_have_statuses() {
        let mut definition = Definition::default();
        let op = Op::Source(SourceOp::Local(LocalSource::default()));
        let vertex = definition.add(op, About::default());
        let raw = RawJson::new(Vec::new());
        let cached = Event::Cached { vertex, how: How::Cached, origin: None };
        raw.note(Note::Vertex { definition: &definition, event: &cached });
        raw.note(Note::Vertex { definition: &definition, event: &Event::Canceled { vertex } });
        raw.note(Note::Began { name: "exporting to image" });
        raw.note(Note::Line { text: "exporting layers done" });
        raw.note(Note::Ended { took: Duration::ZERO });
        let told = lines(raw);
        let found = &told[0]["vertexes"][0];
        assert!(found["cached"] == true && found["started"] == found["completed"], "{found}");
        assert_eq!(told[1]["vertexes"][0]["error"], CANCELED);
        assert_eq!(told[3]["statuses"][0]["id"], "exporting layers");
        assert_eq!(told[3]["statuses"][0]["vertex"], told[2]["vertexes"][0]["digest"]);
        assert!(told[4]["vertexes"][0]["completed"].is_string());
    }
}
