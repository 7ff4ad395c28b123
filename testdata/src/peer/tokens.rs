//! A token server (distribution's "token" authentication) whose tokens a real registry takes: signed, limited to what was
//! asked for, and short-lived if a test wants that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::certificates::Certificates;
use super::registry::{PASSWORD, USER};
use crate::server::{Reply, Request, Server};

pub(super) const SERVICE: &str = "registry of a test";
pub(super) const ISSUER: &str = "test";
/// What is given for a password to whoever wants to come back, and taken instead of it.
const IDENTITY: &str = "1dent1ty";

#[derive(Debug)]
pub struct TokenServer {
    server: Server,
}

impl TokenServer {
    /// Tokens live `seconds`. Without a login they allow nothing.
    pub fn start(certificates: &Certificates, seconds: u64) -> TokenServer {
        let (key, chain) = (certificates.path("server.key"), certificates.path("server.pem"));
        let server = Server::start(move |request, _| answer(request, &key, &chain, seconds));
        TokenServer { server }
    }

    pub(super) fn realm(&self) -> String {
        format!("http://{}/token", self.server.address())
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }
}

fn answer(request: &Request, key: &Path, chain: &Path, seconds: u64) -> Reply {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let query =
        if request.method == "POST" { body.as_str() } else { request.path.split_once('?').unwrap().1 };
    let fields = fields(query);
    let has = |name: &str, value: &str| fields.iter().any(|(n, v)| n == name && v == value);
    let login = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let known = if request.method == "POST" {
        has("grant_type", "refresh_token") && has("refresh_token", IDENTITY)
    } else {
        request.header("authorization") == Some(&login)
    };
    let wanted = request.method == "POST" || request.header("authorization").is_some();
    if !has("service", SERVICE) || wanted && !known {
        return Reply::new(401, "{}");
    }
    let scopes = fields.iter().filter(|(name, _)| name == "scope").flat_map(|(_, v)| v.split(' '));
    let access: Vec<Value> = scopes.filter(|_| known).filter_map(access).collect();
    let token = signed(key, chain, &access, seconds);
    let name = if request.method == "POST" { "access_token" } else { "token" };
    let mut answer = json!({ name: token, "expires_in": seconds });
    if has("offline_token", "true") && has("client_id", "boxwright") {
        answer["refresh_token"] = IDENTITY.into();
    }
    Reply::new(200, answer.to_string())
}

fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions: Vec<&str> = actions.split(',').collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

fn signed(key: &Path, chain: &Path, access: &[Value], seconds: u64) -> String {
    let pem = fs::read_to_string(chain).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "jti": "1", "access": access,
        "iat": now, "nbf": now, "exp": now + seconds,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(&claims));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &text).unwrap();
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-binary", "-sign"]).arg(key).arg(file.path());
    let signature = command.output().unwrap();
    assert!(signature.status.success(), "{signature:?}");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.stdout))
}

/// The fields of a query or form.
fn fields(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
