//! The step that all teachers agree on.

use candle_core::{DType, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::model::{Mode, Student};
use kd_core::ops;
use kd_core::weighting::TeacherWeighting;
use serde_json::{Value, json};

use crate::reinforced::teacher_logits;

/// The weights, alike on all rows, whose mean gradient on the student's logits is shortest:
/// `min ½ |Σ_k w_k g_k|²` over `0 ≤ w_k ≤ cap`, `Σ w_k = 1`, with `g_k = softmax(student / T) - softmax(teacher_k / T)` of all rows
/// (AE-KD, Du et al. 2020: multiple gradient descent, with a cap on how much a teacher may count; theirs is 0.6). `cap = 1/K` is
/// all alike, `cap = 1` lets one teacher speak alone. The authors' code takes the mean of a teacher's gradients over the batch
/// first, in which rows of different classes cancel; here rows stay apart, as in the bound that multiple gradient descent has
/// for shared representations (Sener & Koltun 2018).
///
/// # Shapes
/// - `student_logits`: `(rows, classes)` float; `teacher_logits`: the same for each teacher
/// - returns one weight for each teacher
///
/// # Errors
/// If there are no teachers or rows, shapes differ, a gradient is not finite, `cap` is not in `[1/K, 1]`, or the temperature is
/// not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// // One teacher pulls up as far as the other pulls down: together they leave the student where it is.
/// let logits = |z: f64| Tensor::new(&[[z, 0.]], &Device::Cpu).unwrap();
/// let weights = kd_rl::rivals::consensus_weights(&logits(0.), &[logits(1.), logits(-1.)], 1.0, 1.0)?;
/// assert!((weights[0] - 0.5).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn consensus_weights(
    student_logits: &Tensor,
    teacher_logits: &[Tensor],
    temperature: f64,
    cap: f64,
) -> Result<Vec<f64>> {
    let teachers = teacher_logits.len();
    if teachers == 0 || student_logits.dims2()?.0 == 0 {
        bail!("a consensus needs teachers and rows, found {teachers} teachers and {:?}", student_logits.dims());
    }
    if !(temperature.is_finite() && temperature > 0.0) {
        bail!("consensus: temperature {temperature}, expected a finite value above 0");
    }
    check_cap(cap, teachers)?;
    let probs = |logits: &Tensor| ops::softmax(&(logits.detach().to_dtype(DType::F64)? / temperature)?);
    let student = probs(student_logits)?;
    let mut gradients = Vec::with_capacity(teachers);
    for (idx, logits) in teacher_logits.iter().enumerate() {
        if logits.dims() != student_logits.dims() {
            bail!("teacher {idx}: expected logits of shape {:?}, found {:?}", student_logits.dims(), logits.dims());
        }
        gradients.push((&student - probs(logits)?)?.flatten_all()?);
    }
    let gradients = Tensor::stack(&gradients, 0)?; // (teachers, rows · classes)
    let products = gradients.matmul(&gradients.t()?)?.to_vec2::<f64>()?;
    if products.iter().flatten().any(|product| !product.is_finite()) {
        bail!("consensus: expected gradients of finite numbers");
    }
    let trace: f64 = (0..teachers).map(|k| products[k][k]).sum();
    let mut weights = vec![1.0 / teachers as f64; teachers];
    if trace > 0.0 {
        // Projected gradient descent: the trace bounds the curvature, the problem is convex and small.
        for _ in 0..2000 {
            let slope = |k: usize| products[k].iter().zip(&weights).map(|(a, w)| a * w).sum::<f64>();
            let moved = (0..teachers).map(|k| weights[k] - slope(k) / trace).collect::<Vec<_>>();
            weights = project(&moved, cap);
        }
    }
    Ok(weights)
}

/// The nearest point with `0 ≤ w_k ≤ cap` and sum 1: `clamp(x_k - shift, 0, cap)`, the shift by bisection.
fn project(point: &[f64], cap: f64) -> Vec<f64> {
    let at = |shift: f64| -> Vec<f64> { point.iter().map(|x| (x - shift).clamp(0.0, cap)).collect() };
    let lowest = point.iter().copied().fold(f64::INFINITY, f64::min) - 1.0;
    let highest = point.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut low, mut high) = (lowest, highest);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if at(middle).iter().sum::<f64>() > 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let weights = at(0.5 * (low + high));
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn check_cap(cap: f64, teachers: usize) -> Result<()> {
    let least = 1.0 / teachers as f64;
    if !(cap >= least - 1e-9 && cap <= 1.0) {
        bail!("`cap`: expected a number in [{least}, 1] with {teachers} teachers, found {cap}");
    }
    Ok(())
}

/// [`consensus_weights`] of every batch, for what the student says of it before its step. That is one more forward pass of
/// the student, without dropout.
pub struct Consensus<'a> {
    student: &'a dyn Student,
    temperature: f64,
    cap: f64,
}

impl std::fmt::Debug for Consensus<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { temperature, cap, .. } = self;
        f.debug_struct("Consensus").field("temperature", temperature).field("cap", cap).finish_non_exhaustive()
    }
}

impl<'a> Consensus<'a> {
    /// For the student in training; `temperature` is that of its loss.
    pub fn new(student: &'a dyn Student, temperature: f64, cap: f64) -> Self {
        Self { student, temperature, cap }
    }
}

impl TeacherWeighting for Consensus<'_> {
    fn weigh(&mut self, batch: &Batch, _number: usize) -> Result<Tensor> {
        let output = self.student.forward_batch(batch, Mode::Eval)?;
        let teachers = teacher_logits(batch)?;
        super::every_row(batch, &consensus_weights(output.logits()?, &teachers, self.temperature, self.cap)?)
    }

    fn describe(&self) -> Value {
        json!({ "consensus": { "temperature": self.temperature, "cap": self.cap } })
    }
}
