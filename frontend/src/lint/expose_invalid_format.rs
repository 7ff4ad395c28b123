//! ExposeInvalidFormat: `EXPOSE 127.0.0.1:80:80`.

use super::Rule;
use crate::ast::Word;
use crate::diagnostic::Diagnostic;

/// EXPOSE tells which ports the program listens on. Where the host publishes them is for `run -p` to say; an address or
/// a port of the host is ignored.
///
/// Bad: `EXPOSE 127.0.0.1:80:80`, `EXPOSE 80:80`
///
/// Good: `EXPOSE 80`
pub(super) const RULE: Rule = Rule::new(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);

/// `port` is one of the words that `word` stands for.
pub(super) fn check(port: &str, word: &Word) -> Option<Diagnostic> {
    let (host, _) = port.rsplit_once(':')?;
    let message =
        || format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
    host.chars().any(|c| c != ':').then(|| RULE.at(word.span, message()))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn what_belongs_to_the_host_is_found() {
        let expected = "ExposeInvalidFormat 2 EXPOSE instruction should not define an IP address or host-port mapping, found '80:81'";
        assert_eq!(found("FROM x\nEXPOSE 80:81\n"), [expected]);
        assert_eq!(found("FROM x\nARG p=127.0.0.1:80:80\nEXPOSE $p\n").len(), 1);
        assert!(found("FROM x\nEXPOSE 80-90/udp :80\n").is_empty());
    }
}
