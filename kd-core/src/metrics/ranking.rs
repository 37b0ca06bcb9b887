//! Candidate answers of questions, ranked by score.

use std::collections::BTreeMap;

use candle_core::Result;

use super::{check_rows, check_scores};

/// How high the right answers of questions are ranked.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankingScores {
    /// Mean over questions of their average precision: the mean over right answers of the fraction of right ones down
    /// to there; in `0..=1`, 0 without questions.
    pub mean_average_precision: f64,
    /// Mean over questions of `1 / rank` of the first right answer; in `0..=1`, 0 without questions.
    pub mean_reciprocal_rank: f64,
    /// Questions that the means divide by: those with a right answer.
    pub questions: usize,
    /// Questions left out because no answer is right.
    pub without_right: usize,
    /// Questions, among [`RankingScores::questions`], whose answers are all right. Every ranking of them has 1 in
    /// both numbers.
    pub only_right: usize,
}

impl RankingScores {
    /// The same without the questions that have only right answers, whose ranking says nothing: what `trec_eval` gives with
    /// the `-filtered.ref` files of WikiQA, which hold neither those nor the questions without a right answer.
    ///
    /// ```
    /// let scores = kd_core::metrics::ranking_scores(&[1, 2, 2], &[0.5, 0.7, 0.6], &[true, false, true])?;
    /// assert_eq!((scores.mean_average_precision, scores.questions), (0.75, 2)); // (1 + 1/2) / 2
    /// let filtered = scores.without_only_right();
    /// assert_eq!((filtered.mean_average_precision, filtered.questions), (0.5, 1));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn without_only_right(self) -> Self {
        let questions = self.questions - self.only_right;
        // Each of them added 1 to the sum.
        let mean = |mean: f64| match questions {
            0 => 0.0,
            _ => (mean * self.questions as f64 - self.only_right as f64) / questions as f64,
        };
        Self {
            mean_average_precision: mean(self.mean_average_precision),
            mean_reciprocal_rank: mean(self.mean_reciprocal_rank),
            questions,
            only_right: 0,
            ..self
        }
    }
}

/// MAP and MRR over rows of a question, the score of one of its answers, and whether it is right.
///
/// Rows of a question need not be neighbours. Questions without a right answer are left out and counted, as is usual
/// for WikiQA (Yang et al. 2015); those with only right answers stay in, as in `trec_eval`, and are counted too
/// ([`RankingScores::without_only_right`] takes them out).
/// Among equal scores the wrong answers rank first: so a constant score is not lucky, and neither the order of rows
/// nor their names matter.
///
/// ```
/// // Question 7: wrong, right. Question 3: right, wrong, right. Question 5 has no right answer.
/// let scores = kd_core::metrics::ranking_scores(
///     &[7, 7, 3, 3, 3, 5], &[0.9, 0.4, 0.8, 0.2, 0.5, 0.1], &[false, true, true, true, false, false])?;
/// assert_eq!(scores.mean_average_precision, (1. / 2. + (1. + 2. / 3.) / 2.) / 2.);
/// assert_eq!((scores.mean_reciprocal_rank, scores.without_right), ((1. / 2. + 1.) / 2., 1));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the lists differ in length or a score is NaN.
pub fn ranking_scores<Q: Ord>(questions: &[Q], scores: &[f64], gold: &[bool]) -> Result<RankingScores> {
    check_rows("ranking_scores", scores.len(), gold.len())?;
    check_rows("ranking_scores", scores.len(), questions.len())?;
    check_scores("ranking_scores", scores)?;
    let mut answers: BTreeMap<&Q, Vec<(f64, bool)>> = BTreeMap::new();
    for ((question, &score), &is_right) in questions.iter().zip(scores).zip(gold) {
        // Without the sign of a zero, which would order them.
        answers.entry(question).or_default().push((score + 0.0, is_right));
    }
    let mut found = RankingScores::default();
    for answers in answers.values_mut() {
        answers.sort_by(|(a, a_is_right), (b, b_is_right)| b.total_cmp(a).then(a_is_right.cmp(b_is_right)));
        let ranks: Vec<usize> =
            (1..).zip(answers.iter()).filter(|(_, (_, right))| *right).map(|(rank, _)| rank).collect();
        let Some(first) = ranks.first() else {
            found.without_right += 1;
            continue;
        };
        found.questions += 1;
        found.only_right += usize::from(ranks.len() == answers.len());
        let precisions = (1..).zip(&ranks).map(|(right, &rank): (usize, _)| right as f64 / rank as f64);
        found.mean_average_precision += precisions.sum::<f64>() / ranks.len() as f64;
        found.mean_reciprocal_rank += 1.0 / *first as f64;
    }
    if found.questions > 0 {
        found.mean_average_precision /= found.questions as f64;
        found.mean_reciprocal_rank /= found.questions as f64;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_without_right_answers_are_left_out_and_those_with_only_right_ones_stay() {
        let found = ranking_scores(
            &["a", "b", "a", "c", "b", "c"],
            &[0.1, 0.3, 0.2, 0.5, 0.4, 0.6],
            &[false, true, false, true, true, false],
        );
        // a has none; b only right ones; c has its right one second.
        let expected = RankingScores {
            mean_average_precision: 0.75,
            mean_reciprocal_rank: 0.75,
            questions: 2,
            without_right: 1,
            only_right: 1,
        };
        assert_eq!(found.as_ref().unwrap(), &expected);
        let filtered = found.unwrap().without_only_right();
        let expected = RankingScores {
            mean_average_precision: 0.5,
            mean_reciprocal_rank: 0.5,
            questions: 1,
            only_right: 0,
            ..expected
        };
        assert_eq!(filtered, expected);
        assert_eq!(RankingScores::default().without_only_right(), RankingScores::default());
        let only = ranking_scores(&[1, 2], &[0.0, 1.0], &[true, false]).unwrap();
        assert_eq!(only.without_only_right(), RankingScores { without_right: 1, ..RankingScores::default() });
        assert_eq!(ranking_scores::<u32>(&[], &[], &[]).unwrap(), RankingScores::default());
        let none = ranking_scores(&[1, 1], &[0.0, 1.0], &[false, false]).unwrap();
        assert_eq!(none, RankingScores { without_right: 1, ..RankingScores::default() });
    }

    #[test]
    fn among_equal_scores_wrong_answers_rank_first_in_any_order_of_rows() {
        let scores = [0.5, 0.5, 0.5, -0.0, 0.0];
        for gold in [[true, false, false, true, false], [false, false, true, false, true]] {
            let found = ranking_scores(&[1; 5], &scores, &gold).unwrap();
            // Right ones at ranks 3 and 5.
            assert_eq!(found.mean_average_precision, (1.0 / 3.0 + 2.0 / 5.0) / 2.0);
            assert_eq!(found.mean_reciprocal_rank, 1.0 / 3.0);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message = ranking_scores(&[1, 1], &[0.1, f64::NAN], &[true, false]).unwrap_err().to_string();
        assert!(message.starts_with("ranking_scores: expected numbers, found NaN in row 1"), "{message}");
        assert!(ranking_scores(&[1], &[0.1, 0.2], &[true, false]).is_err());
        assert!(ranking_scores(&[1, 1], &[0.1, 0.2], &[true]).is_err());
    }
}
