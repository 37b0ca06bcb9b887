//! Metrics by the names that configurations have for them.
//!
//! | problem          | names                                                                                         |
//! |------------------|-----------------------------------------------------------------------------------------------|
//! | classification   | `accuracy`, `auc`, `auc@LABEL`, `auc@average`, and `f1`, `precision`, `recall`, plain or after `macro_`, `micro_`, `weighted_` |
//! | sequence tagging | `seq_tag_f1` (whole entities), `seq_tag_accuracy` or `accuracy` (words)                       |
//! | regression       | `MSE`, `RMSE`, `pearsonr`, `spearmanr`                                                        |
//! | mrc              | `f1`, `em`, also after `mrc_` ([`answers`])                                                   |
//!
//! The values are those of [`kd_core::metrics`]: fractions in `0..=1`, not percentages. The first of a list of metrics chooses
//! between models; smaller is better for `MSE` and `RMSE` alone ([`Score::smaller_is_better`]).
//!
//! What differs from Gong et al. 2019 (NeuronBlocks), whose names these are: `auc@LABEL` takes `LABEL` as the positive class against
//! all others and `auc@average` is the mean of that over the classes, where theirs compare every class's probability with the
//! one positive class, so that of two classes the average is always one half. `f1`, `precision` and `recall` are about the same
//! positive class as `auc`, where theirs take the class of index 1, the rarer one.

pub mod answers;

use kd_core::metrics::{Average, accuracy, class_scores, entity_f1, pearson, roc_auc, spearman};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// A class for each example.
    Classification,
    /// A tag for each word.
    SequenceTagging,
    /// A number for each example.
    Regression,
    /// An answer in a passage: machine reading comprehension.
    Mrc,
}

impl Problem {
    /// As configurations call it: `sequence_tagging`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::SequenceTagging => "sequence_tagging",
            Self::Regression => "regression",
            Self::Mrc => "mrc",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Score {
    /// The fraction of rows whose class was predicted: examples, or words.
    Accuracy,
    /// The area under the ROC curve of a class against all others.
    Auc(Positive),
    /// Of classes: precision, recall or F1.
    Classes(ClassScore, Over),
    /// F1 of whole entities.
    EntityF1,
    /// The mean of squared errors.
    Mse,
    /// The root of the mean of squared errors.
    Rmse,
    /// Pearson's correlation.
    Pearson,
    /// Spearman's correlation.
    Spearman,
    /// F1 of the words of answers.
    AnswerF1,
    /// The fraction of answers that are right.
    AnswerMatch,
}

/// Which class counts as positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positive {
    /// That of the configuration; see [`positive_class`].
    Configured,
    /// The class of this name.
    Named(String),
    /// Every one in turn, and the mean of it.
    Each,
}

/// A number of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassScore {
    /// Right ones of those predicted.
    Precision,
    /// Right ones of those there are.
    Recall,
    /// The harmonic mean of both.
    F1,
}

/// How the numbers of classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// That of the positive class.
    Positive,
    /// See [`Average::Macro`].
    Macro,
    /// See [`Average::Micro`].
    Micro,
    /// See [`Average::Weighted`].
    Weighted,
}

/// Classes of rows and what was predicted of them.
#[derive(Debug, Clone, Copy)]
pub struct ClassRows<'a> {
    /// The names of the classes.
    pub classes: &'a [String],
    /// The class that counts as positive, if the configuration names it.
    pub positive: Option<&'a str>,
    /// The class of each row.
    pub gold: &'a [u32],
    /// For each row a number for each class, the larger the likelier. For areas under a curve they must be comparable between
    /// rows: probabilities, not logits.
    pub scores: &'a [Vec<f32>],
}

impl Score {
    /// The metric of a name.
    ///
    /// ```
    /// use kd_data::scores::{Positive, Problem, Score};
    /// let auc = Score::named("auc@1", Problem::Classification)?;
    /// assert_eq!(auc, Score::Auc(Positive::Named("1".to_string())));
    /// assert!(Score::named("RMSE", Problem::Regression)?.smaller_is_better());
    /// let message = Score::named("MSE", Problem::Classification).unwrap_err().to_string();
    /// assert!(message.starts_with("metric `MSE`: expected one of accuracy, auc, "));
    /// # Ok::<(), kd_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none of this name for the problem.
    pub fn named(name: &str, problem: Problem) -> Result<Self> {
        let of_classes = |name: &str| {
            let (over, number) = match name.split_once('_') {
                Some(("macro", number)) => (Over::Macro, number),
                Some(("micro", number)) => (Over::Micro, number),
                Some(("weighted", number)) => (Over::Weighted, number),
                _ => (Over::Positive, name),
            };
            let number = match number {
                "precision" => ClassScore::Precision,
                "recall" => ClassScore::Recall,
                "f1" => ClassScore::F1,
                _ => return None,
            };
            Some(Self::Classes(number, over))
        };
        let score = match (problem, name) {
            (Problem::Classification, "accuracy") => Some(Self::Accuracy),
            (Problem::Classification, "auc") => Some(Self::Auc(Positive::Configured)),
            (Problem::Classification, "auc@average") => Some(Self::Auc(Positive::Each)),
            (Problem::Classification, _) => match name.strip_prefix("auc@") {
                Some(label) if !label.is_empty() => Some(Self::Auc(Positive::Named(label.to_string()))),
                _ => of_classes(name),
            },
            (Problem::SequenceTagging, "seq_tag_f1") => Some(Self::EntityF1),
            (Problem::SequenceTagging, "seq_tag_accuracy" | "accuracy") => Some(Self::Accuracy),
            (Problem::Regression, "MSE") => Some(Self::Mse),
            (Problem::Regression, "RMSE") => Some(Self::Rmse),
            (Problem::Regression, "pearsonr") => Some(Self::Pearson),
            (Problem::Regression, "spearmanr") => Some(Self::Spearman),
            (Problem::Mrc, "f1" | "mrc_f1") => Some(Self::AnswerF1),
            (Problem::Mrc, "em" | "mrc_em") => Some(Self::AnswerMatch),
            _ => None,
        };
        score.ok_or_else(|| {
            let names = match problem {
                Problem::Classification => {
                    "accuracy, auc, auc@LABEL, auc@average, f1, precision and recall, the last three also after macro_, \
                     micro_ or weighted_"
                }
                Problem::SequenceTagging => "seq_tag_f1, seq_tag_accuracy",
                Problem::Regression => "MSE, RMSE, pearsonr, spearmanr",
                Problem::Mrc => "f1, em",
            };
            Error::argument(format!("metric `{name}`"), format!("one of {names}"), "another name")
        })
    }

    /// Whether a better model has a smaller value.
    pub fn smaller_is_better(&self) -> bool {
        matches!(self, Self::Mse | Self::Rmse)
    }

    /// Its value on classes. `None` where an area is undefined: all rows are of one class.
    ///
    /// # Errors
    /// If the metric is not one of classes, if a row has not a number for each class or one is NaN, if a class is none,
    /// or if a positive class is needed and there is none ([`positive_class`]).
    pub fn of_classes(&self, rows: &ClassRows<'_>) -> Result<Option<f64>> {
        let ClassRows { classes, positive, gold, scores } = *rows;
        if gold.len() != scores.len() {
            return Err(Error::argument("scores", format!("those of {} rows", gold.len()), scores.len().to_string()));
        }
        if let Some(row) = scores.iter().find(|row| row.len() != classes.len() || row.iter().any(|x| x.is_nan())) {
            return Err(Error::argument("scores", format!("{} numbers a row", classes.len()), format!("{row:?}")));
        }
        if let Some(class) = gold.iter().find(|&&class| class as usize >= classes.len()) {
            return Err(Error::argument("gold", format!("classes below {}", classes.len()), class.to_string()));
        }
        let area = |class: usize| -> Result<Option<f64>> {
            let of: Vec<f64> = scores.iter().map(|row| f64::from(row[class])).collect();
            let right: Vec<bool> = gold.iter().map(|&gold| gold as usize == class).collect();
            Ok(roc_auc(&of, &right)?)
        };
        let predicted = || -> Vec<u32> { scores.iter().map(|row| largest(row) as u32).collect() };
        match self {
            Self::Accuracy => Ok(Some(accuracy(&predicted(), gold))),
            Self::Auc(Positive::Configured) => area(positive_class(classes, positive)?),
            Self::Auc(Positive::Named(label)) => area(positive_class(classes, Some(label))?),
            Self::Auc(Positive::Each) => {
                let areas = (0..classes.len()).map(area).collect::<Result<Option<Vec<f64>>>>()?;
                Ok(areas.map(|areas| areas.iter().sum::<f64>() / areas.len() as f64))
            }
            Self::Classes(score, over) => {
                let average = match over {
                    Over::Positive => Average::Binary { positive: positive_class(classes, positive)? as u32 },
                    Over::Macro => Average::Macro,
                    Over::Micro => Average::Micro,
                    Over::Weighted => Average::Weighted,
                };
                let of = class_scores(&predicted(), gold)?;
                Ok(Some(match score {
                    ClassScore::Precision => of.precision(average),
                    ClassScore::Recall => of.recall(average),
                    ClassScore::F1 => of.f1(average),
                }))
            }
            _ => Err(self.not_of("classes")),
        }
    }

    /// Its value on the tags of sentences, gold and predicted.
    ///
    /// # Errors
    /// If the metric is not one of tags, the sentences are not equally long, or a tag is malformed.
    pub fn of_tags<S: AsRef<str>>(&self, gold: &[Vec<S>], predicted: &[Vec<S>]) -> Result<f64> {
        let words = |tags: &[Vec<S>]| tags.iter().map(Vec::len).collect::<Vec<_>>();
        if words(gold) != words(predicted) {
            let total =
                |tags: &[Vec<S>]| format!("{} words of {} sentences", words(tags).iter().sum::<usize>(), tags.len());
            return Err(Error::argument("predicted tags", total(gold), total(predicted)));
        }
        match self {
            Self::EntityF1 => {
                let pairs = gold.iter().zip(predicted).map(|(gold, predicted)| (&gold[..], &predicted[..]));
                Ok(entity_f1(pairs)?.f1())
            }
            Self::Accuracy => {
                let pairs = || gold.iter().flatten().zip(predicted.iter().flatten());
                let right = pairs().filter(|(gold, predicted)| gold.as_ref() == predicted.as_ref()).count();
                let n = pairs().count();
                Ok(if n == 0 { 0.0 } else { right as f64 / n as f64 })
            }
            _ => Err(self.not_of("tags")),
        }
    }

    /// Its value on numbers. `None` where it is undefined: the mean of nothing, the correlation with a constant.
    ///
    /// # Errors
    /// If the metric is not one of numbers, the lists are not equally long, or a number is NaN where it is ranked.
    pub fn of_numbers(&self, gold: &[f64], predicted: &[f64]) -> Result<Option<f64>> {
        if gold.len() != predicted.len() {
            let expected = format!("those of {} rows", gold.len());
            return Err(Error::argument("predicted numbers", expected, predicted.len().to_string()));
        }
        let mean_square = || {
            let sum: f64 = gold.iter().zip(predicted).map(|(gold, predicted)| (gold - predicted).powi(2)).sum();
            (!gold.is_empty()).then(|| sum / gold.len() as f64)
        };
        match self {
            Self::Mse => Ok(mean_square()),
            Self::Rmse => Ok(mean_square().map(f64::sqrt)),
            Self::Pearson => Ok(pearson(predicted, gold)?),
            Self::Spearman => Ok(spearman(predicted, gold)?),
            _ => Err(self.not_of("numbers")),
        }
    }

    /// Its value on answers: the mean over them, 0 without any.
    ///
    /// # Errors
    /// If the metric is not one of answers, or the lists are not equally long.
    pub fn of_answers<S: AsRef<str>>(&self, gold: &[S], predicted: &[S]) -> Result<f64> {
        if gold.len() != predicted.len() {
            let expected = format!("those of {} rows", gold.len());
            return Err(Error::argument("predicted answers", expected, predicted.len().to_string()));
        }
        let of: fn(&str, &str) -> f64 = match self {
            Self::AnswerF1 => answers::f1,
            Self::AnswerMatch => |gold, predicted| f64::from(u8::from(answers::exact_match(gold, predicted))),
            _ => return Err(self.not_of("answers")),
        };
        let sum: f64 = gold.iter().zip(predicted).map(|(gold, predicted)| of(gold.as_ref(), predicted.as_ref())).sum();
        Ok(if gold.is_empty() { 0.0 } else { sum / gold.len() as f64 })
    }

    fn not_of(&self, what: &str) -> Error {
        Error::argument("metric", format!("one of {what}"), format!("{self:?}"))
    }
}

/// The place of the class that counts as positive: the named one; without a name `1`, where the classes are `0` and `1`.
///
/// # Errors
/// If there is no class of the name, or no name and other classes.
pub fn positive_class(classes: &[String], name: Option<&str>) -> Result<usize> {
    let place = |name: &str| classes.iter().position(|class| class == name);
    let known = || format!("`{}`", classes.join("`, `"));
    match name {
        Some(name) => place(name).ok_or_else(|| Error::argument("positive class", known(), format!("`{name}`"))),
        None => match (place("1"), place("0"), classes.len()) {
            (Some(one), Some(_), 2) => Ok(one),
            _ => Err(Error::argument("positive class", "its name, or the classes `0` and `1`", known())),
        },
    }
}

/// The place of the largest value, of equal ones the first; 0 of none.
///
/// ```
/// assert_eq!(kd_data::scores::largest(&[0.2, 0.4, 0.4]), 1);
/// ```
pub fn largest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, idx| if values[idx] > values[best] { idx } else { best })
}

#[cfg(test)]
mod tests;
