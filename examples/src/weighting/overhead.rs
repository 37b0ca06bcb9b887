//! What a weighting adds to a step: two students take turns, one under all teachers alike and one under the weighting.
//!
//! They make the same steps in blocks of the same length, one after the other, so that whatever else a machine does slows both. A
//! block is as long as the weighting's longest period; the share is the median over blocks. There is no warm-up, in which a
//! policy neither draws nor learns.

use std::time::Instant;

use anyhow::{Context, Result};
use kd_core::trainer::Trainer;
use kd_core::weighting::TeacherWeighting;
use serde::{Deserialize, Serialize};

use kd_rl::agent::AgentConfig;
use kd_rl::reinforced::ReinforcedConfig;

use super::Way;
use super::experiment::{Experiment, Run};
use crate::interrupt;
use crate::multi_teacher::{Course, Results, name_of, name_of_device};

/// Pairs of blocks at the least, besides the first of all, which is not counted.
const LEAST: usize = 4;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// The weighting.
    pub way: String,
    /// The student.
    pub student: String,
    /// Median milliseconds of a step under all teachers alike.
    pub uniform_ms: f64,
    /// Median milliseconds of a step under the weighting, the mean of a block.
    pub ms: f64,
    /// The median over blocks of the weighting's time over the other's, less 1.
    pub share: f64,
    /// Steps of a block.
    pub block: usize,
    /// Pairs of blocks.
    pub blocks: usize,
    /// Updates of the policy in the meantime, if there is one.
    pub updates: Option<usize>,
}

impl Overhead {
    /// For people: `rl-1 costs 7.9 % …`.
    pub fn line(&self) -> String {
        let Self { way, student, uniform_ms, ms, share, block, blocks, .. } = self;
        format!(
            "{way} on {student}: {:+.1} % of a step ({ms:.1} ms against {uniform_ms:.1} ms of uniform; median of {blocks} blocks of \
             {block} steps)",
            100.0 * share
        )
    }

    /// What `way` costs, measured now for `seconds` or four pairs of blocks, whichever is longer, if `results` do not have it yet.
    /// None if another process is at it.
    ///
    /// # Errors
    /// If a student cannot be built or trained, Ctrl-C was pressed, or a file cannot be read or written.
    pub fn of(experiment: &Experiment<'_>, way: Way, results: &Results, seconds: f64) -> Result<Option<Self>> {
        let agent = AgentConfig { warm_up: 0, ..experiment.policy.agent };
        let experiment = &Experiment { policy: ReinforcedConfig { agent, ..experiment.policy }, ..*experiment };
        let (name, run) = experiment.name(&Run { way, seed: 0 });
        let decides = serde_json::json!({ "run": run, "device": name_of_device(experiment.device) });
        let readable = name.rsplit_once('-').map_or(name.as_str(), |(readable, _)| readable);
        results.made(&name_of(readable, &decides), || Self::measure(experiment, way, seconds).map(Some))
    }

    fn measure(experiment: &Experiment<'_>, way: Way, seconds: f64) -> Result<Self> {
        let (policy, seed) = (&experiment.policy, 0);
        let block = match way {
            Way::Policy3 => policy.held_out_every,
            _ => policy.learn_every * policy.agent.update_every.min(8),
        };
        let (uniform, own) = (Run { way: Way::Uniform, seed }, Run { way, seed });
        let students = [experiment.build(seed)?, experiment.build(seed)?];
        let mut watches = [experiment.watch(&uniform, &students[0])?, experiment.watch(&own, &students[1])?];
        let [first, second] = &mut watches;
        let mut measured = experiment.with_course(&uniform, &students[0], "uniform", |alike| {
            experiment.with_course(&own, &students[1], "own", |other| {
                let mut trainers = [trainer(alike, first)?, trainer(other, second)?];
                let mut times: Vec<[f64; 2]> = Vec::new();
                let began = Instant::now();
                while times.len() <= LEAST || began.elapsed().as_secs_f64() < seconds {
                    let mut pair = [0.0; 2];
                    // Who begins changes from block to block.
                    for turn in 0..2 {
                        let who = (turn + times.len()) % 2;
                        interrupt::check()?;
                        let batches = (0..block)
                            .map(|idx| alike.batches.batch(times.len() * block + idx))
                            .collect::<candle_core::Result<Vec<_>>>()?;
                        let begun = Instant::now();
                        for batch in &batches {
                            trainers[who].step(batch)?;
                        }
                        experiment.device.synchronize()?;
                        pair[who] = begun.elapsed().as_secs_f64() / block as f64;
                    }
                    times.push(pair);
                }
                let times = &times[1..];
                let median_of = |of: &dyn Fn(&[f64; 2]) -> f64| median(times.iter().map(of).collect());
                anyhow::Ok(Self {
                    way: way.name(),
                    student: experiment.pupil.name(),
                    uniform_ms: 1e3 * median_of(&|pair| pair[0])?,
                    ms: 1e3 * median_of(&|pair| pair[1])?,
                    share: median_of(&|pair| pair[1] / pair[0])? - 1.0,
                    block,
                    blocks: times.len(),
                    updates: None,
                })
            })
        })?;
        let [_, own] = watches;
        let told = own.context("a weighting to be timed")?.finish(measured.block * (measured.blocks + 1))?.1;
        measured.updates = told.map(|told| told.updates);
        Ok(measured)
    }
}

fn trainer<'c, W: TeacherWeighting>(course: &Course<'c>, watch: &'c mut Option<W>) -> Result<Trainer<'c>> {
    let watch = watch.as_mut().context("a weighting to be timed")?;
    Ok(course.trainer()?.with_weighting(watch))
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let (half, n) = (values.len() / 2, values.len());
    let upper = *values.get(half).context("expected times, found none")?;
    Ok(if n % 2 == 1 { upper } else { 0.5 * (values[half - 1] + upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_by_hand() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).unwrap(), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]).unwrap(), 2.5);
        assert!(median(Vec::new()).is_err());
    }
}
