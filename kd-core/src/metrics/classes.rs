//! Precision, recall, F1 and Matthews' coefficient of predicted classes.

use std::collections::BTreeMap;

use candle_core::Result;

use super::{Counts, check_rows};

/// How the numbers of several classes become one. The words are scikit-learn's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// That of one class, against all others; 0 for a class that does not occur.
    Binary {
        /// The class that counts as positive.
        positive: u32,
    },
    /// The mean over classes that occur in predictions or gold labels, each counted once.
    Macro,
    /// Over all rows together. Where every row has one class, precision, recall and F1 are all the accuracy.
    Micro,
    /// The mean over classes, each counted as often as it is in the gold labels.
    Weighted,
}

/// Counts of every class.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClassScores {
    /// Rows of each class that occurs in predictions or gold labels.
    pub by_class: BTreeMap<u32, Counts>,
}

/// Counts over rows of a predicted and a gold class.
///
/// ```
/// use kd_core::metrics::{Average, class_scores};
/// let scores = class_scores(&[0, 0, 1, 1], &[0, 1, 1, 1])?;
/// assert_eq!(scores.precision(Average::Macro), (0.5 + 1.0) / 2.0);
/// assert_eq!(scores.recall(Average::Binary { positive: 1 }), 2.0 / 3.0);
/// assert_eq!(scores.f1(Average::Micro), 0.75);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the two lists differ in length.
pub fn class_scores(predicted: &[u32], gold: &[u32]) -> Result<ClassScores> {
    check_rows("class_scores", predicted.len(), gold.len())?;
    let mut by_class: BTreeMap<u32, Counts> = BTreeMap::new();
    for (&predicted, &gold) in predicted.iter().zip(gold) {
        by_class.entry(predicted).or_default().predicted += 1;
        let counts = by_class.entry(gold).or_default();
        counts.gold += 1;
        counts.correct += usize::from(predicted == gold);
    }
    Ok(ClassScores { by_class })
}

impl ClassScores {
    /// The counts of all classes together.
    pub fn overall(&self) -> Counts {
        self.by_class.values().fold(Counts::default(), |sum, counts| Counts {
            correct: sum.correct + counts.correct,
            gold: sum.gold + counts.gold,
            predicted: sum.predicted + counts.predicted,
        })
    }

    /// Right rows of all rows, in `0..=1`; 0 without rows.
    pub fn accuracy(&self) -> f64 {
        self.overall().recall()
    }

    /// [`Counts::precision`], averaged; in `0..=1`, 0 without rows.
    pub fn precision(&self, average: Average) -> f64 {
        self.average(average, Counts::precision)
    }

    /// [`Counts::recall`], averaged; in `0..=1`, 0 without rows.
    pub fn recall(&self, average: Average) -> f64 {
        self.average(average, Counts::recall)
    }

    /// [`Counts::f1`], averaged; in `0..=1`, 0 without rows. The macro average is the mean of the F1 of classes.
    pub fn f1(&self, average: Average) -> f64 {
        self.average(average, Counts::f1)
    }

    fn average(&self, average: Average, of: impl Fn(&Counts) -> f64) -> f64 {
        let classes = self.by_class.values();
        let (sum, count) = match average {
            Average::Binary { positive } => return self.by_class.get(&positive).map_or(0.0, of),
            Average::Micro => return of(&self.overall()),
            Average::Macro => (classes.map(of).sum::<f64>(), self.by_class.len()),
            Average::Weighted => (classes.map(|counts| counts.gold as f64 * of(counts)).sum(), self.overall().gold),
        };
        if count == 0 { 0.0 } else { sum / count as f64 }
    }

    /// Matthews' correlation coefficient of predicted and gold class, in `-1..=1`, for any number of classes
    /// (Gorodkin 2004).
    ///
    /// With `n` rows, `c` right ones, and `pₖ` and `gₖ` rows of class `k` in predictions and gold labels it is
    /// `(c·n - Σ pₖgₖ) / √((n² - Σ pₖ²) (n² - Σ gₖ²))`; 0 where only one class is predicted or only one is gold.
    ///
    /// ```
    /// // One of four is a false negative: (2 · 1 - 0 · 1) / √(2 · 3 · 1 · 2).
    /// let scores = kd_core::metrics::class_scores(&[1, 1, 0, 0], &[1, 1, 1, 0])?;
    /// assert!((scores.matthews() - 2.0 / 12f64.sqrt()).abs() < 1e-15);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn matthews(&self) -> f64 {
        // Products of two counts below 2³² have room for a sum in 128 bits.
        let product = |a: usize, b: usize| a as i128 * b as i128;
        let sum = |of: fn(&Counts) -> (usize, usize)| -> i128 {
            self.by_class.values().map(of).map(|(a, b)| product(a, b)).sum()
        };
        let Counts { correct, gold: rows, .. } = self.overall();
        let all = product(rows, rows);
        let predicted = all - sum(|counts| (counts.predicted, counts.predicted));
        let gold = all - sum(|counts| (counts.gold, counts.gold));
        let covariance = product(correct, rows) - sum(|counts| (counts.predicted, counts.gold));
        if predicted == 0 || gold == 0 {
            return 0.0;
        }
        (covariance as f64 / (predicted as f64 * gold as f64).sqrt()).clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVERAGES: [Average; 4] = [Average::Binary { positive: 1 }, Average::Macro, Average::Micro, Average::Weighted];

    #[test]
    fn three_classes_by_hand() {
        // Class 0: 2 of 3 predicted are right, of 2. Class 1: 1 of 1, of 2. Class 2: 0 of 1, of 1. Five rows, three
        // right.
        let scores = class_scores(&[0, 0, 1, 0, 2], &[0, 0, 1, 2, 1]).unwrap();
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        close(scores.precision(Average::Macro), (2.0 / 3.0 + 1.0) / 3.0);
        close(scores.recall(Average::Macro), (1.0 + 0.5) / 3.0);
        close(scores.f1(Average::Macro), (0.8 + 2.0 / 3.0) / 3.0);
        close(scores.f1(Average::Weighted), (2.0 * 0.8 + 2.0 * 2.0 / 3.0) / 5.0);
        close(scores.f1(Average::Micro), 0.6);
        close(scores.accuracy(), 0.6);
        close(scores.f1(Average::Binary { positive: 0 }), 0.8);
        // (3·5 - (3·2 + 1·2 + 1·1)) / √((25 - 11) (25 - 9))
        close(scores.matthews(), 6.0 / (14f64 * 16.0).sqrt());
    }

    #[test]
    fn nothing_and_one_class_are_zero_where_undefined() {
        let none = class_scores(&[], &[]).unwrap();
        for average in AVERAGES {
            assert_eq!([none.precision(average), none.recall(average), none.f1(average)], [0.0; 3]);
        }
        assert_eq!([none.matthews(), none.accuracy()], [0.0; 2]);
        let one = class_scores(&[1, 1], &[1, 1]).unwrap();
        assert!(AVERAGES.iter().all(|&average| one.f1(average) == 1.0));
        assert_eq!(one.matthews(), 0.0);
        assert_eq!(one.f1(Average::Binary { positive: 7 }), 0.0);
        let constant = class_scores(&[0, 0, 0], &[0, 1, 0]).unwrap();
        assert_eq!((constant.matthews(), constant.precision(Average::Binary { positive: 1 })), (0.0, 0.0));
        let opposite = class_scores(&[0, 1], &[1, 0]).unwrap();
        assert_eq!(opposite.matthews(), -1.0);
    }

    #[test]
    fn different_rows_are_an_error() {
        let message = class_scores(&[1], &[1, 2]).unwrap_err().to_string();
        assert!(message.starts_with("class_scores: 1 predictions for 2 rows"), "{message}");
    }
}
