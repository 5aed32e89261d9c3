//! Aligned columns, and sizes and times for people.

use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};

/// Lays rows out in columns, two spaces apart; those in `right` are aligned at their right. Control characters in
/// names from elsewhere are shown, not obeyed.
pub(super) fn table<const N: usize>(rows: &[[String; N]], right: &[usize]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.clone().map(|cell| visible(&cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut lines = Vec::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if right.contains(&column) {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
            line.push_str("  ");
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// A text from elsewhere that cannot move the cursor.
pub(super) fn visible(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// Bytes per second.
pub(super) fn rate(bytes: u64) -> String {
    format!("{}/s", HumanBytes(bytes))
}

/// How long so many bytes take at this rate.
pub(super) fn time_left(bytes: u64, rate: u64) -> Option<String> {
    let seconds = bytes.checked_div(rate)?;
    Some(format!("{} left", HumanDuration(Duration::from_secs(seconds.max(1)))))
}

/// A count and its noun.
pub(super) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |a: &str, b: &str, c: &str| [a.to_owned(), b.to_owned(), c.to_owned()];
        let shown = table(&[row("a", "1", "x"), row("äöü", "200", ""), row("\u{1b}[2J", "3", "z")], &[1]);
        assert_eq!(shown, "a            1  x\näöü        200\n\\u{1b}[2J    3  z");
        assert_eq!(table::<2>(&[], &[]), "");
    }

    #[test]
    fn time_left_is_told_only_if_known() {
        assert_eq!(time_left(100, 0), None);
        assert_eq!(time_left(120_000, 1000).as_deref(), Some("2 minutes left"));
    }
}
