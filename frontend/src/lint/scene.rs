//! What the checks may know of the place where a word stands.

use std::borrow::Cow;
use std::collections::BTreeMap;

use boxwright_solver::Span;

use super::Ignored;
use crate::ast::Word;
use crate::syntax::{Expansion, Lexer, Variables};

/// A stage with more variables than these was not written by hand.
pub(crate) const MOST_NAMES: usize = 1000;

/// The stage around an instruction, before the instruction takes effect.
pub(crate) struct Scene<'a> {
    pub(crate) lexer: Lexer,
    pub(crate) variables: &'a dyn Variables,
    /// The names of `variables`, to find the one that was meant: [`MOST_NAMES`] are enough.
    pub(crate) names: &'a dyn Fn() -> Vec<&'a str>,
    /// Whether an ARG of that name, with or without a value, came before.
    pub(crate) declared: &'a dyn Fn(&str) -> bool,
    /// Nobody could look at the base image: what it sets is not known.
    pub(crate) unknown_base: bool,
    /// SHELL was given, here or in the base.
    pub(crate) shell: bool,
    /// WORKDIR was given in this Dockerfile, here or in a stage that this one builds on.
    pub(crate) workdir: bool,
    pub(crate) windows: bool,
    pub(crate) ignored: Option<&'a Ignored>,
}

impl Scene<'_> {
    /// A word as it is meant; as it is written, where it can't be read.
    pub(super) fn text<'w>(&self, word: &'w Word) -> Cow<'w, str> {
        self.lexer.read(&word.text, self.variables).unwrap_or(Cow::Borrowed(&word.text))
    }

    /// The words that a word becomes, each with where it comes from.
    pub(super) fn words<'w>(&self, word: &'w Word) -> Vec<(String, &'w Word)> {
        let words = self.lexer.words(&word.text, self.variables).unwrap_or_default();
        words.into_iter().map(|text| (text, word)).collect()
    }
}

/// What came before in the same stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Earlier {
    /// By keyword, the latest of those instructions of which only the last one counts.
    pub(super) latest: BTreeMap<&'static str, Span>,
}

/// A word of FROM with its variables expanded.
pub(crate) struct FromWord<'a> {
    pub(crate) word: &'a Word,
    pub(crate) expansion: &'a Expansion,
    /// What may be used there: global arguments, with or without a value, and those that are always there.
    pub(crate) known: &'a [&'a str],
}
