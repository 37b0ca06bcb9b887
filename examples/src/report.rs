//! `report.json` and the table that goes with it.

use std::path::Path;

use anyhow::Result;
use kd_bench::latency::Latency;
use serde::{Deserialize, Serialize};

/// Mean and spread over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divides by n - 1); 0 for one value.
    pub std: f64,
}

impl Spread {
    /// Of `values`; NaN for none.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        Self { mean, std: if values.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() } }
    }
}

/// Writes `report` as indented JSON, whole or not at all.
pub fn save(path: &Path, report: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    save_text(path, &text)
}

/// Writes `text`, whole or not at all.
pub fn save_text(path: &Path, text: &str) -> Result<()> {
    Ok(kd_core::checkpoint::replace_file_with(path, text.as_bytes())?)
}

/// `value` as a percentage with one decimal, with its spread if there is one.
pub fn percent(spread: Spread, seeds: usize) -> String {
    let (mean, std) = (100.0 * spread.mean, 100.0 * spread.std);
    if seeds < 2 { format!("{mean:.1}") } else { format!("{mean:.1} ± {std:.1}") }
}

/// A latency as `p50 / p99` in milliseconds.
pub fn milliseconds(latency: &Latency) -> String {
    format!("{:.2} / {:.2}", latency.p50_ms, latency.p99_ms)
}

/// `rows` under `header`, in columns of equal width; the first column is flush left, the others flush right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.push("-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len().saturating_sub(1))));
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// The table in Markdown, under its title.
pub fn markdown(title: &str, header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> =
        header.iter().enumerate().map(|(idx, _)| if idx == 0 { "---" } else { "---:" }.into()).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{title}\n\n{}{}{body}", line(header), line(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_by_hand() {
        // Mean of 1, 2, 6 is 3; squares 4 + 1 + 9 = 14; 14 / 2 = 7.
        assert_eq!(Spread::of(&[1., 2., 6.]), Spread { mean: 3., std: 7f64.sqrt() });
        assert_eq!(Spread::of(&[5.]), Spread { mean: 5., std: 0. });
    }

    #[test]
    fn a_table_aligns_its_columns() {
        let rows = vec![vec!["gold".to_string(), "60.8 ± 1.2".to_string()], vec!["both".to_string(), "7".to_string()]];
        assert_eq!(
            table(&["student", "F1"], &rows),
            "student          F1\n-------------------\ngold     60.8 ± 1.2\nboth              7"
        );
    }

    #[test]
    fn a_markdown_table_has_a_rule() {
        let text = |cells: &[&str]| cells.iter().map(|cell| cell.to_string()).collect::<Vec<_>>();
        let table = markdown("MRPC", &text(&["method", "dev"]), &[text(&["gold", "80.1 ± 0.2"])]);
        assert_eq!(table, "MRPC\n\n| method | dev |\n| --- | ---: |\n| gold | 80.1 ± 0.2 |\n");
    }
}
