//! Values per sequence: log-partition, score of a path, and their difference.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::chain::{Chain, Gradients};
use super::{CHUNK, back, check, chunks, gradient_of, read, read_rows, read_tensor, to_cpu, write};

/// `log Z` of each sequence, `(sequences,)`, in nats; 0 for a sequence without words.
///
/// # Shapes
/// - `emissions`: `(rows, classes)` float, the words of all sequences one after another
/// - `transitions`: `(classes + 2, classes)` of the same dtype, see [`crate::ops::crf`]
/// - `lengths`: rows of each sequence, 0 allowed
///
/// # Errors
/// If shapes or dtypes do not fit or `lengths` does not sum to `rows`.
pub fn log_partition(emissions: &Tensor, transitions: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    scores(emissions, transitions, lengths, None, [1.0, 0.0])
}

/// Score of each sequence's `labels`, `(sequences,)`; 0 for a sequence without words.
///
/// `labels` is `(rows,)` u32, the rest as in [`log_partition`].
///
/// # Errors
/// As [`log_partition`], and if a label is no class; on a CUDA device with kernels the score is NaN then.
pub fn path_scores(emissions: &Tensor, transitions: &Tensor, labels: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    scores(emissions, transitions, lengths, Some(labels), [0.0, 1.0])
}

/// `-log p(labels)` of each sequence, `(sequences,)`, in nats: [`log_partition`] minus [`path_scores`], with the
/// difference taken in f64.
///
/// # Errors
/// As [`path_scores`].
pub fn negative_log_likelihood_sequences(
    emissions: &Tensor,
    transitions: &Tensor,
    labels: &Tensor,
    lengths: &[usize],
) -> Result<Tensor> {
    scores(emissions, transitions, lengths, Some(labels), [1.0, -1.0])
}

/// `-Σ_k w_k log p(path_k)` of each sequence, `(sequences,)`, for weighted paths of each whose weights sum to 1: the
/// partition is computed once for all, and the differences are taken in f64.
///
/// The labels must be classes, as many as the sequence has rows.
pub(crate) fn weighted_negative_log_likelihood(
    emissions: &Tensor,
    transitions: &Tensor,
    paths: Vec<Vec<WeightedPath>>,
    lengths: &[usize],
) -> Result<Tensor> {
    let negated = |(weight, labels): WeightedPath| (-weight, labels);
    let paths = paths.into_iter().map(|paths| paths.into_iter().map(negated).collect()).collect();
    Scores::new(lengths, 1.0, paths).apply(emissions, transitions)
}

/// `-log p(labels)` of all sequences, a scalar in nats, mean per **row**: the sum over sequences divided by the
/// number of words, so its size can be compared with a cross-entropy over words.
///
/// # Errors
/// As [`path_scores`], and if there are no rows.
pub fn negative_log_likelihood(
    emissions: &Tensor,
    transitions: &Tensor,
    labels: &Tensor,
    lengths: &[usize],
) -> Result<Tensor> {
    let rows = emissions.dim(0)?;
    if rows == 0 {
        bail!("the mean over no rows is not defined");
    }
    let losses = negative_log_likelihood_sequences(emissions, transitions, labels, lengths)?;
    losses.sum_all()?.affine(1.0 / rows as f64, 0.0)
}

/// `partition · log Z + path · s(labels)` of each sequence.
fn scores(
    emissions: &Tensor,
    transitions: &Tensor,
    lengths: &[usize],
    labels: Option<&Tensor>,
    [partition, path]: [f64; 2],
) -> Result<Tensor> {
    check(emissions, transitions, lengths)?;
    let rows = emissions.dim(0)?;
    if let Some(labels) = labels.filter(|labels| labels.dims() != [rows] || labels.dtype() != DType::U32) {
        bail!("expected u32 labels of shape {:?}, found {:?} of {:?}", [rows], labels.dims(), labels.dtype());
    }
    #[cfg(feature = "cuda")]
    if crate::ops::cuda::has_crf(emissions, transitions)? {
        return crate::ops::cuda::crf_scores(emissions, transitions, lengths, labels, [partition, path]);
    }
    let paths = match labels {
        Some(labels) => one_path_each(&read_labels(emissions, labels)?, path, lengths),
        None => Vec::new(),
    };
    Scores::new(lengths, partition, paths).apply(emissions, transitions)
}

fn read_labels(emissions: &Tensor, labels: &Tensor) -> Result<Vec<u32>> {
    let (_, classes) = emissions.dims2()?;
    let labels = labels.to_vec1::<u32>()?;
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(row) => bail!("the label of row {row} is {}, expected less than {classes} classes", labels[row]),
        None => Ok(labels),
    }
}

/// A factor and the labels of a sequence's words.
type WeightedPath = (f64, Vec<u32>);

/// For each sequence the path that `labels`, one per row, are.
fn one_path_each(labels: &[u32], weight: f64, lengths: &[usize]) -> Vec<Vec<WeightedPath>> {
    let mut rest = labels;
    let path = |&len: &usize| {
        let (path, after) = rest.split_at(len);
        rest = after;
        vec![(weight, path.to_vec())]
    };
    lengths.iter().map(path).collect()
}

/// `partition · log Z + Σ weight · s(path)` of each sequence.
struct Scores {
    lengths: Vec<usize>,
    partition: f64,
    /// Of each sequence; empty where there are none.
    paths: Vec<Vec<WeightedPath>>,
    /// The alphas of each sequence, kept for the backward pass.
    alphas: Mutex<Vec<Vec<f64>>>,
}

impl Scores {
    fn new(lengths: &[usize], partition: f64, paths: Vec<Vec<WeightedPath>>) -> Self {
        Self { lengths: lengths.to_vec(), partition, paths, alphas: Mutex::default() }
    }

    fn apply(self, emissions: &Tensor, transitions: &Tensor) -> Result<Tensor> {
        check(emissions, transitions, &self.lengths)?;
        let result = to_cpu(emissions)?.apply_op2(&to_cpu(transitions)?, self)?;
        back(result, emissions)
    }

    /// Calls `each` with every sequence of a share: its index, its first row counted from the share's, its rows and
    /// paths.
    fn walk(&self, (first, row): (usize, usize), mut each: impl FnMut(usize, usize, Range<usize>, &[WeightedPath])) {
        let mut begin = row;
        for (idx, &len) in self.lengths.iter().enumerate().skip(first).take(CHUNK) {
            each(idx, begin - row, begin..begin + len, self.paths.get(idx).map_or(&[], Vec::as_slice));
            begin += len;
        }
    }
}

impl CustomOp2 for Scores {
    fn name(&self) -> &'static str {
        "crf-scores"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, classes) = l1.shape().dims2()?;
        let transitions = read(s2, l2)?;
        let chain = Chain::new(classes, &transitions);
        let emissions = read_rows(s1, l1)?;
        let shares: Vec<Vec<(f64, Vec<f64>)>> = chunks(&self.lengths)
            .into_par_iter()
            .map(|share| {
                let mut values = Vec::with_capacity(CHUNK);
                self.walk(share, |_, _, rows, paths| {
                    let emissions = &emissions[rows.start * chain.lanes..rows.end * chain.lanes];
                    let (mut value, mut alphas) = (0.0, Vec::new());
                    if self.partition != 0.0 {
                        alphas = chain.alphas(emissions);
                        value += self.partition * chain.log_partition(&alphas);
                    }
                    for (weight, labels) in paths {
                        let rows = emissions.chunks_exact(chain.lanes).zip(labels);
                        let mut path: f64 = rows.map(|(row, &label)| row[label as usize]).sum();
                        chain.transitions_of(labels, |at| path += transitions[at]);
                        value += weight * path;
                    }
                    values.push((value, alphas));
                });
                values
            })
            .collect();
        let (values, alphas): (Vec<f64>, Vec<Vec<f64>>) = shares.into_iter().flatten().unzip();
        *self.alphas.lock().unwrap_or_else(PoisonError::into_inner) = alphas;
        Ok((write(values, s1.dtype()), Shape::from(self.lengths.len())))
    }

    fn bwd(
        &self,
        emissions: &Tensor,
        transitions: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let classes = emissions.dim(1)?;
        let (a, d) = (read_tensor(transitions, read)?, read_tensor(gradient, read)?);
        let chain = Chain::new(classes, &a);
        let alphas = self.alphas.lock().unwrap_or_else(PoisonError::into_inner);
        let shares: Vec<Gradients> = chunks(&self.lengths)
            .into_par_iter()
            .map(|share| {
                let rows = self.lengths.iter().skip(share.0).take(CHUNK).sum();
                let mut into = Gradients::zeros(rows, classes);
                self.walk(share, |idx, row, _, paths| {
                    if self.partition != 0.0 {
                        chain.log_partition_backward(&alphas[idx], self.partition * d[idx], row, &mut into);
                    }
                    for (weight, labels) in paths {
                        let d = weight * d[idx];
                        for (t, &label) in labels.iter().enumerate() {
                            into.emissions[(row + t) * classes + label as usize] += d;
                        }
                        chain.transitions_of(labels, |at| into.transitions[at] += d);
                    }
                });
                into
            })
            .collect();
        let (d_emissions, d_transitions) = Gradients::join(shares, &chain);
        Ok((gradient_of(emissions, d_emissions)?, gradient_of(transitions, d_transitions)?))
    }
}
