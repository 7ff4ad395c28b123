//! The words that an expansion is split into.

/// Collects words as characters arrive.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Else nothing is collected.
    pub(super) wanted: bool,
    pub(super) done: Vec<String>,
    pub(super) word: String,
}

impl Words {
    pub(super) fn push(&mut self, c: char) {
        if !self.wanted {
            return;
        }
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    pub(super) fn push_value(&mut self, text: &str) {
        if self.wanted {
            text.chars().for_each(|c| self.push(c));
        }
    }

    pub(super) fn push_quoted(&mut self, text: &str) {
        if self.wanted {
            self.word.push_str(text);
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}
