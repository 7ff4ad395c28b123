//! What holds of any text that is parsed and lowered: it ends, and what is said of it lies within it.

use boxwright_frontend::{Bases, Diagnostic, Options, ast, lower, parse};

pub(crate) fn check(text: &[u8]) {
    let parsed = parse(text);
    let within = |list: &[Diagnostic]| {
        for d in list {
            assert!(
                parsed.text.get(d.span.start..d.span.end).is_some(),
                "{d:?} is not within {:?}",
                parsed.text
            );
        }
    };
    within(&parsed.diagnostics);
    ast::dump(&parsed.dockerfile);
    match lower(&parsed.dockerfile, &Options::default(), &Bases::default()) {
        Ok(lowered) => {
            for built in &lowered.images {
                let layers = built.image.history.iter().filter(|entry| !entry.empty_layer).count();
                assert_eq!(built.new_layers.len(), layers, "{:?}", parsed.text);
            }
        }
        Err(errors) => {
            assert!(errors.iter().any(Diagnostic::is_error) || parsed.has_errors());
            within(&errors);
        }
    }
}
