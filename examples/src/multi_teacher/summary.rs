//! Mean and spread over seeds of every method, as text, JSON and Markdown.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::speed::Speed;
use super::training::Answers;
use super::{DataSet, Method};
use crate::report::{self, Spread};

/// A method's results over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The method, and of a single teacher its name.
    pub method: String,
    /// Name of the student's shape; none for teachers.
    pub student: Option<String>,
    /// Weight of the teachers; none where it means nothing.
    pub alpha: Option<f64>,
    /// Seeds of the values below; empty for teachers.
    pub seeds: Vec<u64>,
    /// By part and metric, the value of each seed.
    pub values: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// The first metric on the last part minus that of `gold` with the same shape, seed by seed.
    pub over_gold: Option<Spread>,
    /// The same minus that of `1avg-o-1` with the same shape and weight.
    pub over_mean: Option<Spread>,
    /// Models that answer together.
    pub models: usize,
    /// Number of values in all variables of one of them.
    pub parameters: Option<usize>,
    /// How fast one of them answers.
    pub speed: Option<Speed>,
}

/// The mean of several answers.
///
/// # Errors
/// If there are none, or they are not of the same parts.
pub fn mean_of(answers: &[Answers]) -> Result<Answers> {
    let first = answers.first().context("expected answers, found none")?;
    let mean = |part: &String| -> Result<(String, Tensor)> {
        let of_part = |answers: &Answers| answers.get(part).cloned().with_context(|| format!("no answers for {part}"));
        let all = answers.iter().map(of_part).collect::<Result<Vec<_>>>()?;
        Ok((part.clone(), Tensor::stack(&all, 0)?.mean(0)?))
    };
    first.keys().map(mean).collect()
}

impl Row {
    /// A row without values.
    pub fn new(method: Method, student: Option<String>, alpha: Option<f64>, models: usize) -> Self {
        Self {
            method: method.name().to_string(),
            student,
            alpha,
            seeds: Vec::new(),
            values: BTreeMap::new(),
            over_gold: None,
            over_mean: None,
            models,
            parameters: None,
            speed: None,
        }
    }

    /// Adds the metrics of one seed, or of a teacher; an undefined one is NaN.
    pub fn add(&mut self, scores: &serde_json::Map<String, Value>) {
        for (part, metrics) in scores {
            for (metric, value) in metrics.as_object().into_iter().flatten() {
                let of_part = self.values.entry(part.clone()).or_default();
                of_part.entry(metric.clone()).or_default().push(value.as_f64().unwrap_or(f64::NAN));
            }
        }
    }

    fn of(&self, part: &str, metric: &str) -> &[f64] {
        self.values.get(part).and_then(|metrics| metrics.get(metric)).map_or(&[], Vec::as_slice)
    }
}

/// Compares every student's row with those of `gold` and `1avg-o-1`, by the first metric on the last part of `set`.
pub fn compare(rows: &mut [Row], set: &DataSet) {
    let Some((part, _)) = set.report.last() else { return };
    let metric = set.task.metrics[0].name();
    let of = |row: &Row| -> BTreeMap<u64, f64> {
        row.seeds.iter().copied().zip(row.of(part.name(), metric).iter().copied()).collect()
    };
    let all = rows.to_vec();
    for row in rows.iter_mut().filter(|row| row.student.is_some()) {
        let own = of(row);
        let over = |other: Option<&Row>| {
            let other = of(other?);
            let differences: Vec<f64> = own.iter().filter_map(|(seed, value)| Some(value - other.get(seed)?)).collect();
            (!differences.is_empty()).then(|| Spread::of(&differences))
        };
        let is = |other: &&Row, method: Method| other.method == method.name() && other.student == row.student;
        let gold = all.iter().find(|other| is(other, Method::Gold));
        let mean = all.iter().find(|other| is(other, Method::MeanOfOne) && other.alpha == row.alpha);
        row.over_gold = over(gold.filter(|_| row.method != Method::Gold.name()));
        row.over_mean = over(mean.filter(|_| row.method != Method::MeanOfOne.name() && row.alpha.is_some()));
    }
}

/// Header and cells of the table.
pub fn table(rows: &[Row], set: &DataSet) -> (Vec<String>, Vec<Vec<String>>) {
    let columns: Vec<(&str, &str)> = set
        .report
        .iter()
        .flat_map(|(part, _)| set.task.metrics.iter().map(|metric| (part.name(), metric.name())))
        .collect();
    let mut header: Vec<String> = ["method", "student", "alpha"].map(String::from).to_vec();
    header.extend(columns.iter().map(|(part, metric)| format!("{part} {}", metric.replace('_', " "))));
    header.extend(["over gold", "over 1avg-o-1", "parameters (M)", "QPS, batch 1", "QPS, batch 32"].map(String::from));
    let signed = |spread: Spread, seeds: usize| match report::percent(spread, seeds) {
        text if text.starts_with('-') => text,
        text => format!("+{text}"),
    };
    let cells = |row: &Row| {
        let alpha = row.alpha.map_or(String::new(), |alpha| alpha.to_string());
        let mut cells = vec![row.method.clone(), row.student.clone().unwrap_or_default(), alpha];
        cells.extend(columns.iter().map(|(part, metric)| match row.of(part, metric) {
            [] => String::new(),
            values => report::percent(Spread::of(values), values.len()),
        }));
        let seeds = row.seeds.len();
        cells.extend([row.over_gold, row.over_mean].map(|over| over.map_or(String::new(), |over| signed(over, seeds))));
        let times = if row.models > 1 { format!(" × {}", row.models) } else { String::new() };
        cells.push(row.parameters.map_or(String::new(), |n| format!("{:.2}{times}", n as f64 / 1e6)));
        let per_second = |idx: usize| {
            let speed = row.speed.as_ref().and_then(|speed| speed.batches.get(idx));
            speed.map_or(String::new(), |speed| format!("{:.0}", speed.per_second / row.models as f64))
        };
        cells.extend([per_second(0), per_second(1)]);
        cells
    };
    (header, rows.iter().map(cells).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn answers(values: [[f32; 2]; 1]) -> Answers {
        Answers::from([("dev".to_string(), Tensor::new(&values, &Device::Cpu).unwrap())])
    }

    #[test]
    fn answers_are_averaged_part_by_part() {
        let mean = mean_of(&[answers([[0.5, 0.5]]), answers([[0.25, 0.75]])]).unwrap();
        assert_eq!(mean["dev"].to_vec2::<f32>().unwrap(), [[0.375, 0.625]]);
        assert!(mean_of(&[]).is_err());
    }
}
