//! Scores of two classes: how well they put positive rows before negative ones, at every threshold.

use candle_core::Result;

use super::{check_rows, check_scores};

/// The area under the curve of true-positive over false-positive rate, in `0..=1`.
///
/// It is the chance that a positive row has a higher score than a negative one, where a tie is half a chance.
/// `None` where the rows are all of one class, for which scikit-learn gives NaN.
///
/// ```
/// // Of four pairs of a positive and a negative row two are in order and one is tied.
/// let area = kd_core::metrics::roc_auc(&[0.9, 0.4, 0.4, 0.7], &[true, true, false, false])?;
/// assert_eq!(area, Some(2.5 / 4.0));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the lists differ in length or a score is NaN.
pub fn roc_auc(scores: &[f64], gold: &[bool]) -> Result<Option<f64>> {
    let thresholds = thresholds("roc_auc", scores, gold)?;
    let Some(&(positives, negatives)) = thresholds.last() else { return Ok(None) };
    if positives == 0 || negatives == 0 {
        return Ok(None);
    }
    // Pairs, counted twice so that half of one is a whole number.
    let (mut pairs, mut before) = (0u128, (0, 0));
    for &(true_positives, false_positives) in &thresholds {
        pairs += (false_positives - before.1) as u128 * (before.0 + true_positives) as u128;
        before = (true_positives, false_positives);
    }
    Ok(Some(pairs as f64 / (2.0 * positives as f64 * negatives as f64)))
}

/// The mean precision over positive rows, `Σₙ (Rₙ - Rₙ₋₁) Pₙ` over thresholds from the highest score down, in `0..=1`.
///
/// Rows of equal scores pass a threshold together. 0 where no row is positive, as scikit-learn gives.
///
/// ```
/// // At 0.9 all of one is positive, at 0.4 two of four.
/// let precision = kd_core::metrics::average_precision(&[0.9, 0.4, 0.4, 0.7], &[true, true, false, false])?;
/// assert_eq!(precision, 0.5 * 1.0 + 0.5 * 0.5);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the lists differ in length or a score is NaN.
pub fn average_precision(scores: &[f64], gold: &[bool]) -> Result<f64> {
    let thresholds = thresholds("average_precision", scores, gold)?;
    let positives = thresholds.last().map_or(0, |&(positives, _)| positives);
    if positives == 0 {
        return Ok(0.0);
    }
    let (mut sum, mut before) = (0.0, 0);
    for (true_positives, false_positives) in thresholds {
        let precision = true_positives as f64 / (true_positives + false_positives) as f64;
        sum += (true_positives - before) as f64 * precision;
        before = true_positives;
    }
    Ok(sum / positives as f64)
}

/// Positive and negative rows with at least each score that occurs, from the highest down; the last are all rows.
fn thresholds(metric: &str, scores: &[f64], gold: &[bool]) -> Result<Vec<(usize, usize)>> {
    check_rows(metric, scores.len(), gold.len())?;
    check_scores(metric, scores)?;
    let mut rows: Vec<(f64, bool)> = scores.iter().copied().zip(gold.iter().copied()).collect();
    rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let (mut counts, mut found) = ((0, 0), Vec::new());
    // `==` and not `total_cmp`, for which -0 is below 0; they are neighbours all the same.
    for tied in rows.chunk_by(|(a, _), (b, _)| a == b) {
        let positives = tied.iter().filter(|(_, is_positive)| *is_positive).count();
        counts = (counts.0 + positives, counts.1 + tied.len() - positives);
        found.push(counts);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_no_rows_and_constant_scores() {
        assert_eq!(roc_auc(&[], &[]).unwrap(), None);
        assert_eq!(roc_auc(&[0.1, 0.2], &[true, true]).unwrap(), None);
        assert_eq!(roc_auc(&[0.1, 0.2], &[false, false]).unwrap(), None);
        assert_eq!(roc_auc(&[3.0; 5], &[true, false, false, true, false]).unwrap(), Some(0.5));
        assert_eq!(roc_auc(&[-0.0, 0.0], &[true, false]).unwrap(), Some(0.5));
        assert_eq!(roc_auc(&[f64::INFINITY, f64::NEG_INFINITY], &[true, false]).unwrap(), Some(1.0));
        assert_eq!(average_precision(&[], &[]).unwrap(), 0.0);
        assert_eq!(average_precision(&[0.1, 0.2], &[false, false]).unwrap(), 0.0);
        assert_eq!(average_precision(&[0.1, 0.2], &[true, true]).unwrap(), 1.0);
        assert_eq!(average_precision(&[3.0; 5], &[true, false, false, true, false]).unwrap(), 0.4);
    }

    #[test]
    fn what_is_no_score_is_an_error() {
        let message = roc_auc(&[0.1, f64::NAN], &[true, false]).unwrap_err().to_string();
        assert!(message.starts_with("roc_auc: expected numbers, found NaN in row 1"), "{message}");
        let message = average_precision(&[0.1], &[true, false]).unwrap_err().to_string();
        assert!(message.starts_with("average_precision: 1 predictions for 2 rows"), "{message}");
        assert!(average_precision(&[f64::NAN], &[true]).is_err());
    }
}
