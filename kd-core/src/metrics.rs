//! Numbers that say how good predictions are.
//!
//! | function       | counts                                  | source                           |
//! |----------------|-----------------------------------------|----------------------------------|
//! | [`accuracy`]   | rows                                    |                                  |
//! | [`entity_f1`]  | whole entities, boundaries and type     | `conlleval`, CoNLL-2000 to -2003 |
//!
//! Neither is differentiable. All results are fractions in `0..=1`, not percentages; a quotient of nothing by
//! nothing is 0, as `conlleval` prints it.

mod entities;

pub use entities::{Entity, EntityCounts, EntityScores, entities, entity_f1, split_tag};

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
