//! A table in Markdown that marks and counts the bars that were missed.

use std::fmt;

/// What is rounded away in a cell misses no bar.
const ROUNDED: f64 = 5e-4;

/// Rows under a head.
#[derive(Debug, Clone, Default)]
pub struct Table {
    text: String,
    /// Bars that were missed.
    pub missed: usize,
}

impl Table {
    /// A table with these columns and no row.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self::default();
        let columns = table.row(columns);
        table.text.push('|');
        table.text.push_str(&"---|".repeat(columns));
        table.text.push('\n');
        table
    }

    /// One more row; tells how many cells it has.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> usize {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        self.text.push_str(&format!("| {} |\n", cells.join(" | ")));
        cells.len()
    }

    /// The text of a value; in bold, and counted, if the value is above its bar.
    pub fn check(&mut self, text: String, value: f64, bar: f64) -> String {
        let over = value > bar + ROUNDED;
        self.missed += usize::from(over);
        if over { format!("**{text}**") } else { text }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_above_its_bar_is_bold_and_counted() {
        let mut table = Table::new(["what", "found"]);
        for value in [1.0, 1.0004, 1.001] {
            let cell = table.check(format!("{value:.3}"), value, 1.0);
            table.row(["x".to_owned(), cell]);
        }
        let text = "| what | found |\n|---|---|\n| x | 1.000 |\n| x | 1.000 |\n| x | **1.001** |\n";
        assert_eq!((table.to_string().as_str(), table.missed), (text, 1));
    }
}
