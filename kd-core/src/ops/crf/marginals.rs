//! The distribution over classes of each word, given the whole sequence.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::chain::{Chain, Gradients, pad};
use super::double::exp;
use super::step::log_sum_exp;
use super::{CHUNK, back, check, chunks, gradient_of, read, read_rows, read_tensor, to_cpu, write};

/// `log p(y_t = c)` of every row and class, `(rows, classes)`; each row is normalised.
///
/// This is what a CRF says of one word, and so what can be compared with a teacher's `log_softmax`: emissions
/// alone leave out the transitions. With `α` the log-sum of all paths into a class and `β` of all paths out
/// of it, a row is `log_softmax(α_t + β_t)`. Differentiable in emissions and transitions, by reverse mode
/// through both recursions.
///
/// Shapes and errors are those of [`super::log_partition`]; sequences without words have no rows.
pub fn log_marginals(emissions: &Tensor, transitions: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    check(emissions, transitions, lengths)?;
    let op = Marginals { lengths: lengths.to_vec() };
    back(to_cpu(emissions)?.apply_op2(&to_cpu(transitions)?, op)?, emissions)
}

struct Marginals {
    lengths: Vec<usize>,
}

impl Marginals {
    /// The first row and the emissions of each sequence of a share.
    fn share<'a>(
        &'a self,
        (first, row): (usize, usize),
        emissions: &'a [f64],
        lanes: usize,
    ) -> impl Iterator<Item = (usize, &'a [f64])> {
        self.lengths.iter().skip(first).take(CHUNK).scan(row, move |begin, &len| {
            let row = *begin;
            *begin += len;
            Some((row, &emissions[row * lanes..*begin * lanes]))
        })
    }
}

impl CustomOp2 for Marginals {
    fn name(&self) -> &'static str {
        "crf-log-marginals"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, classes) = l1.shape().dims2()?;
        let emissions = read_rows(s1, l1)?;
        let chain = Chain::new(classes, &read(s2, l2)?);
        let lanes = chain.lanes;
        let shares: Vec<Vec<f64>> = chunks(&self.lengths)
            .into_par_iter()
            .map(|share| {
                let mut log_marginals = Vec::new();
                for (_, emissions) in self.share(share, &emissions, lanes) {
                    let (alphas, betas) = (chain.alphas(emissions), chain.betas(emissions));
                    for (alpha, beta) in alphas.chunks_exact(lanes).zip(betas.chunks_exact(lanes)) {
                        let through = alpha[..classes].iter().zip(beta).map(|(a, b)| a + b);
                        let log_partition = log_sum_exp(through.clone());
                        log_marginals.extend(through.map(|x| x - log_partition));
                    }
                }
                log_marginals
            })
            .collect();
        Ok((write(shares.concat(), s1.dtype()), l1.shape().clone()))
    }

    fn bwd(
        &self,
        emissions: &Tensor,
        transitions: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let classes = emissions.dim(1)?;
        let e = read_tensor(emissions, read_rows)?;
        let (log_marginals, d) = (read_tensor(result, read)?, read_tensor(gradient, read)?);
        let chain = Chain::new(classes, &read_tensor(transitions, read)?);
        let lanes = chain.lanes;
        let shares: Vec<Gradients> = chunks(&self.lengths)
            .into_par_iter()
            .map(|share| {
                let rows = self.lengths.iter().skip(share.0).take(CHUNK).sum();
                let mut into = Gradients::zeros(rows, classes);
                for (row, emissions) in self.share(share, &e, lanes) {
                    let len = emissions.len() / lanes;
                    let at = row * classes..(row + len) * classes;
                    // Through log_softmax: d_x = d - softmax · Σ d.
                    let mut d_through = d[at.clone()].to_vec();
                    let probs = log_marginals[at].chunks_exact(classes);
                    for (d, log_probs) in d_through.chunks_exact_mut(classes).zip(probs) {
                        let sum: f64 = d.iter().sum();
                        d.iter_mut().zip(log_probs).for_each(|(d, log_prob)| *d -= sum * exp(*log_prob));
                    }
                    let d_through = pad(&d_through, len, classes, 0.0);
                    let (alphas, betas) = (chain.alphas(emissions), chain.betas(emissions));
                    chain.alphas_backward(&alphas, d_through.clone(), row - share.1, &mut into);
                    chain.betas_backward(emissions, &betas, d_through, row - share.1, &mut into);
                }
                into
            })
            .collect();
        let (d_emissions, d_transitions) = Gradients::join(shares, &chain);
        Ok((gradient_of(emissions, d_emissions)?, gradient_of(transitions, d_transitions)?))
    }
}
