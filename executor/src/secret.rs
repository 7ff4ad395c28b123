//! What the caller lends to steps and what is kept nowhere: values, and agents. Neither is ever printed.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ssh_key::SshKey;

/// Bytes that only the processes that ask for them may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// By the ids that steps know them by.
#[derive(Clone, Debug, Default)]
pub struct Lent {
    pub secrets: HashMap<String, Secret>,
    pub agents: HashMap<String, Agent>,
}

/// What answers a step that asks an ssh agent.
#[derive(Clone, Debug)]
pub enum Agent {
    /// An agent of the host, at its socket.
    Socket(PathBuf),
    /// We do, with these keys.
    Keys(Arc<[SshKey]>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let lent = Lent {
            secrets: HashMap::from([("id".to_owned(), Secret::new(b"s3cret".to_vec()))]),
            ..Lent::default()
        };
        assert!(!format!("{lent:?}").contains("s3cret"));
        assert_eq!(lent.secrets["id"].bytes(), b"s3cret");
    }
}
