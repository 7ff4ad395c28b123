//! A program that keeps secrets, `docker-credential-NAME`: one word says what to do, standard input says for whom, and
//! standard output what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::{Value, json};

use super::Credentials;
use super::process::{self, Ran};
use crate::cancel::Cancel;
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

    pub(super) fn get(&self, server: &str, cancel: &Cancel) -> Result<Option<Credentials>> {
        let ran = self.run("get", server.as_bytes(), cancel)?;
        if is_unknown(&ran) && !ran.status.success() {
            return Ok(None);
        }
        if !ran.status.success() {
            // Where the secret belongs, something of it may be.
            return Err(self.error("get", ran.status, &ran.stderr, ""));
        }
        // The parser's message could quote the secret.
        let answer: Value = serde_json::from_slice(&ran.stdout)
            .map_err(|_| Error::malformed(self.name(), "its answer is not JSON"))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (user, secret) = (text("Username"), text("Secret"));
        Ok(match (user.as_str(), secret.is_empty()) {
            (_, true) => None,
            (TOKEN_USER, _) => Some(Credentials::Identity { user: String::new(), token: secret }),
            _ => Some(Credentials::Password { user, password: secret }),
        })
    }

    pub(super) fn store(&self, server: &str, credentials: &Credentials, cancel: &Cancel) -> Result<()> {
        let (user, secret) = match credentials {
            Credentials::Password { user, password } => (user.as_str(), password),
            Credentials::Identity { token, .. } => (TOKEN_USER, token),
            // It would come back as an identity token, and be shown to the token server.
            Credentials::Bearer { .. } => {
                return Err(Error::malformed(self.name(), "such programs can't keep a registrytoken"));
            }
        };
        let input = json!({ "ServerURL": server, "Username": user, "Secret": secret }).to_string();
        let ran = self.run("store", input.as_bytes(), cancel)?;
        if ran.status.success() {
            return Ok(());
        }
        Err(self.error("store", ran.status, &[ran.stdout, ran.stderr].concat(), secret))
    }

    pub(super) fn erase(&self, server: &str, cancel: &Cancel) -> Result<()> {
        let ran = self.run("erase", server.as_bytes(), cancel)?;
        if ran.status.success() || is_unknown(&ran) {
            return Ok(());
        }
        Err(self.error("erase", ran.status, &[ran.stdout, ran.stderr].concat(), ""))
    }

    fn run(&self, word: &str, input: &[u8], cancel: &Cancel) -> Result<Ran> {
        process::run(Command::new(&self.program).arg(word), input, cancel)
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What the program said, without control characters, and not at all if there is something of `secret` in it.
    fn error(&self, word: &str, status: ExitStatus, said: &[u8], secret: &str) -> Error {
        let said = String::from_utf8_lossy(said);
        let said: String = if tells(&said, secret) {
            "…".to_owned()
        } else {
            said.trim().chars().filter(|c| !c.is_control()).take(300).collect()
        };
        Error::malformed(format!("{} {word}", self.name()), format!("{status} ({said})"))
    }
}

/// Whether `said` could hold the secret, also as JSON or a shell's trace have it. A document with a secret does, whichever that is.
fn tells(said: &str, secret: &str) -> bool {
    let bare = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let forms = [secret.to_owned(), json!(secret).to_string()];
    let told = |form: &String| said.contains(form) || bare(said).contains(&bare(form));
    said.contains("Secret") || (!secret.is_empty() && forms.iter().any(told))
}

fn is_unknown(ran: &Ran) -> bool {
    String::from_utf8_lossy(&ran.stdout).trim() == NOT_FOUND
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

    fn get(helper: &Program) -> Result<Option<Credentials>> {
        helper.get("r.example", &Cancel::new().unwrap())
    }

    #[test]
    fn answers_are_understood() {
        let (_dir, h) =
            helper(r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"u\",\"Secret\":\"for $s\"}""#);
        let expected = Credentials::Password { user: "u".into(), password: "for r.example".into() };
        assert_eq!(get(&h).unwrap(), Some(expected));
        let (_dir, h) = helper(r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        let expected = Credentials::Identity { user: String::new(), token: "t".into() };
        assert_eq!(get(&h).unwrap(), Some(expected));
        let (_dir, h) = helper("echo credentials not found in native keychain; exit 1");
        assert_eq!(get(&h).unwrap(), None);
        h.erase("r.example", &Cancel::new().unwrap()).unwrap();
        let (_dir, h) = helper("echo locked >&2; exit 3");
        let error = get(&h).unwrap_err().to_string();
        assert!(error.contains("docker-credential-test get") && error.contains("locked"), "{error}");
    }

    #[test]
    fn a_program_that_fails_does_not_show_the_secret() {
        let cancel = Cancel::new().unwrap();
        let scripts = [
            "cat >&2; exit 1",
            "cat; exit 1",
            "set -x; s=$(cat); : \"$s\"; exit 1",
            r#"set -x; s=$(sed 's/","[TU].*//; s/.*t":"//'); : "$s"; exit 1"#,
        ];
        for (script, password) in scripts.iter().flat_map(|s| ["hunter2", "hun'ter\n\"2"].map(|p| (s, p))) {
            let (_dir, h) = helper(script);
            let credentials = Credentials::Password { user: "u".into(), password: password.into() };
            let error = h.store("r.example", &credentials, &cancel).unwrap_err().to_string();
            assert!(!error.contains("hun"), "{script}: {error}");
        }
        for script in ["echo hunter2; exit 1", r#"echo '{"Secret":"hunter2"}' >&2; exit 1"#] {
            let (_dir, h) = helper(script);
            let error = get(&h).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{script}: {error}");
        }
        for script in [r#"cut -d '"' -f 4; exit 1"#, r#"set -x; s=$(cut -d '"' -f 4); : "$s"; exit 1"#] {
            let (_dir, h) = helper(script);
            let credentials = Credentials::Password { user: "u".into(), password: "hunter2".into() };
            let error = h.store("r.example", &credentials, &cancel).unwrap_err().to_string();
            assert!(error.contains('…') && !error.contains("hunter2"), "{script}: {error}");
        }
        let (_dir, h) = helper("echo the keychain is locked; exit 1");
        let credentials = Credentials::Password { user: "u".into(), password: "hunter2".into() };
        let error = h.store("r.example", &credentials, &cancel).unwrap_err().to_string();
        assert!(error.contains("the keychain is locked"), "{error}");
    }

    #[test]
    fn a_token_for_the_registry_does_not_become_one_for_its_token_server() {
        let (_dir, h) = helper("cat >stored");
        let credentials = Credentials::Bearer { token: "t0ken".into() };
        let error = h.store("r.example", &credentials, &Cancel::new().unwrap()).unwrap_err().to_string();
        assert!(error.contains("can't keep a registrytoken") && !error.contains("t0ken"), "{error}");
    }

    #[test]
    fn a_name_is_not_a_path() {
        for name in ["../x", "a/b", "a b", "$x"] {
            assert!(Program::find(name, &[PathBuf::from("/")]).is_err(), "{name}");
        }
        assert!(matches!(Program::find("nosuch", &[]), Err(Error::NotFound { .. })));
    }
}
