//! Every method, weight, depth and seed that is compared: the runs they need, each once, and the rows they become.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, Result};
use candle_core::Device;
use serde_json::Value;

use super::experiment::{Experiment, Record, Run};
use super::plan::{Known, Planned, pace_of};
use super::results::LOOK_AGAIN;
use super::speed::Speed;
use super::summary::{Row, mean_of};
use super::training::{Answers, Pace};
use super::{Method, StageOneRecord};
use crate::interrupt;

/// What is compared.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// One for each depth.
    pub experiments: Vec<Experiment<'a>>,
    /// How students learn.
    pub methods: Vec<Method>,
    /// Weights of the teachers.
    pub alphas: Vec<f64>,
    /// Seeds of students.
    pub seeds: Vec<u64>,
    /// The place of the best teacher.
    pub best: usize,
}

impl Comparison<'_> {
    /// Every method of students with every weight; none where it means nothing.
    fn ways(&self) -> Vec<(Method, Option<f64>)> {
        let weights = |method: Method| match method.depends_on_alpha() {
            true => self.alphas.iter().map(|&alpha| Some(alpha)).collect(),
            false => vec![None],
        };
        let of_students = self.methods.iter().filter(|method| !method.is_of_teachers());
        of_students.flat_map(|&method| weights(method).into_iter().map(move |alpha| (method, alpha))).collect()
    }

    /// The students whose mean answer is the method's.
    fn needed(&self, experiment: &Experiment<'_>, method: Method, alpha: Option<f64>, seed: u64) -> Vec<Run> {
        let needs = method.needs(experiment.taught.teachers.len(), self.best);
        needs.into_iter().map(|needed| Run { needed, alpha: alpha.unwrap_or(0.0), seed }).collect()
    }

    /// Every run, by the place of its experiment: all of the first seed, then all of the next.
    fn runs(&self) -> Vec<(usize, Run)> {
        let mut runs = Vec::new();
        for &seed in &self.seeds {
            for (idx, experiment) in self.experiments.iter().enumerate() {
                for (method, alpha) in self.ways() {
                    for run in self.needed(experiment, method, alpha, seed) {
                        if !runs.contains(&(idx, run)) {
                            runs.push((idx, run));
                        }
                    }
                }
            }
        }
        runs
    }

    /// Makes every run that is not there. What other processes are at is left to them, and waited for in the end.
    ///
    /// # Errors
    /// Those of [`Experiment::result`], and if teachers are to be reported that were not asked about all that is.
    pub fn run(&self) -> Result<()> {
        self.said()?;
        in_turns(self.runs(), |(idx, run)| Ok(self.experiments[*idx].result(run)?.is_some()))
    }

    /// What each teacher says of the parts that are reported, if teachers are among the methods.
    fn said(&self) -> Result<Vec<Answers>> {
        let Some(first) = self.experiments.first() else { return Ok(Vec::new()) };
        let teachers =
            if self.methods.iter().any(|method| method.is_of_teachers()) { first.taught.teachers.len() } else { 0 };
        (0..teachers).map(|idx| first.taught.answers_of(idx)).collect()
    }

    /// Every run and what it will take: by done runs of the same student, data and sizes on this device if there are any, else
    /// by a few steps made now.
    ///
    /// # Errors
    /// If the folder cannot be read, or a probe fails.
    pub fn plan(&self) -> Result<Vec<Planned>> {
        let mut plan: Vec<Planned> = Vec::new();
        let mut probed: HashMap<(usize, bool), Pace> = HashMap::new();
        for (idx, run) in self.runs() {
            let experiment = &self.experiments[idx];
            let device = super::name_of_device(experiment.device);
            if let Some((stage, soft, seed)) = experiment.stage_1_of(&run) {
                let (name, decides) = stage.name(&experiment.pupil, soft, seed);
                if !plan.iter().any(|planned| planned.name == name) {
                    let records = stage.results.all::<StageOneRecord>()?;
                    let done: Vec<_> = records.into_iter().map(|it| (it.decides, it.device, it.pace)).collect();
                    let state = stage.results.state(&name)?;
                    let probe = || stage.probe(&experiment.pupil, soft, seed);
                    let pace = pace_or_probe(state, &done, &decides, device, probed.entry((idx, true)), probe)?;
                    let every = stage.checkpoint_every;
                    plan.push(Planned::new(&stage.results, name, [stage.steps(), 0], every, pace)?);
                }
            }
            let (name, decides) = experiment.name(&run);
            let records = experiment.results.all::<Record>()?;
            let done: Vec<_> = records.into_iter().map(|it| (it.decides, it.device, it.pace)).collect();
            let state = experiment.results.state(&name)?;
            let probe = || experiment.probe(&run);
            let pace = pace_or_probe(state, &done, &decides, device, probed.entry((idx, false)), probe)?;
            let sizes = [experiment.steps(), experiment.evaluations()];
            plan.push(Planned::new(experiment.results, name, sizes, experiment.checkpoint_every, pace)?);
        }
        Ok(plan)
    }

    /// A row for each teacher, their ensemble, and every way, depth and weight over the seeds.
    ///
    /// # Errors
    /// If a run is not done, or a file cannot be read.
    pub fn rows(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let first = self.experiments.first().context("expected at least one depth, found none")?;
        let said = self.said()?;
        if !said.is_empty() {
            if self.methods.contains(&Method::Teacher) {
                for (teacher, answers) in first.taught.teachers.iter().zip(&said) {
                    let mut row = Row::new(Method::Teacher, None, None, 1);
                    row.method = format!("teacher {}", teacher.name);
                    row.add(&first.scores(answers)?);
                    rows.push(row);
                }
            }
            if self.methods.contains(&Method::TeacherEnsemble) {
                let mut row = Row::new(Method::TeacherEnsemble, None, None, said.len());
                row.add(&first.scores(&mean_of(&said)?)?);
                rows.push(row);
            }
        }
        for experiment in &self.experiments {
            for (method, alpha) in self.ways() {
                rows.push(self.row(experiment, method, alpha)?);
            }
        }
        Ok(rows)
    }

    fn row(&self, experiment: &Experiment<'_>, method: Method, alpha: Option<f64>) -> Result<Row> {
        let mut row = Row::new(method, Some(experiment.pupil.name()), alpha, 1);
        for &seed in &self.seeds {
            let runs = self.needed(experiment, method, alpha, seed);
            let mut answers = Vec::new();
            for run in &runs {
                let (name, _) = experiment.name(run);
                let record: Record = experiment.results.done(&name)?.with_context(|| format!("{name} is not done"))?;
                row.parameters = Some(record.parameters);
                answers.push(experiment.kept_answers(&name)?);
            }
            row.models = runs.len();
            row.seeds.push(seed);
            row.add(&experiment.scores(&mean_of(&answers)?)?);
        }
        Ok(row)
    }

    /// Times a student of each depth on `device`, with the most heads that one has, and enters it in its rows.
    ///
    /// # Errors
    /// As [`Speed::of`].
    pub fn time(&self, rows: &mut [Row], results: &super::Results, seconds: f64, device: &Device) -> Result<()> {
        for experiment in &self.experiments {
            let heads = 1 + experiment.taught.teachers.len();
            let (pupil, classes, settings) =
                (&experiment.pupil, experiment.taught.set.classes.len(), experiment.settings);
            let speed = Speed::of(pupil, heads, classes, settings, results, seconds, device)?;
            for row in rows.iter_mut().filter(|row| row.student == Some(pupil.name())) {
                row.speed = Some(speed.clone());
            }
        }
        Ok(())
    }
}

/// Does every job until all are done: `done` says whether one is, and not if another process is at it. Those are come back to.
pub(crate) fn in_turns<J>(mut jobs: Vec<J>, done: impl Fn(&J) -> Result<bool>) -> Result<()> {
    while !jobs.is_empty() {
        let before = jobs.len();
        let mut left = Vec::new();
        for job in jobs {
            interrupt::check()?;
            if !done(&job)? {
                left.push(job);
            }
        }
        if left.len() == before {
            std::thread::sleep(LOOK_AGAIN);
        }
        jobs = left;
    }
    Ok(())
}

/// What a run takes; nothing for one that is done. Of several of one kind, whose entry `probed` is, one is probed.
pub(crate) fn pace_or_probe<K>(
    state: &str,
    done: &[(Value, String, Pace)],
    decides: &Value,
    device: &str,
    probed: Entry<'_, K, Pace>,
    probe: impl FnOnce() -> Result<Pace>,
) -> Result<Option<(Pace, Known)>> {
    if state == "done" {
        return Ok(None);
    }
    if let Some(pace) = pace_of(done, decides, device) {
        return Ok(Some((pace, Known::Done)));
    }
    let pace = match probed {
        Entry::Occupied(there) => *there.get(),
        Entry::Vacant(place) => *place.insert(probe()?),
    };
    Ok(Some((pace, Known::Probed)))
}
