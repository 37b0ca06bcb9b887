//! `auc`: the area under the curve of two columns of a prediction file.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kd_core::metrics::roc_auc;

/// `auc`.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Auc {
    /// Prediction file
    #[arg(long, alias = "input-file")]
    pub input_file: PathBuf,
    /// Place of the predicted number among the columns, from 0
    #[arg(long, alias = "predict-index")]
    pub predict_index: usize,
    /// Place of the label, 0 or 1
    #[arg(long, alias = "label-index")]
    pub label_index: usize,
    /// Whether the first line names the columns
    #[arg(long)]
    pub header: bool,
}

impl Auc {
    /// The area, in `[0, 1]`.
    ///
    /// # Errors
    /// If the file cannot be read, a column is missing or of another kind, or all labels are the same.
    pub fn value(&self) -> Result<f64> {
        let path = || self.input_file.display().to_string();
        let text = std::fs::read_to_string(&self.input_file).with_context(path)?;
        self.of(&text).with_context(path)
    }

    fn of(&self, text: &str) -> Result<f64> {
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        let lines = (1..).zip(text.lines()).skip(usize::from(self.header));
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let columns: Vec<&str> = line.trim_end().split('\t').collect();
            let column = |place: usize| match columns.get(place) {
                Some(column) => Ok(column.trim()),
                None => bail!("line {number}: expected a column {place}, found {} columns", columns.len()),
            };
            let score = column(self.predict_index)?;
            match score.parse::<f64>() {
                Ok(score) if score.is_finite() => scores.push(score),
                _ => bail!("line {number}: expected a number, found `{score}`"),
            }
            labels.push(match column(self.label_index)? {
                "1" => true,
                "0" => false,
                other => bail!("line {number}: expected the label 0 or 1, found `{other}`"),
            });
        }
        roc_auc(&scores, &labels)?.context("expected labels of both kinds, found one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_from_0_and_wrong_ones_are_named() {
        let auc = Auc { input_file: PathBuf::new(), predict_index: 2, label_index: 1, header: true };
        // Of the pairs (right, wrong): 0.9 > 0.2, 0.9 > 0.6, 0.4 > 0.2, 0.4 < 0.6.
        let text = "q\tl\tp\na\t1\t0.9\nb\t0\t0.2\n\nc\t1\t0.4\nd\t0\t0.6\n";
        assert_eq!(auc.of(text).unwrap(), 0.75);
        for (text, message) in [
            ("h\na\t1\n", "line 2: expected a column 2, found 2 columns"),
            ("h\na\t1\tx\n", "line 2: expected a number, found `x`"),
            ("h\na\t0.5\t1\n", "line 2: expected the label 0 or 1, found `0.5`"),
            ("h\na\t1\t1\n", "expected labels of both kinds, found one"),
        ] {
            assert_eq!(auc.of(text).unwrap_err().to_string(), message);
        }
    }
}
