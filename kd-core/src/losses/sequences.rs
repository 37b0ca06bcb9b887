//! A CRF student and the best paths of a CRF teacher.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::preconditions::logits as check_logits;
use crate::ops::crf::{self, Path};

/// What each of a sequence's best paths counts; the weights of a sequence sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathWeights {
    /// The same for each, `1 / paths` (the top-K distillation of Wang et al. 2020, §3).
    Uniform,
    /// The teacher's probability of the path among those given, `e^(s_k) / Σ_j e^(s_j)` (the top-WK distillation there).
    Posterior,
}

impl PathWeights {
    fn of(self, paths: &[Path]) -> Vec<f64> {
        match self {
            Self::Uniform => vec![1.0 / paths.len() as f64; paths.len()],
            Self::Posterior => {
                let best = paths.iter().fold(f64::NEG_INFINITY, |best, path| best.max(path.score));
                let weights: Vec<f64> = paths.iter().map(|path| (path.score - best).exp()).collect();
                let total: f64 = weights.iter().sum();
                weights.into_iter().map(|weight| weight / total).collect()
            }
        }
    }
}

/// `-Σ_k w_k log p_student(path_k)` over the teacher's best paths, mean per **row**: the sum over sequences divided by
/// the number of words, as [`crf::negative_log_likelihood`], so the two have comparable weights.
///
/// The teacher says which whole label sequences it holds possible, where marginals say so of each word alone
/// (Wang et al. 2020, "Structure-Level Knowledge Distillation For Multilingual Sequence Labeling", §3). With the single path of the
/// labels it is the negative log-likelihood; with all paths and [`PathWeights::Posterior`] the cross-entropy between the two CRFs.
///
/// # Shapes
/// - `emissions`: `(rows, classes)` float, `transitions`: `(classes + 2, classes)`, both the student's and differentiable
/// - `paths`: of each sequence at least one, from [`crf::k_best`] of the teacher; their labels say how many rows the
///   sequence has, and are the student's classes
///
/// # Errors
/// If there are no rows, the paths do not fit the rows or the classes, a sequence has no path, its paths have several lengths, or a
/// path's score is not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{PathWeights, path_cross_entropy};
/// use kd_core::ops::crf::Path;
/// let emissions = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // one word, probabilities 1/4 and 3/4
/// let transitions = Tensor::zeros((4, 2), emissions.dtype(), &Device::Cpu)?;
/// let paths = [vec![Path { labels: vec![0], score: 4f64.ln() }, Path { labels: vec![1], score: 0. }]];
/// let loss = path_cross_entropy(&emissions, &transitions, &paths, PathWeights::Posterior)?.to_scalar::<f64>()?;
/// assert!((loss + 0.8 * 0.25f64.ln() + 0.2 * 0.75f64.ln()).abs() < 1e-12); // weights 4/5 and 1/5
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn path_cross_entropy(
    emissions: &Tensor,
    transitions: &Tensor,
    paths: &[Vec<Path>],
    weights: PathWeights,
) -> Result<Tensor> {
    let sequences = path_cross_entropy_sequences(emissions, transitions, paths, weights)?;
    let rows = emissions.dim(0)?;
    if rows == 0 {
        bail!("path_cross_entropy: a mean over no rows");
    }
    sequences.sum_all()?.affine(1.0 / rows as f64, 0.0)
}

/// [`path_cross_entropy`] of each sequence, `(sequences,)`, undivided; 0 for a sequence without words.
///
/// # Errors
/// As there, but no rows are no error.
pub fn path_cross_entropy_sequences(
    emissions: &Tensor,
    transitions: &Tensor,
    paths: &[Vec<Path>],
    weights: PathWeights,
) -> Result<Tensor> {
    let (_, classes) = check_logits("path_cross_entropy", "emissions", emissions)?;
    let (mut lengths, mut weighted) = (Vec::with_capacity(paths.len()), Vec::with_capacity(paths.len()));
    for (sequence, paths) in paths.iter().enumerate() {
        let Some(first) = paths.first() else { bail!("path_cross_entropy: sequence {sequence} has no path") };
        for Path { labels, score } in paths {
            if labels.len() != first.labels.len() {
                bail!(
                    "path_cross_entropy: sequence {sequence} has paths of {} and {} labels, expected one length",
                    first.labels.len(),
                    labels.len()
                );
            }
            if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
                bail!(
                    "path_cross_entropy: sequence {sequence} has a path with label {label}, expected {classes} classes"
                );
            }
            if !score.is_finite() {
                bail!("path_cross_entropy: sequence {sequence} has a path of score {score}, expected a finite one");
            }
        }
        lengths.push(first.labels.len());
        weighted.push(weights.of(paths).into_iter().zip(paths.iter().map(|path| path.labels.clone())).collect());
    }
    crf::weighted_negative_log_likelihood(emissions, transitions, weighted, &lengths)
}
