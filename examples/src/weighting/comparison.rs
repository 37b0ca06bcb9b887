//! Every way, student and seed that is compared: the runs they need, each once, and the rows they become.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::Way;
use super::experiment::{Experiment, Record, Run};
use super::summary::{self, Row};
use crate::multi_teacher::plan::Planned;
use crate::multi_teacher::{Pace, in_turns, name_of_device, pace_or_probe};

/// What is compared.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// One for each shape of student.
    pub experiments: Vec<Experiment<'a>>,
    /// How teachers are weighed.
    pub ways: Vec<Way>,
    /// Seeds of students.
    pub seeds: Vec<u64>,
}

impl Comparison<'_> {
    /// Every run, by the place of its experiment: all of the first seed, then all of the next.
    fn runs(&self) -> Vec<(usize, Run)> {
        let of_seed = |&seed: &u64| {
            let of_shape = move |idx| self.ways.iter().map(move |&way| (idx, Run { way, seed }));
            (0..self.experiments.len()).flat_map(of_shape).collect::<Vec<_>>()
        };
        self.seeds.iter().flat_map(of_seed).collect()
    }

    /// Checks every way before the first run.
    ///
    /// # Errors
    /// Those of [`Experiment::check`].
    pub fn check(&self) -> Result<()> {
        let first = self.experiments.first().context("expected at least one student, found none")?;
        self.ways.iter().try_for_each(|&way| first.check(way))
    }

    /// Makes every run that is not there. What other processes are at is left to them, and waited for in the end.
    ///
    /// # Errors
    /// Those of [`Experiment::result`].
    pub fn run(&self) -> Result<()> {
        in_turns(self.runs(), |(idx, run)| Ok(self.experiments[*idx].result(run)?.is_some()))
    }

    /// Every run and what it will take: by done runs of the same student, data and sizes on this device if there are any, else
    /// by a few steps made now.
    ///
    /// # Errors
    /// If the folder cannot be read, or a probe fails.
    pub fn plan(&self) -> Result<Vec<Planned>> {
        let mut plan: Vec<Planned> = Vec::new();
        let mut probed: HashMap<(usize, Way), Pace> = HashMap::new();
        for (idx, run) in self.runs() {
            let experiment = &self.experiments[idx];
            let (name, decides) = experiment.name(&run);
            let records = experiment.results.all::<Record>()?;
            let alike = records.into_iter().filter(|record| record.decides["way"] == decides["way"]);
            let done: Vec<_> = alike.map(|it| (it.decides, it.device, it.pace)).collect();
            let state = experiment.results.state(&name)?;
            let probe = || experiment.probe(&run);
            let way = if let Way::Single(_) = run.way { Way::Single(0) } else { run.way };
            let device = name_of_device(experiment.device);
            let pace = pace_or_probe(state, &done, &decides, device, probed.entry((idx, way)), probe)?;
            let sizes = [experiment.steps(), experiment.evaluations()];
            plan.push(Planned::new(experiment.results, name, sizes, experiment.checkpoint_every, pace)?);
        }
        Ok(plan)
    }

    /// The records of a way's students of one shape, by seed.
    ///
    /// # Errors
    /// If one is not done.
    pub fn records(&self, experiment: &Experiment<'_>, way: Way) -> Result<Vec<Record>> {
        let record = |&seed: &u64| {
            let (name, _) = experiment.name(&Run { way, seed });
            experiment.results.done(&name)?.with_context(|| format!("{name} is not done"))
        };
        self.seeds.iter().map(record).collect()
    }

    /// A row for each teacher, all of them together, and every way and shape over the seeds.
    ///
    /// # Errors
    /// If a run is not done, or a file cannot be read.
    pub fn rows(&self) -> Result<Vec<Row>> {
        let first = self.experiments.first().context("expected at least one student, found none")?;
        let teachers = first.classroom.teachers();
        let mut rows = summary::rows_of_teachers(first)?;
        for experiment in &self.experiments {
            for &way in &self.ways {
                let records = self.records(experiment, way)?;
                let (shown, shape) = (way.shown(&teachers), experiment.pupil.name());
                rows.push(Row::of_students(shown, shape, &self.seeds, &records, experiment.warm_up()));
            }
        }
        summary::compare(&mut rows, &first.classroom.taught.set);
        Ok(rows)
    }
}
