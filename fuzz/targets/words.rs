//! Any text as a word that holds variables. The first byte chooses how it is read.
#![no_main]

use boxwright_frontend::syntax::{Lexer, Mode, parse_heredoc_word, split_words};

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let (how, text) = input;
    let bit = |n: u8| how & (1 << n) != 0;
    let mode = Mode { raw_quotes: bit(0), raw_escapes: bit(1), skip_unset: bit(2), literal_quotes: bit(3) };
    let variables = [("a", "x"), ("b", "one two"), ("c", ""), ("path", "/usr/lib/x.so")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let escape = if bit(4) { '`' } else { '\\' };
    let lexer = Lexer::new(escape).mode(mode);
    if let Ok(expansion) = lexer.expand(text, &variables[..]) {
        assert_eq!(lexer.word(text, &variables[..]).as_deref(), Ok(expansion.text.as_str()));
        assert!(expansion.matched.is_disjoint(&expansion.unmatched), "{expansion:?}");
    }
    let _ = lexer.words(text, &variables[..]);
    let _ = parse_heredoc_word(text);
    let _ = split_words(text, escape);
});
