//! One vector of weights for all rows, fitted to labelled outputs once.

use candle_core::{DType, Result, Tensor, bail};
use kd_core::ops;

use super::solve::solve;

/// `p_k` of each row's label and of its classes, on the host: `[teacher][row][class]`, and the labels.
struct Outputs {
    log_probs: Vec<Vec<Vec<f64>>>,
    labels: Vec<usize>,
}

impl Outputs {
    fn new(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Self> {
        let labels: Vec<usize> = labels.to_vec1::<u32>()?.into_iter().map(|label| label as usize).collect();
        if teacher_logits.is_empty() || labels.is_empty() {
            bail!("weights are fitted to rows of teachers, found {} teachers", teacher_logits.len());
        }
        let classes = teacher_logits[0].dims2()?.1;
        if let Some(row) = labels.iter().position(|&label| label >= classes) {
            bail!("row {row}: label {} with {classes} classes", labels[row]);
        }
        let mut log_probs = Vec::with_capacity(teacher_logits.len());
        for (idx, logits) in teacher_logits.iter().enumerate() {
            if logits.dims() != [labels.len(), classes] {
                let expected = [labels.len(), classes];
                bail!("teacher {idx}: expected logits of shape {expected:?}, found {:?}", logits.dims());
            }
            let rows = ops::log_softmax(&logits.detach().to_dtype(DType::F64)?)?.to_vec2::<f64>()?;
            if let Some(row) = rows.iter().position(|row| row.iter().any(|value| value.is_nan())) {
                bail!("teacher {idx}, row {row}: expected logits that are numbers");
            }
            log_probs.push(rows);
        }
        Ok(Self { log_probs, labels })
    }

    fn teachers(&self) -> usize {
        self.log_probs.len()
    }
}

/// The weights whose mixture `Σ_k w_k p_k` gives the labels the largest likelihood (W-Ensemble fitted rather than tuned): by
/// expectation maximisation, which has one maximum here.
///
/// # Shapes
/// - `teacher_logits`: `(rows, classes)` for each teacher; `labels`: `(rows,)` u32
///
/// # Errors
/// If there are no teachers or rows, shapes differ, a label is no class, or logits are no numbers.
///
/// ```
/// use candle_core::{Device, Tensor};
/// // The first teacher gives both labels 3/4, the second 1/4: no share of it helps.
/// let teachers = [3f64.ln(), -(3f64.ln())].map(|z| Tensor::new(&[[z, 0.], [0., z]], &Device::Cpu).unwrap());
/// let weights = kd_rl::rivals::mixture_weights(&teachers, &Tensor::new(&[0u32, 1], &Device::Cpu)?)?;
/// assert!(weights[0] > 0.999_999);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn mixture_weights(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Vec<f64>> {
    let outputs = Outputs::new(teacher_logits, labels)?;
    let (teachers, rows) = (outputs.teachers(), outputs.labels.len());
    let probs = |row: usize| -> Vec<f64> {
        let label = outputs.labels[row];
        let log_probs: Vec<f64> = outputs.log_probs.iter().map(|of| of[row][label]).collect();
        let largest = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            vec![1.0; teachers]
        } else {
            log_probs.iter().map(|p| (p - largest).exp()).collect()
        }
    };
    let probs: Vec<Vec<f64>> = (0..rows).map(probs).collect();
    let mut weights = vec![1.0 / teachers as f64; teachers];
    for _ in 0..2000 {
        let mut next = vec![0.0; teachers];
        for row in &probs {
            let mixture: f64 = row.iter().zip(&weights).map(|(p, w)| p * w).sum();
            for (next, (p, w)) in next.iter_mut().zip(row.iter().zip(&weights)) {
                *next += p * w / mixture / rows as f64;
            }
        }
        let moved = next.iter().zip(&weights).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        weights = next;
        if moved < 1e-10 {
            break;
        }
    }
    normalised(weights)
}

/// The weights of a logistic regression from the teachers to the labels: `p ∝ Π_k p_k^{β_k}` with the `β` of largest likelihood
/// (and a ridge of 1e-3), negative ones set to 0, divided by their sum (LR-Ensemble on training outputs, LR-Dev-Ensemble on
/// those of the development set). If no `β` is positive all teachers count alike.
///
/// # Shapes
/// As [`mixture_weights`].
///
/// # Errors
/// As there.
///
/// ```
/// use candle_core::{Device, Tensor};
/// // The first teacher tells the classes apart, the second says nothing.
/// let teachers = [1f64, 0.].map(|z| Tensor::new(&[[z, 0.], [0., z], [0., z]], &Device::Cpu).unwrap());
/// let weights = kd_rl::rivals::pool_weights(&teachers, &Tensor::new(&[0u32, 1, 0], &Device::Cpu)?)?;
/// assert_eq!(weights, [1., 0.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn pool_weights(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Vec<f64>> {
    const RIDGE: f64 = 1e-3;
    let outputs = Outputs::new(teacher_logits, labels)?;
    let (teachers, rows) = (outputs.teachers(), outputs.labels.len());
    // Per row mean loss, its gradient and Hessian; a class that a teacher rules out counts as one in 10^13.
    let term = |teacher: usize, row: usize, class: usize| outputs.log_probs[teacher][row][class].max(-30.0);
    let at = |beta: &[f64]| {
        let mut loss = beta.iter().map(|b| 0.5 * RIDGE * b * b).sum::<f64>();
        let mut gradient: Vec<f64> = beta.iter().map(|b| RIDGE * b).collect();
        let mut hessian = vec![vec![0.0; teachers]; teachers];
        for (k, row) in hessian.iter_mut().enumerate() {
            row[k] = RIDGE;
        }
        for (row, &label) in outputs.labels.iter().enumerate() {
            let classes = outputs.log_probs[0][row].len();
            let logit = |class: usize| (0..teachers).map(|k| beta[k] * term(k, row, class)).sum::<f64>();
            let logits: Vec<f64> = (0..classes).map(logit).collect();
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|z| (z - largest).exp()).sum();
            let probs: Vec<f64> = logits.iter().map(|z| (z - largest).exp() / sum).collect();
            loss += (largest + sum.ln() - logits[label]) / rows as f64;
            let mean = |k: usize| (0..classes).map(|c| probs[c] * term(k, row, c)).sum::<f64>();
            let means: Vec<f64> = (0..teachers).map(mean).collect();
            for k in 0..teachers {
                gradient[k] += (means[k] - term(k, row, label)) / rows as f64;
                for j in 0..teachers {
                    let product = (0..classes).map(|c| probs[c] * term(k, row, c) * term(j, row, c)).sum::<f64>();
                    hessian[k][j] += (product - means[k] * means[j]) / rows as f64;
                }
            }
        }
        (loss, gradient, hessian)
    };
    let mut beta = vec![1.0 / teachers as f64; teachers];
    for _ in 0..100 {
        let (loss, gradient, hessian) = at(&beta);
        let step = solve(hessian, gradient.clone())?;
        // Newton's step, halved until it does not make things worse; the loss is convex.
        let next = (0..40).map(|halvings| {
            let size = 0.5f64.powi(halvings);
            beta.iter().zip(&step).map(|(b, s)| b - size * s).collect::<Vec<_>>()
        });
        match next.into_iter().find(|next| at(next).0 < loss) {
            Some(next) => beta = next,
            None => break,
        }
    }
    let positive: Vec<f64> = beta.into_iter().map(|b| if b > 1e-9 { b } else { 0.0 }).collect();
    if positive.iter().sum::<f64>() == 0.0 {
        return Ok(vec![1.0 / teachers as f64; teachers]);
    }
    normalised(positive)
}

/// The weights of least squared error `mean_rows |Σ_k w_k (p_k - onehot)|²`, at least 0 and of sum 1: `C⁻¹ 1 / 1ᵀ C⁻¹ 1` with the
/// matrix `C_kj` of the mean products of errors (Bates & Granger 1969; Perrone & Cooper 1993, there for regression). Teachers that
/// would get a negative weight are left out one after the other; a ridge of 1e-9 of the mean variance makes those that say the same
/// share their weight.
///
/// # Shapes
/// As [`mixture_weights`].
///
/// # Errors
/// As there.
///
/// ```
/// use candle_core::{Device, Tensor};
/// // Errors of the two teachers on the two rows are (1/4, 1/2) and (1/2, 1/4), alike in size: half and half.
/// let teacher = |a: f64, b: f64| Tensor::new(&[[a, 0.], [b, 0.]], &Device::Cpu);
/// let teachers = [teacher(3f64.ln(), 0.)?, teacher(0., 3f64.ln())?];
/// let weights = kd_rl::rivals::covariance_weights(&teachers, &Tensor::new(&[0u32, 0], &Device::Cpu)?)?;
/// assert!((weights[0] - 0.5).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn covariance_weights(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Vec<f64>> {
    let outputs = Outputs::new(teacher_logits, labels)?;
    let (teachers, rows) = (outputs.teachers(), outputs.labels.len());
    let error = |teacher: usize, row: usize| -> Vec<f64> {
        let gold = |class: usize| f64::from(u8::from(class == outputs.labels[row]));
        outputs.log_probs[teacher][row].iter().enumerate().map(|(class, p)| p.exp() - gold(class)).collect()
    };
    let mut products = vec![vec![0.0; teachers]; teachers];
    for row in 0..rows {
        let errors: Vec<Vec<f64>> = (0..teachers).map(|k| error(k, row)).collect();
        for k in 0..teachers {
            for j in 0..teachers {
                let product: f64 = errors[k].iter().zip(&errors[j]).map(|(a, b)| a * b).sum();
                products[k][j] += product / rows as f64;
            }
        }
    }
    let trace: f64 = (0..teachers).map(|k| products[k][k]).sum();
    if trace == 0.0 {
        return Ok(vec![1.0 / teachers as f64; teachers]); // nobody is ever wrong
    }
    for (k, row) in products.iter_mut().enumerate() {
        row[k] += 1e-9 * trace / teachers as f64;
    }
    let mut kept: Vec<usize> = (0..teachers).collect();
    loop {
        let of_kept = kept.iter().map(|&k| kept.iter().map(|&j| products[k][j]).collect()).collect();
        let solution = solve(of_kept, vec![1.0; kept.len()])?;
        let total: f64 = solution.iter().sum();
        let lowest = (0..kept.len()).min_by(|&a, &b| (solution[a] / total).total_cmp(&(solution[b] / total)));
        match lowest {
            Some(lowest) if solution[lowest] / total < 0.0 && kept.len() > 1 => {
                kept.remove(lowest);
            }
            _ => {
                let mut weights = vec![0.0; teachers];
                for (&k, value) in kept.iter().zip(&solution) {
                    weights[k] = value / total;
                }
                return normalised(weights);
            }
        }
    }
}

fn normalised(weights: Vec<f64>) -> Result<Vec<f64>> {
    let sum: f64 = weights.iter().sum();
    if !(sum.is_finite() && sum > 0.0) {
        bail!("the fitted weights {weights:?} do not sum to a number above 0");
    }
    Ok(weights.into_iter().map(|weight| weight / sum).collect())
}
