//! Precision, recall and F1 of counts.

use super::fraction;

/// How many of a kind there were, were predicted, and were predicted right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Predicted and gold.
    pub correct: usize,
    /// In the gold labels.
    pub gold: usize,
    /// In the predictions.
    pub predicted: usize,
}

impl Counts {
    /// `correct / predicted`, in `0..=1`; 0 where nothing was predicted.
    pub fn precision(&self) -> f64 {
        fraction(self.correct, self.predicted)
    }

    /// `correct / gold`, in `0..=1`; 0 where there is nothing to find.
    pub fn recall(&self) -> f64 {
        fraction(self.correct, self.gold)
    }

    /// The harmonic mean of precision and recall, `2 · correct / (gold + predicted)`, in `0..=1`; 0 where there is
    /// neither.
    pub fn f1(&self) -> f64 {
        fraction(2 * self.correct, self.gold + self.predicted)
    }
}
