//! Aligned columns: each as wide as its widest cell and three spaces, and at least ten.

use std::fmt::Write as _;

const GAP: usize = 3;
const LEAST: usize = 10;

/// Rows of equally many cells; the first row is the heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Table {
        Table { rows: vec![heading.iter().map(|h| (*h).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.rows[0].len() - 1;
        let width = |column: usize| {
            let widest = self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            (widest + GAP).max(LEAST)
        };
        let widths: Vec<usize> = (0..last).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}")?;
            }
            writeln!(f, "{line}{}", row[last])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_is_not_padded() {
        let mut table = Table::new(&["REPOSITORY", "TAG", "SIZE"]);
        table.row(vec!["x".into(), "a-longer-tag".into(), "1B".into()]);
        assert_eq!(table.to_string(), "REPOSITORY   TAG            SIZE\nx            a-longer-tag   1B\n");
    }
}
