//! ExposeProtoCasing: `EXPOSE 80/TCP`.

use super::Rule;
use crate::ast::Word;
use crate::diagnostic::Diagnostic;

/// Protocols are kept in lower case whatever is written.
///
/// Bad: `EXPOSE 80/TcP`
///
/// Good: `EXPOSE 80/tcp`
pub(super) const RULE: Rule = Rule::new(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase",
);

/// `port` is one of the words that `word` stands for.
pub(super) fn check(port: &str, word: &Word) -> Option<Diagnostic> {
    let container = port.rsplit(':').next().unwrap_or_default();
    let (_, protocol) = container.split_once('/')?;
    let message = || format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
    (protocol != protocol.to_lowercase()).then(|| RULE.at(word.span, message()))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_protocol_in_capitals_is_found() {
        let expected =
            "ExposeProtoCasing 2 Defined protocol '80/TcP' in EXPOSE instruction should be lowercase";
        assert_eq!(found("FROM x\nEXPOSE 80/TcP 81 82/udp\n"), [expected]);
    }
}
