//! Aligned columns: each as wide as its widest cell and a gap; those of the lists also at least ten.

use std::fmt::Write as _;

const GAP: usize = 3;
const LEAST: usize = 10;

/// Rows of equally many cells; the first row is the heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    gap: usize,
    least: usize,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Table {
        let heading = heading.iter().map(|h| (*h).to_owned()).collect();
        Table { rows: vec![heading], gap: GAP, least: LEAST }
    }

    /// Columns no wider than they need to be.
    pub(crate) fn tight(gap: usize, rows: Vec<Vec<String>>) -> Table {
        Table { rows, gap, least: 0 }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.rows.first().map_or(0, |row| row.len() - 1);
        let width = |column: usize| {
            let widest = self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            (widest + self.gap).max(self.least)
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

    #[test]
    fn tight_columns_have_no_least_width() {
        let rows = [["A", "B"], ["xy", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(Table::tight(1, rows.to_vec()).to_string(), "A  B\nxy \n");
        assert_eq!(Table::tight(1, vec![]).to_string(), "");
    }
}
