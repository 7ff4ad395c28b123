//! A program that keeps secrets, `docker-credential-NAME`: one word says what to do, standard input says for whom, and
//! standard output what came of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::Credentials;
use crate::error::{Error, Result};

pub(super) struct Program {
    program: PathBuf,
}

/// Stands for a user where the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What programs say on standard output when they know nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

impl Program {
    /// The program for `name`, in the first of the directories that has it.
    pub(super) fn find(name: &str, directories: &[PathBuf]) -> Result<Program> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(plain) {
            return Err(Error::invalid("credential helper", name, "not the end of a program's name"));
        }
        let file = format!("docker-credential-{name}");
        let is_program = |path: &Path| {
            use std::os::unix::fs::PermissionsExt;
            path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        let program = directories.iter().map(|dir| dir.join(&file)).find(|path| is_program(path));
        let program = program.ok_or(Error::NotFound { what: "program for credentials", name: file })?;
        Ok(Program { program })
    }

    pub(super) fn get(&self, server: &str) -> Result<Option<Credentials>> {
        let output = self.run("get", server.as_bytes())?;
        if !output.status.success() {
            return if is_unknown(&output) { Ok(None) } else { Err(self.error("get", &output)) };
        }
        // The parser's message could quote the secret.
        let answer: Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| Error::malformed(self.name(), "its answer is not JSON"))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (user, secret) = (text("Username"), text("Secret"));
        Ok(match (user.as_str(), secret.is_empty()) {
            (_, true) => None,
            (TOKEN_USER, _) => Some(Credentials::Identity { user: String::new(), token: secret }),
            _ => Some(Credentials::Password { user, password: secret }),
        })
    }

    pub(super) fn store(&self, server: &str, credentials: &Credentials) -> Result<()> {
        let (user, secret) = match credentials {
            Credentials::Password { user, password } => (user.as_str(), password),
            Credentials::Identity { token, .. } => (TOKEN_USER, token),
        };
        let input = json!({ "ServerURL": server, "Username": user, "Secret": secret }).to_string();
        let output = self.run("store", input.as_bytes())?;
        if output.status.success() { Ok(()) } else { Err(self.error("store", &output)) }
    }

    pub(super) fn erase(&self, server: &str) -> Result<()> {
        let output = self.run("erase", server.as_bytes())?;
        let done = output.status.success() || is_unknown(&output);
        if done { Ok(()) } else { Err(self.error("erase", &output)) }
    }

    fn run(&self, word: &str, input: &[u8]) -> Result<Output> {
        let failed = || Error::io("running", &self.program);
        let mut child = Command::new(&self.program)
            .arg(word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read says with its exit code whether that was right.
            let _ = stdin.write_all(input);
        }
        child.wait_with_output().map_err(failed())
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What the program said, without control characters; a secret is never part of that when it fails.
    fn error(&self, word: &str, output: &Output) -> Error {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said: String =
            String::from_utf8_lossy(&said).trim().chars().filter(|c| !c.is_control()).take(300).collect();
        Error::malformed(format!("{} {word}", self.name()), format!("{} ({said})", output.status))
    }
}

fn is_unknown(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).trim() == NOT_FOUND
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn helper(script: &str) -> (tempfile::TempDir, Program) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let helper = Program::find("test", &[dir.path().join("none"), dir.path().to_owned()]).unwrap();
        (dir, helper)
    }

    #[test]
    fn answers_are_understood() {
        let (_dir, h) =
            helper(r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"u\",\"Secret\":\"for $s\"}""#);
        let expected = Credentials::Password { user: "u".into(), password: "for r.example".into() };
        assert_eq!(h.get("r.example").unwrap(), Some(expected));
        let (_dir, h) = helper(r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        let expected = Credentials::Identity { user: String::new(), token: "t".into() };
        assert_eq!(h.get("r.example").unwrap(), Some(expected));
        let (_dir, h) = helper("echo credentials not found in native keychain; exit 1");
        assert_eq!(h.get("r.example").unwrap(), None);
        h.erase("r.example").unwrap();
        let (_dir, h) = helper("echo locked; exit 3");
        let error = h.get("r.example").unwrap_err().to_string();
        assert!(error.contains("docker-credential-test get") && error.contains("locked"), "{error}");
    }

    #[test]
    fn a_name_is_not_a_path() {
        for name in ["../x", "a/b", "a b", "$x"] {
            assert!(Program::find(name, &[PathBuf::from("/")]).is_err(), "{name}");
        }
        assert!(matches!(Program::find("nosuch", &[]), Err(Error::NotFound { .. })));
    }
}
