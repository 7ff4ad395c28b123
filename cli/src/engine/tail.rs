//! The end of a text that may have no end.

use std::collections::VecDeque;

/// So many bytes at most of what was added last.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    most: usize,
    before: Before,
}

/// How much was before these bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) bytes: usize,
    /// That ended there.
    pub(super) lines: usize,
}

impl Tail {
    pub(super) fn of(most: usize) -> Tail {
        Tail { bytes: VecDeque::new(), most, before: Before::default() }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let extra = self.bytes.len().saturating_sub(self.most);
        self.before.bytes += extra;
        self.before.lines += self.bytes.drain(..extra).filter(|byte| *byte == b'\n').count();
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }

    pub(super) fn before(&self) -> Before {
        self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_what_was_before_is_counted() {
        let mut tail = Tail::of(4);
        tail.add(b"a\nb\n");
        assert_eq!((tail.bytes(), tail.before()), (b"a\nb\n".to_vec(), Before::default()));
        tail.add(b"c");
        tail.add(b"d\ne");
        assert_eq!((tail.bytes(), tail.before()), (b"cd\ne".to_vec(), Before { bytes: 4, lines: 2 }));
    }
}
