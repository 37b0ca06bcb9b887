//! The best path, and which paths are allowed.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{CHUNK, check, chunks, read, read_tensor, to_cpu};

/// Added to a transition that [`constrain`] forbids, in nats: far below any score that is learned and far above
/// where f16 and f32 overflow.
pub const FORBIDDEN: f64 = -1e4;

/// The labels of each sequence's best path, one after another: one class per row.
///
/// Among equal scores the lowest class wins, from the last word backward. Arguments and errors are those of
/// [`super::log_partition`].
pub fn viterbi(emissions: &Tensor, transitions: &Tensor, lengths: &[usize]) -> Result<Vec<u32>> {
    let classes = check(emissions, transitions, lengths)?;
    let emissions = read_tensor(&to_cpu(&emissions.detach())?, read)?;
    let transitions = read_tensor(&to_cpu(&transitions.detach())?, read)?;
    let shares: Vec<Vec<u32>> = chunks(lengths)
        .into_par_iter()
        .map(|(first, mut row)| {
            let mut labels = Vec::new();
            for &len in lengths.iter().skip(first).take(CHUNK) {
                labels.extend(best_path(&emissions[row * classes..(row + len) * classes], &transitions, classes));
                row += len;
            }
            labels
        })
        .collect();
    Ok(shares.concat())
}

/// Index of the largest value, the first of equals.
fn first_largest(values: impl Iterator<Item = f64>) -> (usize, f64) {
    let first = (0, f64::NEG_INFINITY);
    values.enumerate().fold(first, |best, (idx, value)| if value > best.1 { (idx, value) } else { best })
}

fn best_path(emissions: &[f64], transitions: &[f64], classes: usize) -> Vec<u32> {
    let (start, end) = (&transitions[classes * classes..], &transitions[(classes + 1) * classes..]);
    let len = emissions.len() / classes;
    if len == 0 {
        return Vec::new();
    }
    let mut best: Vec<f64> = start[..classes].iter().zip(emissions).map(|(s, e)| s + e).collect();
    let mut previous = Vec::with_capacity(emissions.len()); // (len - 1, classes): where each word's best paths come from
    for emissions in emissions.chunks_exact(classes).skip(1) {
        let stepped = (0..classes).map(|to| {
            let (from, value) = first_largest((0..classes).map(|from| best[from] + transitions[from * classes + to]));
            previous.push(from);
            value + emissions[to]
        });
        best = stepped.collect();
    }
    let (mut class, _) = first_largest(best.iter().zip(end).map(|(b, e)| b + e));
    let mut labels = vec![class as u32; len];
    for t in (1..len).rev() {
        class = previous[(t - 1) * classes + class];
        labels[t - 1] = class as u32;
    }
    labels
}

/// `transitions` with [`FORBIDDEN`] added to every one that `allowed` denies; differentiable.
///
/// `allowed` is asked for `(from, to)`: `(None, Some(c))` is the start, `(Some(c), None)` the end. For BIO tags it
/// says that `I-x` follows only `B-x` and `I-x`, so [`viterbi`] returns well-formed tags only.
///
/// # Errors
/// If `transitions` is not `(classes + 2, classes)`.
pub fn constrain(transitions: &Tensor, allowed: impl Fn(Option<usize>, Option<usize>) -> bool) -> Result<Tensor> {
    let (rows, classes) = transitions.dims2()?;
    if rows != classes + 2 {
        candle_core::bail!(
            "expected transitions of shape {:?}, found {:?}",
            [classes + 2, classes],
            transitions.dims()
        );
    }
    let mut penalties = Vec::with_capacity(rows * classes);
    for row in 0..rows {
        for class in 0..classes {
            let (from, to) = match row {
                _ if row < classes => (Some(row), Some(class)),
                _ if row == classes => (None, Some(class)),
                _ => (Some(class), None),
            };
            penalties.push(if allowed(from, to) { 0.0 } else { FORBIDDEN });
        }
    }
    let penalties = Tensor::from_vec(penalties, (rows, classes), &candle_core::Device::Cpu)?;
    transitions + penalties.to_dtype(transitions.dtype())?.to_device(transitions.device())?
}
