//! How good predictions are, by the metrics of a task.

use kd_core::metrics::{
    Average, Counts, accuracy, class_scores, entity_f1, pearson, ranking_scores, roc_auc, spearman,
};
use serde::{Deserialize, Serialize};

use super::{Examples, Targets, Task};
use crate::error::{Error, Result};

/// What predictions are measured by; every one is higher for better predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The fraction of rows whose class was predicted ([`accuracy`]).
    Accuracy,
    /// F1 of the second of two classes ([`class_scores`]).
    F1,
    /// Matthews' coefficient ([`class_scores`]).
    Matthews,
    /// Pearson's correlation ([`pearson`]).
    Pearson,
    /// Spearman's correlation ([`spearman`]).
    Spearman,
    /// The mean average precision over questions with an answer ([`ranking_scores`]), answers ranked by the second class's
    /// logit minus the first's.
    MeanAveragePrecision,
    /// The mean reciprocal rank over the same.
    MeanReciprocalRank,
    /// The area under the ROC curve of the second class ([`roc_auc`]).
    RocAuc,
    /// F1 of whole entities ([`entity_f1`]).
    SpanF1,
    /// F1 over all pairs of a text and a class, of which those of a logit above 0 are predicted.
    MicroF1,
    /// The fraction of texts whose classes were all predicted, and no others.
    ExactMatch,
}

impl Metric {
    /// Its name in reports, `span_f1` for example.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::MeanAveragePrecision => "mean_average_precision",
            Self::MeanReciprocalRank => "mean_reciprocal_rank",
            Self::RocAuc => "roc_auc",
            Self::SpanF1 => "span_f1",
            Self::MicroF1 => "micro_f1",
            Self::ExactMatch => "exact_match",
        }
    }
}

/// Metrics and their values, in the task's order; none where a value is undefined (the correlation with a constant). As
/// JSON an object by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores(pub Vec<(Metric, Option<f64>)>);

impl Scores {
    /// The value of the first metric, which chooses between models; NaN where it is undefined.
    pub fn first(&self) -> f64 {
        self.0.first().and_then(|(_, value)| *value).unwrap_or(f64::NAN)
    }
}

impl Serialize for Scores {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(metric, value)| (metric.name(), value)))
    }
}

impl Task {
    /// How good `logits` are: for every example those of its rows, a column for each of `classes`.
    ///
    /// The class of a row is the first of the largest logits; of several labels those of a logit above 0 are predicted, a
    /// probability above one half.
    ///
    /// # Errors
    /// If there are not as many rows as labels, or not as many columns as a metric needs, if a logit is NaN, if examples
    /// have no labels, or no groups where they are ranked.
    pub fn scores(&self, examples: &Examples, classes: &[String], logits: &[Vec<Vec<f32>>]) -> Result<Scores> {
        let targets = self.targets(examples, classes)?;
        check(&targets, classes.len(), logits)?;
        let score = |&metric: &Metric| Ok((metric, value(metric, self, examples, classes, &targets, logits)?));
        Ok(Scores(self.metrics.iter().map(score).collect::<Result<_>>()?))
    }
}

/// Refuses logits that do not belong to the labels.
fn check(targets: &Targets, classes: usize, logits: &[Vec<Vec<f32>>]) -> Result<()> {
    let rows: Vec<usize> = match targets {
        Targets::Classes(rows) => rows.iter().map(Vec::len).collect(),
        Targets::Scores(scores) => vec![1; scores.len()],
        Targets::Sets(sets) => vec![1; sets.len()],
    };
    let found: Vec<usize> = logits.iter().map(Vec::len).collect();
    if rows != found {
        let total = |rows: &[usize]| format!("{} rows of {} examples", rows.iter().sum::<usize>(), rows.len());
        return Err(Error::argument("logits", total(&rows), total(&found)));
    }
    let width = if matches!(targets, Targets::Scores(_)) { 1 } else { classes };
    match logits.iter().flatten().find(|row| row.len() != width || row.iter().any(|logit| logit.is_nan())) {
        Some(row) => Err(Error::argument("logits", format!("{width} numbers a row"), format!("{row:?}"))),
        None => Ok(()),
    }
}

fn value(
    metric: Metric,
    task: &Task,
    examples: &Examples,
    classes: &[String],
    targets: &Targets,
    logits: &[Vec<Vec<f32>>],
) -> Result<Option<f64>> {
    let rows = || logits.iter().flatten();
    // The score of the second class of two.
    let margins = || -> Vec<f64> { rows().map(|row| f64::from(row[1]) - f64::from(row[0])).collect() };
    Ok(match (metric, targets) {
        (Metric::Accuracy | Metric::F1 | Metric::Matthews, Targets::Classes(gold)) => {
            let (predicted, gold): (Vec<u32>, Vec<u32>) = (rows().map(|row| largest(row)).collect(), gold.concat());
            let scores = class_scores(&predicted, &gold)?;
            Some(match metric {
                Metric::Accuracy => accuracy(&predicted, &gold),
                Metric::F1 => scores.f1(Average::Binary { positive: 1 }),
                _ => scores.matthews(),
            })
        }
        (Metric::MeanAveragePrecision | Metric::MeanReciprocalRank | Metric::RocAuc, Targets::Classes(gold))
            if classes.len() == 2 =>
        {
            let right: Vec<bool> = gold.concat().iter().map(|&class| class == 1).collect();
            if metric == Metric::RocAuc {
                return Ok(roc_auc(&margins(), &right)?);
            }
            let groups = examples.groups();
            if groups.is_empty() {
                return Err(Error::file(examples.path(), "examples with a group each, to be ranked", "some without"));
            }
            let scores = ranking_scores(&groups, &margins(), &right)?;
            Some(match metric {
                Metric::MeanAveragePrecision => scores.mean_average_precision,
                _ => scores.mean_reciprocal_rank,
            })
        }
        (Metric::SpanF1, Targets::Classes(gold)) => {
            let names = |rows: Vec<u32>| rows.into_iter().map(|class| classes[class as usize].as_str()).collect();
            let predicted = logits.iter().map(|rows| names(rows.iter().map(|row| largest(row)).collect()));
            let predicted: Vec<Vec<&str>> = predicted.collect();
            let gold: Vec<Vec<&str>> = gold.iter().map(|rows| names(rows.clone())).collect();
            Some(entity_f1(gold.iter().map(Vec::as_slice).zip(predicted.iter().map(Vec::as_slice)))?.f1())
        }
        (Metric::Pearson | Metric::Spearman, Targets::Scores(gold)) => {
            let predicted: Vec<f64> = rows().map(|row| f64::from(row[0])).collect();
            if metric == Metric::Pearson { pearson(&predicted, gold)? } else { spearman(&predicted, gold)? }
        }
        (Metric::MicroF1 | Metric::ExactMatch, Targets::Sets(gold)) => {
            let above = |row: &Vec<f32>| -> Vec<u32> {
                (0..).zip(row).filter(|(_, logit)| **logit > 0.0).map(|(class, _)| class).collect()
            };
            let predicted: Vec<Vec<u32>> = rows().map(above).collect();
            if metric == Metric::ExactMatch {
                let exact = predicted.iter().zip(gold).filter(|(predicted, gold)| predicted == gold).count();
                return Ok(Some(if gold.is_empty() { 0.0 } else { exact as f64 / gold.len() as f64 }));
            }
            let mut counts = Counts::default();
            for (predicted, gold) in predicted.iter().zip(gold) {
                counts.gold += gold.len();
                counts.predicted += predicted.len();
                counts.correct += predicted.iter().filter(|class| gold.contains(class)).count();
            }
            Some(counts.f1())
        }
        _ => {
            let what = format!("metric {} of {}", metric.name(), task.name);
            return Err(Error::argument(
                what,
                "labels of the kind that it is made for",
                format!("{:?}, {} classes", task.kind, classes.len()),
            ));
        }
    })
}

/// The first of the largest.
fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (class, logit) in row.iter().enumerate() {
        if *logit > row[best] {
            best = class;
        }
    }
    best as u32
}
