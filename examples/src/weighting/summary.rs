//! Every way over the seeds, as text, JSON and Markdown.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Experiment, Paired, Record, Way};
use crate::multi_teacher::DataSet;
use crate::multi_teacher::summary::mean_of;
use crate::report::{Spread, percent};

/// By part and metric, a value for each seed.
pub type Values = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// A way's results over its seeds, or a teacher's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The way, or `teacher` and its name.
    pub way: String,
    /// Name of the student's shape; none for teachers.
    pub student: Option<String>,
    /// Seeds of the values.
    pub seeds: Vec<u64>,
    /// Scores on what chose the epoch, in the order of the seeds; empty where nothing did.
    pub chosen: Vec<f64>,
    /// Scores on what is reported.
    pub values: Values,
    /// The score on what chose minus that of `uniform`, seed by seed.
    pub chosen_over_uniform: Option<Paired>,
    /// The first metric on the last part that is reported minus that of `uniform`, seed by seed.
    pub over_uniform: Option<Paired>,
    /// Number of values in all variables.
    pub parameters: Option<usize>,
    /// Mean seconds of a run's updates.
    pub pace: Option<f64>,
    /// Runs whose policy had stopped to choose.
    pub collapsed: usize,
    /// Runs whose kept weights are of the warm-up, in which a policy chooses nothing: they are those of `uniform`.
    pub unchosen: usize,
    /// Updates of the policy in each run that has one.
    pub updates: Vec<usize>,
}

impl Row {
    fn new(way: String, student: Option<String>) -> Self {
        Self {
            way,
            student,
            seeds: Vec::new(),
            chosen: Vec::new(),
            values: Values::new(),
            chosen_over_uniform: None,
            over_uniform: None,
            parameters: None,
            pace: None,
            collapsed: 0,
            unchosen: 0,
            updates: Vec::new(),
        }
    }

    fn add(&mut self, scores: &serde_json::Map<String, Value>) {
        for (part, metrics) in scores {
            for (metric, value) in metrics.as_object().into_iter().flatten() {
                let of_part = self.values.entry(part.clone()).or_default();
                of_part.entry(metric.clone()).or_default().push(value.as_f64().unwrap_or(f64::NAN));
            }
        }
    }

    /// A student's without what is reported; none of what is no student's.
    pub fn without_reported(self) -> Option<Self> {
        self.student.is_some().then(|| Self { values: Values::new(), over_uniform: None, ..self })
    }

    /// The values of a metric on a part.
    pub fn of(&self, part: &str, metric: &str) -> &[f64] {
        self.values.get(part).and_then(|metrics| metrics.get(metric)).map_or(&[], Vec::as_slice)
    }

    /// The students of a way; `records` by seed, policies with a warm-up of so many updates of the student.
    pub fn of_students(way: String, student: String, seeds: &[u64], records: &[Record], warm_up: usize) -> Self {
        let mut row = Self::new(way, Some(student));
        row.seeds = seeds.to_vec();
        for record in records {
            row.add(&record.scores);
            row.chosen.extend(record.chosen);
            row.parameters = Some(record.parameters);
            if let Some(policy) = &record.policy {
                row.collapsed += usize::from(policy.collapsed.is_some());
                row.unchosen += usize::from(record.kept_step <= warm_up);
                row.updates.push(policy.updates);
            }
        }
        let took: Vec<f64> =
            records.iter().filter_map(|record| Some(record.pace.per_step? * record.steps as f64)).collect();
        row.pace = (!took.is_empty()).then(|| took.iter().sum::<f64>() / took.len() as f64);
        row
    }
}

/// A row for each teacher, and one for the mean of their probabilities.
///
/// # Errors
/// If a teacher was not asked about what is reported.
pub fn rows_of_teachers(experiment: &Experiment<'_>) -> Result<Vec<Row>> {
    let classroom = experiment.classroom;
    let names = classroom.teachers();
    let said = (0..names.len()).map(|idx| classroom.taught.answers_of(idx)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (name, said) in names.iter().zip(&said) {
        let mut row = Row::new(format!("teacher {name}"), None);
        row.add(&experiment.scores(said)?);
        rows.push(row);
    }
    if names.len() > 1 {
        let mut row = Row::new("all teachers".to_string(), None);
        row.add(&experiment.scores(&mean_of(&said)?)?);
        rows.push(row);
    }
    Ok(rows)
}

/// The part and the metric that students are compared by: the last that is reported, the task's first.
fn compared(set: &DataSet) -> Option<(&'static str, &'static str)> {
    Some((set.report.last()?.0.name(), set.task.metrics.first()?.name()))
}

/// Compares every student's row with that of `uniform` of the same shape, seed by seed.
pub fn compare(rows: &mut [Row], set: &DataSet) {
    let Some((part, metric)) = compared(set) else { return };
    let all = rows.to_vec();
    for row in rows.iter_mut().filter(|row| row.student.is_some() && row.way != Way::Uniform.name()) {
        let is_uniform = |other: &&Row| other.way == Way::Uniform.name() && other.student == row.student;
        let Some(uniform) = all.iter().find(is_uniform) else { continue };
        row.over_uniform = differences(row, row.of(part, metric), uniform, uniform.of(part, metric));
        row.chosen_over_uniform = differences(row, &row.chosen, uniform, &uniform.chosen);
    }
}

/// Differences of two rows' values where both have a seed.
fn differences(row: &Row, values: &[f64], other: &Row, others: &[f64]) -> Option<Paired> {
    let by_seed: BTreeMap<u64, f64> = other.seeds.iter().copied().zip(others.iter().copied()).collect();
    let pairs = row.seeds.iter().zip(values);
    Paired::of(&pairs.filter_map(|(seed, value)| Some(value - by_seed.get(seed)?)).collect::<Vec<_>>())
}

/// Header and cells of the table of all rows; with `reported` what is reported too, not only what chose.
pub fn table(rows: &[Row], set: &DataSet, reported: bool) -> (Vec<String>, Vec<Vec<String>>) {
    let parts = if reported { set.report.as_slice() } else { &[] };
    let columns: Vec<(&str, &str)> =
        parts.iter().flat_map(|(part, _)| set.task.metrics.iter().map(|metric| (part.name(), metric.name()))).collect();
    let mut header: Vec<String> = ["weighting", "student", "seeds"].map(String::from).to_vec();
    if let Some((name, _)) = &set.choose {
        header.extend([format!("{name} (chose)"), "over uniform".to_string()]);
    }
    header.extend(columns.iter().map(|(part, metric)| format!("{part} {}", metric.replace('_', " "))));
    if reported {
        header.push("over uniform".to_string());
    }
    let has_updates = rows.iter().any(|row| !row.updates.is_empty());
    if has_updates {
        header.push("updates of the policy".to_string());
    }
    let spread = |values: &[f64]| match values {
        [] => String::new(),
        values => percent(Spread::of(values), values.len()),
    };
    let paired = |paired: &Option<Paired>| paired.map_or(String::new(), |paired| paired.points());
    let cells = |row: &Row| {
        let seeds = if row.student.is_some() { row.seeds.len().to_string() } else { String::new() };
        let marks = [(row.collapsed, "collapsed"), (row.unchosen, "kept of the warm-up")];
        let marks = marks.into_iter().filter(|(runs, _)| *runs > 0);
        let mark: String = marks.map(|(runs, mark)| format!(" ({runs} {mark})")).collect();
        let mut cells = vec![format!("{}{mark}", row.way), row.student.clone().unwrap_or_default(), seeds];
        if set.choose.is_some() {
            cells.extend([spread(&row.chosen), paired(&row.chosen_over_uniform)]);
        }
        cells.extend(columns.iter().map(|(part, metric)| spread(row.of(part, metric))));
        if reported {
            cells.push(paired(&row.over_uniform));
        }
        if has_updates {
            let (least, most) = (row.updates.iter().min(), row.updates.iter().max());
            cells.push(match least.zip(most) {
                None => String::new(),
                Some((least, most)) if least == most => least.to_string(),
                Some((least, most)) => format!("{least} to {most}"),
            });
        }
        cells
    };
    (header, rows.iter().map(cells).collect())
}

/// A teacher and the students of it alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The teacher's name.
    pub teacher: String,
    /// The students' shape.
    pub student: String,
    /// The teacher's own score.
    pub score: f64,
    /// Its students' scores.
    pub of_students: Vec<f64>,
    /// Its students' scores minus those of the next weaker teacher, seed by seed.
    pub over_weaker: Option<Paired>,
}

/// Whether a stronger teacher makes the better student: each teacher's own score and its students', the weakest first, by the
/// first metric on the last part that is reported (Table 1 of Yuan et al. 2021).
pub fn lineages(rows: &[Row], teachers: &[String], set: &DataSet) -> Vec<Lineage> {
    let Some((part, metric)) = compared(set) else { return Vec::new() };
    let mut lineages: Vec<Lineage> = Vec::new();
    let mut shapes: Vec<&String> = rows.iter().filter_map(|row| row.student.as_ref()).collect();
    shapes.dedup();
    shapes.sort();
    shapes.dedup();
    for shape in shapes {
        let mut found: Vec<(f64, &String, &Row)> = Vec::new();
        for (idx, teacher) in teachers.iter().enumerate() {
            let shown = Way::Single(idx).shown(teachers);
            let own = rows.iter().find(|row| row.student.is_none() && row.way == format!("teacher {teacher}"));
            let student = rows.iter().find(|row| row.student.as_ref() == Some(shape) && row.way == shown);
            if let (Some(&[score]), Some(student)) = (own.map(|own| own.of(part, metric)), student) {
                found.push((score, teacher, student));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (place, &(score, teacher, row)) in found.iter().enumerate() {
            let over_weaker = place.checked_sub(1).and_then(|before| {
                let (_, _, weaker) = found[before];
                differences(row, row.of(part, metric), weaker, weaker.of(part, metric))
            });
            let (teacher, student) = (teacher.clone(), shape.clone());
            lineages.push(Lineage { teacher, student, score, of_students: row.of(part, metric).to_vec(), over_weaker });
        }
    }
    lineages
}

/// Header and cells of that table.
pub fn table_of_lineages(lineages: &[Lineage]) -> (Vec<String>, Vec<Vec<String>>) {
    let header = ["teacher", "student", "teacher's own", "its student's", "over the next weaker teacher's"];
    let cells = |lineage: &Lineage| {
        vec![
            lineage.teacher.clone(),
            lineage.student.clone(),
            format!("{:.1}", 100.0 * lineage.score),
            percent(Spread::of(&lineage.of_students), lineage.of_students.len()),
            lineage.over_weaker.map_or(String::new(), |over| over.points()),
        ]
    };
    (header.map(String::from).to_vec(), lineages.iter().map(cells).collect())
}
