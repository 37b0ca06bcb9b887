//! Whom a weighting that learns has chosen: pass by pass, and by how hard an example is.

use std::path::Path;

use anyhow::Result;

use super::classroom::GROUPS;
use super::experiment::Record;
use super::watched::Pass;
use crate::plot::{Curve, Scale, Titles, curves};
use crate::report::Spread;

/// What is drawn of a pass: a policy's probabilities, of others the weights; by group of examples and teacher.
fn chosen(pass: &Pass) -> &Vec<Vec<f64>> {
    if pass.probs.is_empty() { &pass.weights } else { &pass.probs }
}

/// The point at `x` of values of several runs.
fn point(x: usize, values: &[f64]) -> (f64, f64, f64) {
    let Spread { mean, std } = Spread::of(values);
    (x as f64, mean, std)
}

/// Writes `NAME-time.svg`, by pass, and `NAME-difficulty.svg`, in the last pass by fifth of the examples, from the easiest for the
/// teachers to the hardest; nothing without a pass. Means over the runs, ± one standard deviation.
///
/// # Errors
/// If a file cannot be written.
pub fn draw(folder: &Path, name: &str, teachers: &[String], records: &[Record]) -> Result<()> {
    let passes = records.iter().map(|record| record.passes.len()).min().unwrap_or(0);
    if passes == 0 {
        return Ok(());
    }
    let what = if records[0].passes[0].probs.is_empty() { "mean weight" } else { "the policy's probability" };
    let of_teacher = |teacher: usize, points: Vec<(f64, f64, f64)>| Curve { name: teachers[teacher].clone(), points };
    let over_time = (0..teachers.len()).map(|teacher| {
        let mean = |pass: &Pass| chosen(pass).iter().map(|group| group[teacher]).sum::<f64>() / GROUPS as f64;
        let at = |idx: usize| records.iter().map(|record| mean(&record.passes[idx])).collect::<Vec<_>>();
        of_teacher(teacher, (0..passes).map(|idx| point(idx + 1, &at(idx))).collect())
    });
    let title = format!("{name}: whom it chooses");
    let titles = Titles { title: &title, x: "passes over the training part", y: what, scale: Scale::Linear };
    curves(&folder.join(format!("{name}-time.svg")), titles, &over_time.collect::<Vec<_>>())?;
    let by_group = (0..teachers.len()).map(|teacher| {
        let at = |group: usize| {
            records.iter().map(|record| chosen(&record.passes[passes - 1])[group][teacher]).collect::<Vec<_>>()
        };
        of_teacher(teacher, (0..GROUPS).map(|group| point(group + 1, &at(group))).collect())
    });
    let x = "fifth of the examples by the teachers' mean cross-entropy, the easiest first";
    curves(
        &folder.join(format!("{name}-difficulty.svg")),
        Titles { title: &title, x, y: what, scale: Scale::Linear },
        &by_group.collect::<Vec<_>>(),
    )
}
