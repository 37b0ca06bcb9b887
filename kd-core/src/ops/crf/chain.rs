//! The recursions of one sequence, in f64, and their derivatives.

use super::super::cpu::vectorized;
use super::double::exp;
use super::step::{LANES, Step, Work, log_sum_exp, place};

/// Gradients of a task's share of sequences: of its rows, and of all transitions.
pub(super) struct Gradients {
    pub(super) emissions: Vec<f64>,
    pub(super) transitions: Vec<f64>,
    /// Gradients of the factors of the forward step and of the backward one.
    factors: [Vec<f64>; 2],
    /// Gradient of the weights in the order (to, from), of the recursion that runs backward.
    transposed: Vec<f64>,
}

impl Gradients {
    pub(super) fn zeros(rows: usize, classes: usize) -> Self {
        let factors = vec![0.0; classes * classes.next_multiple_of(LANES)];
        Self {
            emissions: vec![0.0; rows * classes],
            transitions: vec![0.0; (classes + 2) * classes],
            factors: [factors.clone(), factors],
            transposed: vec![0.0; classes * classes],
        }
    }

    /// The gradients of all rows and the sum of those of the transitions, in the order of the shares.
    pub(super) fn join(shares: Vec<Self>, chain: &Chain) -> (Vec<f64>, Vec<f64>) {
        let classes = chain.classes;
        let mut sum = Self::zeros(0, classes);
        let mut emissions = Vec::with_capacity(shares.iter().map(|share| share.emissions.len()).sum());
        for share in shares {
            emissions.extend_from_slice(&share.emissions);
            add(&mut sum.transitions, &share.transitions);
            add(&mut sum.transposed, &share.transposed);
            for (sum, factors) in sum.factors.iter_mut().zip(&share.factors) {
                add(sum, factors);
            }
        }
        for from in 0..classes {
            for to in 0..classes {
                let (there, back) = (place(classes, from, to), place(classes, to, from));
                sum.transitions[from * classes + to] += sum.transposed[to * classes + from]
                    + sum.factors[0][there] * chain.forward.factors[there]
                    + sum.factors[1][back] * chain.backward.factors[back];
            }
        }
        (emissions, sum.transitions)
    }
}

/// The transition scores and what the recursions need of them.
///
/// Emissions, alphas and betas of a sequence are `(len, lanes)`, see [`super::step`].
pub(super) struct Chain {
    pub(super) classes: usize,
    pub(super) lanes: usize,
    start: Vec<f64>,
    end: Vec<f64>,
    forward: Step,
    /// The step with its weights transposed, for the recursion from the last word to the first.
    backward: Step,
}

impl Chain {
    /// From transitions `(classes + 2, classes)`.
    pub(super) fn new(classes: usize, transitions: &[f64]) -> Self {
        let (weights, ends) = transitions.split_at(classes * classes);
        let transposed = (0..classes * classes).map(|i| weights[i % classes * classes + i / classes]).collect();
        let lanes = classes.next_multiple_of(LANES);
        let mut ends = pad(ends, 2, classes, f64::NEG_INFINITY);
        let end = ends.split_off(lanes);
        Self {
            classes,
            lanes,
            start: ends,
            end,
            forward: Step::new(classes, weights.to_vec()),
            backward: Step::new(classes, transposed),
        }
    }

    /// `log Σ exp` of the scores of all paths that end in each class at each word.
    pub(super) fn alphas(&self, emissions: &[f64]) -> Vec<f64> {
        vectorized(
            #[inline(always)]
            || {
                let lanes = self.lanes;
                let mut alphas = emissions.to_vec();
                let mut work = Work::new(lanes);
                let mut stepped = self.start.clone();
                for t in 0..alphas.len() / lanes {
                    if t > 0 {
                        self.forward.forward(&alphas[(t - 1) * lanes..t * lanes], &mut stepped, &mut work);
                    }
                    add(&mut alphas[t * lanes..], &stepped);
                }
                alphas
            },
        )
    }

    /// Gradients of emissions and transitions from those of the alphas, which are used up.
    pub(super) fn alphas_backward(&self, alphas: &[f64], mut d_alphas: Vec<f64>, row: usize, into: &mut Gradients) {
        vectorized(
            #[inline(always)]
            || {
                let (classes, lanes) = (self.classes, self.lanes);
                let mut work = Work::new(lanes);
                for t in (0..alphas.len() / lanes).rev() {
                    let (before, d_alpha) = d_alphas.split_at_mut(t * lanes);
                    let d_alpha = &d_alpha[..lanes];
                    add(&mut into.emissions[(row + t) * classes..], &d_alpha[..classes]);
                    if t == 0 {
                        add(&mut into.transitions[classes * classes..], &d_alpha[..classes]);
                    } else {
                        let previous = (t - 1) * lanes..t * lanes;
                        let d_weights = (into.factors[0].as_mut_slice(), into.transitions.as_mut_slice());
                        let (alpha, d_before) = (&alphas[previous.clone()], &mut before[previous]);
                        self.forward.backward(&self.backward, alpha, d_alpha, d_before, d_weights, &mut work);
                    }
                }
            },
        )
    }

    /// `log Σ exp` of what follows each class at each word.
    pub(super) fn betas(&self, emissions: &[f64]) -> Vec<f64> {
        vectorized(
            #[inline(always)]
            || {
                let (lanes, len) = (self.lanes, emissions.len() / self.lanes);
                let mut betas = vec![0.0; emissions.len()];
                let (mut work, mut next) = (Work::new(lanes), vec![0.0; lanes]);
                for t in (0..len).rev() {
                    if t + 1 == len {
                        betas[t * lanes..].copy_from_slice(&self.end);
                    } else {
                        self.next(emissions, &betas, t + 1, &mut next);
                        self.backward.forward(&next, &mut betas[t * lanes..(t + 1) * lanes], &mut work);
                    }
                }
                betas
            },
        )
    }

    /// Gradients of emissions and transitions from those of the betas, which are used up.
    pub(super) fn betas_backward(
        &self,
        emissions: &[f64],
        betas: &[f64],
        mut d_betas: Vec<f64>,
        row: usize,
        into: &mut Gradients,
    ) {
        vectorized(
            #[inline(always)]
            || {
                let (classes, lanes, len) = (self.classes, self.lanes, emissions.len() / self.lanes);
                let (mut work, mut next, mut d_next) = (Work::new(lanes), vec![0.0; lanes], vec![0.0; lanes]);
                for t in 0..len {
                    let (d_beta, after) = d_betas.split_at_mut((t + 1) * lanes);
                    let d_beta = &d_beta[t * lanes..];
                    if t + 1 == len {
                        add(&mut into.transitions[(classes + 1) * classes..], &d_beta[..classes]);
                    } else {
                        self.next(emissions, betas, t + 1, &mut next);
                        d_next.fill(0.0);
                        let d_weights = (into.factors[1].as_mut_slice(), into.transposed.as_mut_slice());
                        self.backward.backward(&self.forward, &next, d_beta, &mut d_next, d_weights, &mut work);
                        add(&mut into.emissions[(row + t + 1) * classes..], &d_next[..classes]);
                        add(after, &d_next);
                    }
                }
            },
        )
    }

    #[inline(always)]
    fn next(&self, emissions: &[f64], betas: &[f64], t: usize, next: &mut [f64]) {
        let at = t * self.lanes..(t + 1) * self.lanes;
        for ((next, e), b) in next.iter_mut().zip(&emissions[at.clone()]).zip(&betas[at]) {
            *next = e + b;
        }
    }

    /// `log Z` from the alphas; 0 for a sequence without words.
    pub(super) fn log_partition(&self, alphas: &[f64]) -> f64 {
        match alphas.len().checked_sub(self.lanes) {
            None => 0.0,
            Some(last) => log_sum_exp(alphas[last..].iter().zip(&self.end[..self.classes]).map(|(a, e)| a + e)),
        }
    }

    /// Gradients from that of `log Z`.
    pub(super) fn log_partition_backward(&self, alphas: &[f64], d: f64, row: usize, into: &mut Gradients) {
        let Some(last) = alphas.len().checked_sub(self.lanes) else { return };
        let log_partition = self.log_partition(alphas);
        let mut d_alphas = vec![0.0; alphas.len()];
        let d_last = &mut d_alphas[last..][..self.classes];
        for ((d_alpha, alpha), end) in d_last.iter_mut().zip(&alphas[last..]).zip(&self.end) {
            *d_alpha = d * exp(alpha + end - log_partition);
        }
        add(&mut into.transitions[(self.classes + 1) * self.classes..], d_last);
        self.alphas_backward(alphas, d_alphas, row, into);
    }

    /// Calls `visit` with the index into the transitions of every transition of a label path.
    pub(super) fn transitions_of(&self, labels: &[u32], mut visit: impl FnMut(usize)) {
        let (Some(&first), Some(&last)) = (labels.first(), labels.last()) else { return };
        visit(self.classes * self.classes + first as usize);
        labels.windows(2).for_each(|pair| visit(pair[0] as usize * self.classes + pair[1] as usize));
        visit((self.classes + 1) * self.classes + last as usize);
    }
}

/// `(rows, classes)` as `(rows, lanes)`, with `rest` in what is too many.
pub(super) fn pad<T: Copy + Into<f64>>(values: &[T], rows: usize, classes: usize, rest: f64) -> Vec<f64> {
    let lanes = classes.next_multiple_of(LANES);
    let mut padded = vec![rest; rows * lanes];
    for (padded, values) in padded.chunks_exact_mut(lanes).zip(values.chunks_exact(classes)) {
        padded.iter_mut().zip(values).for_each(|(padded, &value)| *padded = value.into());
    }
    padded
}

/// Adds `values` to the beginning of `sums`.
#[inline(always)]
pub(super) fn add(sums: &mut [f64], values: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
