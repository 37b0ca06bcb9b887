//! Correlations of two lists of numbers.

use candle_core::{Result, bail};

use super::check_rows;

/// Pearson's coefficient of linear correlation, in `-1..=1`; `None` where one list is constant or there are fewer
/// than two rows.
///
/// ```
/// let r = kd_core::metrics::pearson(&[1., 2., 3.], &[2., 2., 5.])?.expect("neither is constant");
/// assert!((r - 3. / (2f64 * 6.).sqrt()).abs() < 1e-15); // deviations -1, 0, 1 and -1, -1, 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the lists differ in length or a number is not finite.
pub fn pearson(predicted: &[f64], gold: &[f64]) -> Result<Option<f64>> {
    check("pearson", predicted, gold)?;
    Ok(correlation(predicted, gold))
}

/// Spearman's rank correlation, in `-1..=1`: Pearson's of the ranks, where equal numbers have the mean of their ranks.
/// `None` where one list is constant or there are fewer than two rows.
///
/// ```
/// let rho = kd_core::metrics::spearman(&[1., 20., 300.], &[2., 4., 3.])?.expect("neither is constant");
/// assert!((rho - 0.5).abs() < 1e-15); // 1 - 6 · (0² + 1² + 1²) / (3 · 8)
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the lists differ in length or a number is not finite.
pub fn spearman(predicted: &[f64], gold: &[f64]) -> Result<Option<f64>> {
    check("spearman", predicted, gold)?;
    Ok(correlation(&average_ranks(predicted), &average_ranks(gold)))
}

fn check(metric: &str, predicted: &[f64], gold: &[f64]) -> Result<()> {
    check_rows(metric, predicted.len(), gold.len())?;
    for (list, values) in [("predictions", predicted), ("gold values", gold)] {
        if let Some(row) = values.iter().position(|value| !value.is_finite()) {
            bail!("{metric}: expected finite {list}, found {} in row {row}", values[row]);
        }
    }
    Ok(())
}

fn correlation(xs: &[f64], ys: &[f64]) -> Option<f64> {
    let (xs, ys) = (unit_deviations(xs)?, unit_deviations(ys)?);
    Some(xs.iter().zip(&ys).map(|(x, y)| x * y).sum::<f64>().clamp(-1.0, 1.0))
}

/// Deviations from the mean, divided by their Euclidean norm; none of a constant.
fn unit_deviations(values: &[f64]) -> Option<Vec<f64>> {
    // The rounded mean of equal numbers need not be that number, so constants are looked for before.
    let first = values.first()?;
    if values.iter().all(|value| value == first) {
        return None;
    }
    // By a power of two, which rounds nothing, so that no square overflows or vanishes.
    let unit = |values: Vec<f64>| {
        let largest = values.iter().fold(0f64, |largest, value| largest.max(value.abs()));
        let scale = largest.log2().floor().exp2();
        values.into_iter().map(|value| value / scale).collect::<Vec<_>>()
    };
    let values = unit(values.to_vec());
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let deviations = unit(values.into_iter().map(|value| value - mean).collect());
    let norm = deviations.iter().map(|deviation| deviation * deviation).sum::<f64>().sqrt();
    Some(deviations.into_iter().map(|deviation| deviation / norm).collect())
}

/// Ranks from 1, equal numbers with the mean of theirs.
fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let (mut ranks, mut before) = (vec![0.0; values.len()], 0);
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        // The mean of before + 1, …, before + tied.
        let rank = before as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&row| ranks[row] = rank);
        before += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_share_their_ranks() {
        assert_eq!(average_ranks(&[3.0, 1.0, 3.0, -2.0, 3.0]), [4.0, 2.0, 4.0, 1.0, 4.0]);
        assert_eq!(average_ranks(&[0.0, -0.0]), [1.5, 1.5]);
    }

    #[test]
    fn constants_and_single_rows_have_no_correlation() {
        for f in [pearson, spearman] {
            assert_eq!(f(&[], &[]).unwrap(), None);
            assert_eq!(f(&[1.0], &[2.0]).unwrap(), None);
            // The mean of ten times 0.1 is not 0.1.
            assert_eq!(f(&[0.1; 10], &(0..10).map(f64::from).collect::<Vec<_>>()).unwrap(), None);
            assert_eq!(f(&[1.0, 2.0], &[5.0, 5.0]).unwrap(), None);
        }
    }

    #[test]
    fn a_scale_and_an_offset_change_nothing_not_even_extreme_ones() {
        let (xs, ys) = ([1.0, 4.0, 2.0, 8.0], [3.0, 1.0, 4.0, 1.5]);
        let expected = pearson(&xs, &ys).unwrap().unwrap();
        for scale in [1e-300, 1e300, -7.0] {
            let found = pearson(&xs.map(|x| x * scale), &ys).unwrap().unwrap();
            assert!((found - expected * scale.signum()).abs() < 1e-14, "{scale}: {found}");
        }
        let found = pearson(&xs.map(|x| x * 3.0 + 100.0), &ys).unwrap().unwrap();
        assert!((found - expected).abs() < 1e-12);
        assert_eq!(spearman(&xs.map(f64::exp), &ys).unwrap(), spearman(&xs, &ys).unwrap());
        assert!((pearson(&xs, &xs.map(|x| -x)).unwrap().unwrap() + 1.0).abs() < 1e-15);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let message = pearson(&[1.0, 2.0], &[f64::NAN, 1.0]).unwrap_err().to_string();
        assert!(message.starts_with("pearson: expected finite gold values, found NaN in row 0"), "{message}");
        let message = spearman(&[1.0, f64::INFINITY], &[2.0, 1.0]).unwrap_err().to_string();
        assert!(message.starts_with("spearman: expected finite predictions, found inf in row 1"), "{message}");
        assert!(pearson(&[1.0], &[1.0, 2.0]).is_err());
    }
}
