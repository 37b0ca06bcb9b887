//! Numbers that say how good predictions are.
//!
//! | function                       | of                                       | source                              |
//! |--------------------------------|------------------------------------------|-------------------------------------|
//! | [`accuracy`]                   | classes                                  |                                     |
//! | [`class_scores`]               | classes: precision, recall, F1, Matthews | Gorodkin 2004 (Matthews)            |
//! | [`roc_auc`]                    | scores of two classes                    | Fawcett 2006                        |
//! | [`average_precision`]          | scores of two classes                    |                                     |
//! | [`ranking_scores`]             | candidates of questions: MAP, MRR        | Yang et al. 2015, `trec_eval`       |
//! | [`pearson`], [`spearman`]      | numbers                                  |                                     |
//! | [`expected_calibration_error`] | confidences                              | Guo et al. 2017                     |
//! | [`entity_f1`]                  | whole entities, boundaries and type      | `conlleval`, CoNLL-2000 to -2003    |
//!
//! None is differentiable. Fractions are in `0..=1`, not percentages, and one of nothing by nothing is 0, as
//! `conlleval` and scikit-learn print it. What is undefined without being a fraction, the area under a curve of one
//! class and a correlation with a constant, is `None`. Scores and numbers are compared as they are, so logits do as
//! well as probabilities, but NaN is an error.

mod binary;
mod calibration;
mod classes;
mod correlation;
mod counts;
mod entities;
mod ranking;

use candle_core::{Result, bail};

pub use binary::{average_precision, roc_auc};
pub use calibration::expected_calibration_error;
pub use classes::{Average, ClassScores, class_scores};
pub use correlation::{pearson, spearman};
pub use counts::Counts;
pub use entities::{Entity, EntityScores, entities, entity_f1, split_tag};
pub use ranking::{RankingScores, ranking_scores};

/// The fraction of rows whose class was predicted, of all rows; 0 if there are none.
///
/// ```
/// assert_eq!(kd_core::metrics::accuracy(&[0, 2, 1, 1], &[0, 2, 2, 1]), 0.75);
/// ```
///
/// # Panics
/// If the two lists differ in length: they are then not about the same rows.
pub fn accuracy(predicted: &[u32], gold: &[u32]) -> f64 {
    assert_eq!(predicted.len(), gold.len(), "accuracy of {} predictions for {} rows", predicted.len(), gold.len());
    let correct = predicted.iter().zip(gold).filter(|(predicted, gold)| predicted == gold).count();
    fraction(correct, gold.len())
}

/// `part / whole`, or 0 where there is nothing to divide by.
fn fraction(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Refuses lists about different rows.
fn check_rows(metric: &str, found: usize, rows: usize) -> Result<()> {
    if found == rows { Ok(()) } else { bail!("{metric}: {found} predictions for {rows} rows") }
}

/// Refuses NaN.
fn check_scores(metric: &str, scores: &[f64]) -> Result<()> {
    match scores.iter().position(|score| score.is_nan()) {
        Some(row) => bail!("{metric}: expected numbers, found NaN in row {row}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_divides_by_rows() {
        assert_eq!(accuracy(&[1, 2, 3], &[1, 0, 3]), 2.0 / 3.0);
        assert_eq!(accuracy(&[5], &[5]), 1.0);
        assert_eq!(accuracy(&[], &[]), 0.0);
    }

    #[test]
    #[should_panic(expected = "accuracy of 1 predictions for 2 rows")]
    fn accuracy_of_different_rows_panics() {
        accuracy(&[1], &[1, 2]);
    }
}
