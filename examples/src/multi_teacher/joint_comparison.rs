//! One student of all data sets against one of each.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::comparison::{in_turns, pace_or_probe};
use super::experiment::{Experiment, Record, Run};
use super::plan::Planned;
use super::{Joint, Settings};
use crate::report::{Spread, percent};

/// What is compared.
#[derive(Debug)]
pub struct JointComparison<'a> {
    /// The student of all data sets; it knows those of each.
    pub joint: Joint<'a>,
    /// Seeds of students.
    pub seeds: Vec<u64>,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JointReport {
    /// What was compared, for people.
    pub title: String,
    /// Seeds of the values below.
    pub seeds: Vec<u64>,
    /// What decides a student, besides data, teachers and seed.
    pub settings: Settings,
    /// Number of values in all variables of the student of all.
    pub parameters: usize,
    /// A row for each data set, part and metric.
    pub rows: Vec<JointRow>,
}

/// A metric on a part of a data set, seed by seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JointRow {
    /// The data set.
    pub set: String,
    /// Its classes.
    pub classes: usize,
    /// Updates on it, of the first seed.
    pub steps: usize,
    /// `dev` or `test`.
    pub part: String,
    /// The metric.
    pub metric: String,
    /// Of a student of the set alone.
    pub alone: Vec<f64>,
    /// Of the student of all.
    pub together: Vec<f64>,
    /// Number of values in all variables of a student alone.
    pub parameters_alone: usize,
}

/// A student to be trained.
enum Job<'a> {
    Alone(Experiment<'a>, Run),
    Together(u64),
}

impl<'a> JointComparison<'a> {
    fn jobs(&self) -> Result<Vec<Job<'a>>> {
        let mut jobs = Vec::new();
        for &seed in &self.seeds {
            jobs.push(Job::Together(seed));
            for idx in 0..self.joint.taught.len() {
                let (experiment, run) = self.joint.alone(idx, seed)?;
                jobs.push(Job::Alone(experiment, run));
            }
        }
        Ok(jobs)
    }

    /// Makes every run that is not there. What other processes are at is left to them, and waited for in the end.
    ///
    /// # Errors
    /// Those of [`Joint::result`] and [`Experiment::result`].
    pub fn run(&self) -> Result<()> {
        in_turns(self.jobs()?, |job| {
            Ok(match job {
                Job::Alone(experiment, run) => experiment.result(run)?.is_some(),
                Job::Together(seed) => self.joint.result(*seed)?.is_some(),
            })
        })
    }

    /// Every run and what it will take.
    ///
    /// # Errors
    /// If the folder cannot be read, or a probe fails.
    pub fn plan(&self) -> Result<Vec<Planned>> {
        let results = self.joint.results;
        let device = super::name_of_device(self.joint.device);
        let done: Vec<_> =
            results.all::<Record>()?.into_iter().map(|record| (record.decides, record.device, record.pace)).collect();
        let mut probed = HashMap::new();
        let mut plan = Vec::new();
        for job in self.jobs()? {
            let (kind, (name, decides)) = match &job {
                Job::Alone(experiment, run) => (Some(experiment.taught.set.name.clone()), experiment.name(run)),
                Job::Together(seed) => (None, self.joint.name(*seed)),
            };
            let state = results.state(&name)?;
            let probe = || match &job {
                Job::Alone(experiment, run) => experiment.probe(run),
                Job::Together(seed) => self.joint.probe(*seed),
            };
            let pace = pace_or_probe(state, &done, &decides, device, probed.entry(kind), probe)?;
            let sizes = match &job {
                Job::Alone(experiment, _) => [experiment.steps(), experiment.evaluations()],
                Job::Together(_) => [self.joint.steps(), self.joint.evaluations()],
            };
            plan.push(Planned::new(results, name, sizes, self.joint.checkpoint_every, pace)?);
        }
        Ok(plan)
    }

    /// What comes out.
    ///
    /// # Errors
    /// If a run is not done.
    pub fn report(&self) -> Result<JointReport> {
        let joint = &self.joint;
        let together = self.seeds.iter().map(|&seed| self.done(joint.name(seed).0)).collect::<Result<Vec<_>>>()?;
        let (mut rows, mut parameters_alone) = (Vec::new(), 0);
        for (idx, taught) in joint.taught.iter().enumerate() {
            let alone = |&seed: &u64| {
                let (experiment, run) = joint.alone(idx, seed)?;
                self.done(experiment.name(&run).0)
            };
            let alone = self.seeds.iter().map(alone).collect::<Result<Vec<_>>>()?;
            parameters_alone += alone[0].parameters;
            let set = &taught.set;
            for (part, metric) in
                set.report.iter().flat_map(|(part, _)| set.task.metrics.iter().map(move |m| (part, m)))
            {
                let of = |scores: &Value| scores[part.name()][metric.name()].as_f64().unwrap_or(f64::NAN);
                rows.push(JointRow {
                    set: set.name.clone(),
                    classes: set.classes.len(),
                    steps: alone[0].steps,
                    part: part.name().to_string(),
                    metric: metric.name().to_string(),
                    alone: alone.iter().map(|record| of(&record.scores.clone().into())).collect(),
                    together: together.iter().map(|record| of(&record.scores[&set.name])).collect(),
                    parameters_alone: alone[0].parameters,
                });
            }
        }
        let parameters = together[0].parameters;
        let roles: Vec<String> = joint.taught.iter().map(|taught| taught.set.roles()).collect();
        let title = format!(
            "{}. Parameters: {:.2} M in one student of all, {:.2} M in the students of one set each together. Updates of all sets \
             together: {}. Seeds: {:?}.",
            roles.join(". "),
            parameters as f64 / 1e6,
            parameters_alone as f64 / 1e6,
            joint.steps(),
            self.seeds
        );
        Ok(JointReport { title, seeds: self.seeds.clone(), settings: joint.settings.clone(), parameters, rows })
    }

    fn done(&self, name: String) -> Result<Record> {
        self.joint.results.done(&name)?.with_context(|| format!("{name} is not done"))
    }
}

impl JointReport {
    /// The rows as a table: header and cells.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["data set", "classes", "updates", "metric", "a student each", "one of all", "difference"];
        (header.map(String::from).to_vec(), self.rows.iter().map(JointRow::cells).collect())
    }
}

impl JointRow {
    fn cells(&self) -> Vec<String> {
        let n = self.alone.len();
        let differences: Vec<f64> = self.together.iter().zip(&self.alone).map(|(a, b)| a - b).collect();
        let shown = |values: &[f64]| percent(Spread::of(values), n);
        vec![
            self.set.clone(),
            self.classes.to_string(),
            self.steps.to_string(),
            format!("{} {}", self.part, self.metric.replace('_', " ")),
            shown(&self.alone),
            shown(&self.together),
            shown(&differences),
        ]
    }
}
