//! What will be run and how long it takes: `--plan`.

use anyhow::Result;
use candle_core::Device;
use kd_core::batch::Batches;
use kd_core::objective::Objective;
use kd_core::weighting::TeacherWeighting;
use kd_data::encode::Encode;
use serde_json::Value;

use super::student::Built;
use super::training::{Course, Pace, Settings, train};
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
    /// Evaluations.
    pub evaluations: usize,
    /// What a step takes, unless it is done.
    pub pace: Option<(Pace, Known)>,
}

impl Planned {
    /// Seconds that it will take; 0 for what is done.
    pub fn seconds(&self) -> Option<f64> {
        match &self.pace {
            _ if self.state == "done" => Some(0.0),
            None => None,
            Some((pace, _)) => pace.of(self.steps, self.evaluations),
        }
    }
}

/// The plan as a table, and its sum.
pub fn table(plan: &[Planned]) -> String {
    let cells = |planned: &Planned| {
        let (seconds, known) = match (&planned.pace, planned.seconds()) {
            (Some((_, known)), Some(seconds)) if planned.state != "done" => (duration(seconds), known.name()),
            _ => (String::new(), ""),
        };
        vec![planned.name.clone(), planned.state.to_string(), planned.steps.to_string(), seconds, known.to_string()]
    };
    let table = report::table(
        &["run", "state", "steps", "time", "estimated from"],
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
            evaluations: 2,
            pace: (state != "done").then_some((pace(2.0), Known::Probed)),
        };
        let table = table(&[planned("done"), planned("to do")]);
        assert!(table.ends_with("1 of 2 runs left, about 60 s in one process"), "{table}");
        assert!(table.contains("a probe"), "{table}");
        assert_eq!([99.4, 600.0, 7200.0].map(duration), ["99 s", "10 min", "2.0 h"]);
    }
}
