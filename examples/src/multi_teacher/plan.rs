//! What will be run and how long it takes: `--plan`.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use kd_core::batch::Batches;
use kd_core::objective::Objective;
use kd_core::trainer::Saved;
use kd_core::weighting::TeacherWeighting;
use kd_data::encode::Encode;
use serde_json::Value;

use super::student::Built;
use super::training::{Course, Pace, Settings, train};
use super::{Results, checkpoint_of};
use crate::report;

/// Steps of a probe; the first three are not timed.
const PROBE_STEPS: usize = 8;
/// Texts that a probe asks about, and from them on to all.
const PROBE_ASKED: usize = 64;

/// Where a pace is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Runs of this kind in the folder.
    Done,
    /// A few steps, just now.
    Probed,
}

impl Known {
    fn name(self) -> &'static str {
        match self {
            Known::Done => "done runs",
            Known::Probed => "a probe",
        }
    }
}

/// A run of the plan.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// See [`Results::state`](super::Results::state).
    pub state: &'static str,
    /// Updates.
    pub steps: usize,
    /// Those that are left to make.
    pub steps_left: usize,
    /// Evaluations that are left to make.
    pub evaluations_left: usize,
    /// What a step takes, unless it is done.
    pub pace: Option<(Pace, Known)>,
}

impl Planned {
    /// A run of so many steps and evaluations, of which its checkpoint in `results` has some behind it, if a run of checkpoints
    /// after `checkpoint_every` steps has one.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn new(
        results: &Results,
        name: String,
        [steps, evaluations]: [usize; 2],
        checkpoint_every: usize,
        pace: Option<(Pace, Known)>,
    ) -> Result<Self> {
        let state = results.state(&name)?;
        let checkpoint = checkpoint_of(results, &name, steps, checkpoint_every);
        let (steps_left, evaluations_left) =
            match (state, checkpoint.map(|(path, _)| saved(&path)).transpose()?.flatten()) {
                ("done", _) => (0, 0),
                (_, None) => (steps, evaluations),
                (_, Some(made)) => {
                    (steps.saturating_sub(made.step), evaluations.saturating_sub(made.evaluations.len()))
                }
            };
        Ok(Self { name, state, steps, steps_left, evaluations_left, pace })
    }

    /// Seconds that what is left of it will take; 0 for what is done.
    pub fn seconds(&self) -> Option<f64> {
        match &self.pace {
            _ if self.state == "done" => Some(0.0),
            None => None,
            Some((pace, _)) => pace.of(self.steps_left, self.evaluations_left),
        }
    }
}

/// How far a run has come; none without a checkpoint.
fn saved(checkpoint: &Path) -> Result<Option<Saved>> {
    match Saved::read(checkpoint) {
        // There was none, or its process has come to the end since.
        Err(_) if !checkpoint.exists() => Ok(None),
        saved => Ok(Some(saved?)),
    }
}

/// The plan as a table, and its sum.
pub fn table(plan: &[Planned]) -> String {
    let cells = |planned: &Planned| {
        let (seconds, known) = match (&planned.pace, planned.seconds()) {
            (Some((_, known)), Some(seconds)) if planned.state != "done" => (duration(seconds), known.name()),
            _ => (String::new(), ""),
        };
        let [steps, left] = [planned.steps, planned.steps_left].map(|steps| steps.to_string());
        vec![planned.name.clone(), planned.state.to_string(), steps, left, seconds, known.to_string()]
    };
    let table = report::table(
        &["run", "state", "steps", "left", "time", "estimated from"],
        &plan.iter().map(cells).collect::<Vec<_>>(),
    );
    let left: Vec<&Planned> = plan.iter().filter(|planned| planned.state != "done").collect();
    let seconds = left.iter().filter_map(|planned| planned.seconds()).fold(0.0, |sum, seconds| sum + seconds);
    format!("{table}\n\n{} of {} runs left, about {} in one process", left.len(), plan.len(), duration(seconds))
}

/// `90 s`, `12 min`, `3.5 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// What decides the pace of a run.
const SAME_PACE: [&str; 4] = ["/data", "/student", "/settings/batch_size", "/settings/max_len"];

/// The mean pace of done runs of the same student and data in batches of the same size on the same device: of
/// `(what decides the run, its device, its pace)`.
pub fn pace_of(done: &[(Value, String, Pace)], wanted: &Value, device: &str) -> Option<Pace> {
    let is_same = |decides: &Value| SAME_PACE.iter().all(|key| decides.pointer(key) == wanted.pointer(key));
    let paces: Vec<&Pace> =
        done.iter().filter(|(decides, on, _)| on == device && is_same(decides)).map(|(_, _, pace)| pace).collect();
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let per_step = mean(paces.iter().filter_map(|pace| pace.per_step).collect())?;
    let per_evaluation = mean(paces.iter().filter_map(|pace| pace.per_evaluation).collect());
    Some(Pace { per_step: Some(per_step), per_evaluation })
}

/// Trains a student for a few steps, and asks it about a few of the texts that choose, those of each of its data sets.
///
/// # Errors
/// As training.
pub fn probe(
    built: &Built,
    batches: &dyn Batches,
    objective: &dyn Objective,
    weighting: Option<&mut dyn TeacherWeighting>,
    settings: &Settings,
    choose: &[&dyn Encode],
    device: &Device,
) -> Result<Pace> {
    let course = Course {
        name: "probe",
        built,
        batches,
        objective,
        settings,
        steps: PROBE_STEPS,
        evaluate_every: PROBE_STEPS,
        seed: 0,
        checkpoint: None,
    };
    let mut pace = train(&course, weighting, None)?.pace;
    for (set, all) in choose.iter().enumerate() {
        let n = all.lengths().len();
        let first = First { all: *all, n: n.min(PROBE_ASKED) };
        let began = std::time::Instant::now();
        built.answers(set, &[&first], device)?;
        let seconds = began.elapsed().as_secs_f64() * n as f64 / first.n as f64;
        pace.per_evaluation = Some(pace.per_evaluation.unwrap_or(0.0) + seconds);
    }
    Ok(pace)
}

/// The first texts of an encoded set.
struct First<'a> {
    all: &'a dyn Encode,
    n: usize,
}

impl Encode for First<'_> {
    fn collate(&self, examples: &[usize]) -> candle_core::Result<kd_core::batch::Tokens> {
        self.all.collate(examples)
    }

    fn lengths(&self) -> &[usize] {
        &self.all.lengths()[..self.n]
    }

    fn rows(&self) -> &[usize] {
        &self.all.rows()[..self.n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pace(per_step: f64) -> Pace {
        Pace { per_step: Some(per_step), per_evaluation: Some(10.0) }
    }

    #[test]
    fn a_pace_is_that_of_runs_alike() {
        let run = |data: &str, batch: usize| json!({"data": data, "seed": batch, "settings": {"batch_size": batch}});
        let done = [
            (run("a", 8), "cpu".to_string(), pace(1.0)),
            (run("a", 8), "cpu".to_string(), pace(3.0)),
            (run("a", 16), "cpu".to_string(), pace(50.0)),
            (run("b", 8), "cpu".to_string(), pace(50.0)),
            (run("a", 8), "cuda".to_string(), pace(0.1)),
        ];
        assert_eq!(pace_of(&done, &run("a", 8), "cpu"), Some(pace(2.0)));
        assert_eq!(pace_of(&done, &run("c", 8), "cpu"), None);
    }

    #[test]
    fn the_sum_leaves_out_what_is_done() {
        let planned = |state| Planned {
            name: "run".to_string(),
            state,
            steps: 20,
            steps_left: if state == "done" { 0 } else { 20 },
            evaluations_left: if state == "done" { 0 } else { 2 },
            pace: (state != "done").then_some((pace(2.0), Known::Probed)),
        };
        let table = table(&[planned("done"), planned("to do")]);
        assert!(table.ends_with("1 of 2 runs left, about 60 s in one process"), "{table}");
        assert!(table.contains("a probe"), "{table}");
        assert_eq!([99.4, 600.0, 7200.0].map(duration), ["99 s", "10 min", "2.0 h"]);
    }

    #[test]
    fn a_run_with_a_checkpoint_takes_what_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::open(folder.path().join("runs")).unwrap();
        let seconds = |every: usize| {
            let planned =
                Planned::new(&results, "a".to_string(), [20, 2], every, Some((pace(2.0), Known::Done))).unwrap();
            (planned.state, planned.steps, planned.steps_left, planned.seconds().unwrap())
        };
        assert_eq!(seconds(5), ("to do", 20, 20, 60.0));
        // 15 of 20 steps and one of two evaluations are made: 5 · 2 s + 1 · 10 s are left.
        let evaluation = json!({"step": 10, "score": 0.5});
        let state = json!({"step": 15, "evaluations": [evaluation], "config": {"steps": 20}});
        let path = results.file("a", "checkpoint");
        kd_core::checkpoint::save(&path, &Default::default(), &state).unwrap();
        assert_eq!(seconds(5), ("begun", 20, 5, 20.0));
        // So short a run begins anew.
        assert_eq!(seconds(20), ("begun", 20, 20, 60.0));
        std::fs::write(&path, "half").unwrap();
        let broken = Planned::new(&results, "a".to_string(), [20, 2], 5, None).unwrap_err().to_string();
        assert!(broken.contains("a.checkpoint: "), "{broken}");
        report::save(&results.file("a", "json"), &7).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seconds(5), ("done", 20, 0, 0.0));
    }
}
