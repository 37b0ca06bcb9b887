//! Whether confidences are the chances of being right.

use candle_core::{Result, bail};

use super::check_rows;

/// The mean over rows of how far confidence and accuracy are apart in a row's bin, in `0..=1` (Guo et al. 2017, §2);
/// 0 without rows.
///
/// `Σ_b n_b / n · |accuracy_b - mean confidence_b|` over `bins` equal bins of `0..=1`. Bin `b`, from 0, is
/// `(b / bins, (b + 1) / bins]`: an upper edge belongs to it, and 0 to the first. Guo et al. use 15 bins and the
/// probability of the predicted class.
///
/// ```
/// // Two bins. Below 0.5: confidence 0.4, accuracy 0. Above: mean confidence 0.8, accuracy 0.5.
/// let error = kd_core::metrics::expected_calibration_error(&[0.4, 0.7, 0.9], &[false, true, false], 2)?;
/// assert!((error - (0.4 / 3. + 0.3 * 2. / 3.)).abs() < 1e-15);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the lists differ in length, a confidence is not in `0..=1`, or there are no bins.
pub fn expected_calibration_error(confidences: &[f64], correct: &[bool], bins: usize) -> Result<f64> {
    const NAME: &str = "expected_calibration_error";
    check_rows(NAME, confidences.len(), correct.len())?;
    if bins == 0 {
        bail!("{NAME}: expected at least 1 bin, found 0");
    }
    if let Some(row) = confidences.iter().position(|confidence| !(0.0..=1.0).contains(confidence)) {
        bail!("{NAME}: expected confidences in 0..=1, found {} in row {row}", confidences[row]);
    }
    let upper_edges: Vec<f64> = (1..=bins).map(|bin| bin as f64 / bins as f64).collect();
    // Of each bin, the sum of confidences less the number of right rows.
    let mut gaps = vec![0.0; bins];
    for (&confidence, &is_correct) in confidences.iter().zip(correct) {
        let bin = upper_edges.partition_point(|&edge| edge < confidence);
        gaps[bin] += confidence - if is_correct { 1.0 } else { 0.0 };
    }
    let sum: f64 = gaps.iter().map(|gap| gap.abs()).sum();
    Ok(if confidences.is_empty() { 0.0 } else { sum / confidences.len() as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_edges_belong_to_their_bin() {
        // In one bin a right row of 0.5 and a wrong one make up for each other; in two they add.
        let error = |confidences: &[f64], bins| expected_calibration_error(confidences, &[true, false], bins).unwrap();
        assert_eq!(error(&[0.5, 0.5], 2), 0.0);
        assert_eq!(error(&[0.25, 0.5], 2), 0.125);
        assert_eq!(error(&[0.25, 0.5 + f64::EPSILON], 2), (0.75 + 0.5 + f64::EPSILON) / 2.0);
        assert_eq!(error(&[0.0, 1.0], 2), 1.0);
        assert_eq!(error(&[0.0, 1.0], 1), 0.0);
        // 0.07 · 100 is above 7 in f64, yet 7 / 100 is an edge.
        assert_eq!(error(&[0.07, 0.065], 100), (0.93f64 - 0.065).abs() / 2.0);
    }

    #[test]
    fn sure_and_right_is_calibrated_and_no_rows_are_zero() {
        assert_eq!(expected_calibration_error(&[1.0; 3], &[true; 3], 15).unwrap(), 0.0);
        assert_eq!(expected_calibration_error(&[1.0; 3], &[false; 3], 15).unwrap(), 1.0);
        assert_eq!(expected_calibration_error(&[], &[], 15).unwrap(), 0.0);
    }

    #[test]
    fn what_is_no_probability_is_an_error() {
        let message =
            |confidences: &[f64], bins| expected_calibration_error(confidences, &[true], bins).unwrap_err().to_string();
        assert!(message(&[1.5], 2).contains("expected confidences in 0..=1, found 1.5 in row 0"));
        assert!(message(&[f64::NAN], 2).contains("found NaN in row 0"));
        assert!(message(&[0.5], 0).contains("at least 1 bin"));
        assert!(message(&[0.5, 0.5], 2).contains("2 predictions for 1 rows"));
    }
}
