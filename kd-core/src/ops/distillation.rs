//! What a student's logits cost against a label and against a teacher's logits, per row.
//!
//! ```text
//! hard = log Σ_c e^(s_c) - s_label                          d hard / d s = softmax(s) - [c = label]
//! soft = T² Σ_c p_c (log p_c - log q_c)                     d soft / d s = T (q - p)
//!        with p = softmax(t / T), q = softmax(s / T)        (Hinton et al. 2015, §2)
//! ```
//!
//! On the CPU in f32 and f64 both come from one visit to each row, without tensors of probabilities: the forward pass
//! keeps three logarithms per row, the backward pass takes the probabilities from them again. The teacher is
//! detached. A class to which the teacher gives probability 0 adds nothing, whatever the student says of it.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::ops::distillation::distillation_rows;
//! let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
//! let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
//! let (hard, soft) = distillation_rows(&student, &teacher, &Tensor::new(&[1u32], &Device::Cpu)?, 1.0)?;
//! assert!((hard.to_vec1::<f64>()?[0] - 2f64.ln()).abs() < 1e-12);
//! assert!((soft.to_vec1::<f64>()?[0] - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::backward::hand_over;
use super::cpu::{self, Float, for_float};

/// Cross-entropy against labels and `T² KL(teacher ‖ student)` of each row: two tensors `(rows,)`, in nats.
///
/// # Shapes
/// - `student`, `teacher`: `(rows, classes)` float, logits; `labels`: `(rows,)` u32
/// - differentiable in `student` only
///
/// # Errors
/// If shapes differ, a label is not below `classes`, or `temperature` is not finite and positive. On a CUDA device with
/// kernels labels are not read back: the loss of a row whose label is no class is NaN.
pub fn distillation_rows(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    temperature: f64,
) -> Result<(Tensor, Tensor)> {
    let parts = apply(student, Some(teacher), Some(labels), temperature)?;
    Ok((parts.get(0)?, parts.get(1)?))
}

/// Cross-entropy against labels of each row, `(rows,)`; shapes and errors as in [`distillation_rows`].
pub fn cross_entropy_rows(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    apply(logits, None, Some(labels), 1.0)?.get(0)
}

/// `T² KL(teacher ‖ student)` of each row, `(rows,)`; shapes and errors as in [`distillation_rows`].
pub fn kl_divergence_rows(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    apply(student, Some(teacher), None, temperature)?.get(0)
}

/// The parts that are asked for, `(parts, rows)`.
fn apply(student: &Tensor, teacher: Option<&Tensor>, labels: Option<&Tensor>, temperature: f64) -> Result<Tensor> {
    let (rows, classes) = student.dims2()?;
    if !(temperature.is_finite() && temperature > 0.0) {
        bail!("distillation: temperature {temperature}, expected a finite value above 0");
    }
    if let Some(teacher) = teacher
        && (teacher.dims() != [rows, classes] || teacher.dtype() != student.dtype())
    {
        bail!(
            "distillation: expected teacher logits {:?} of {:?}, found {:?} of {:?}",
            [rows, classes],
            student.dtype(),
            teacher.dims(),
            teacher.dtype()
        );
    }
    if let Some(labels) = labels
        && (labels.dims() != [rows] || labels.dtype() != DType::U32)
    {
        bail!("distillation: expected labels {:?} of u32, found {:?} of {:?}", [rows], labels.dims(), labels.dtype());
    }
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernel(student) {
        return super::cuda::distillation(student, teacher, labels, temperature);
    }
    let ids = labels.map(Tensor::to_vec1::<u32>).transpose()?;
    if let Some(label) = ids.iter().flatten().find(|&&label| label as usize >= classes) {
        bail!("distillation: label {label} with {classes} classes");
    }
    let teacher = teacher.map(Tensor::detach);
    if classes == 0 {
        let parts = usize::from(teacher.is_some()) + usize::from(labels.is_some());
        return Tensor::zeros((parts, rows), student.dtype(), student.device());
    }
    if cpu::has_kernel(student) {
        let teacher = teacher.map(|teacher| teacher.contiguous()).transpose()?;
        student.contiguous()?.apply_op1(Distillation { teacher, labels: ids, temperature, rows: Mutex::default() })
    } else {
        composed(student, teacher.as_ref(), labels, temperature)
    }
}

/// The same from Candle's operations.
fn composed(student: &Tensor, teacher: Option<&Tensor>, labels: Option<&Tensor>, temperature: f64) -> Result<Tensor> {
    let mut parts = Vec::new();
    if let Some(labels) = labels {
        let log_probs = super::log_softmax(student)?;
        parts.push(log_probs.gather(&labels.to_device(student.device())?.unsqueeze(1)?, 1)?.squeeze(1)?.neg()?);
    }
    if let Some(teacher) = teacher {
        let log_q = super::log_softmax(&(student / temperature)?)?;
        let log_p = super::log_softmax(&(teacher / temperature)?)?;
        let p = log_p.exp()?;
        let terms = (&p * (log_p - log_q)?)?;
        let terms = p.ne(0f64)?.where_cond(&terms, &terms.zeros_like()?)?;
        parts.push((terms.sum(D::Minus1)? * (temperature * temperature))?);
    }
    Tensor::stack(&parts, 0)
}

/// Student logits `(rows, classes)` → `(parts, rows)`.
struct Distillation {
    teacher: Option<Tensor>,
    labels: Option<Vec<u32>>,
    temperature: f64,
    /// What the backward pass needs of each row; in f64, which holds every f32.
    rows: Mutex<Vec<Row<f64>>>,
}

/// A row's parts, and how its probabilities are had again: `e^(x - max) · scale`.
#[derive(Clone, Copy)]
struct Row<T> {
    hard: T,
    soft: T,
    max: T,
    /// `1 / Σ e^(s - max)`
    scale: T,
    /// `1 / Σ e^((s - max) / T)`
    soft_scale: T,
    teacher_max: T,
    /// `1 / Σ e^((t - teacher_max) / T)`
    teacher_scale: T,
}

/// Values of a row that loops take together.
const LANES: usize = 16;

/// A row in whole lanes, with -∞, the logit of probability 0, in what is too many.
#[inline(always)]
fn lanes<T: Float>(row: &[T]) -> impl Iterator<Item = [T; LANES]> {
    row.chunks(LANES).map(|chunk| match chunk.try_into() {
        Ok(whole) => whole,
        Err(_) => {
            let mut part = [T::NEG_INFINITY; LANES];
            part[..chunk.len()].copy_from_slice(chunk);
            part
        }
    })
}

#[inline(always)]
fn total<T: Float>(lanes: [T; LANES]) -> T {
    let mut total = T::zero();
    lanes.into_iter().for_each(|x| total += x);
    total
}

/// `1 / T` in the type of the logits.
fn inverse<T: Float>(temperature: f64) -> T {
    T::from_f64(1.0 / temperature)
}

#[inline(always)]
fn forward_row<T: Float>(student: &[T], teacher: Option<&[T]>, label: Option<u32>, temperature: f64) -> Row<T> {
    let zero = T::zero();
    let max = cpu::max(student);
    let mut row =
        Row { hard: zero, soft: zero, max, scale: zero, soft_scale: zero, teacher_max: zero, teacher_scale: zero };
    if let Some(label) = label {
        let mut sums = [zero; LANES];
        for student in lanes(student) {
            for (sum, s) in sums.iter_mut().zip(student) {
                *sum += (s - max).exp();
            }
        }
        let sum = total(sums);
        row.hard = sum.ln() - (student[label as usize] - max);
        row.scale = T::one() / sum;
    }
    if let Some(teacher) = teacher {
        row.teacher_max = cpu::max(teacher);
        let inverse = inverse::<T>(temperature);
        let (mut student_sums, mut teacher_sums, mut gaps) = ([zero; LANES], [zero; LANES], [zero; LANES]);
        for (student, teacher) in lanes(student).zip(lanes(teacher)) {
            for lane in 0..LANES {
                let s = (student[lane] - max) * inverse;
                let t = (teacher[lane] - row.teacher_max) * inverse;
                let p = t.exp();
                student_sums[lane] += s.exp();
                teacher_sums[lane] += p;
                // Where p is 0 the difference may be infinite.
                gaps[lane] += if p > zero { p * (t - s) } else { zero };
            }
        }
        let (student_sum, teacher_sum) = (total(student_sums), total(teacher_sums));
        row.soft_scale = T::one() / student_sum;
        row.teacher_scale = T::one() / teacher_sum;
        let divergence = total(gaps) * row.teacher_scale + (student_sum.ln() - teacher_sum.ln());
        row.soft = divergence * T::from_f64(temperature * temperature);
    }
    row
}

/// Writes the gradient of a row of logits from those of its parts.
#[inline(always)]
fn backward_row<T: Float>(
    d_student: &mut [T],
    student: &[T],
    teacher: Option<&[T]>,
    label: Option<u32>,
    temperature: f64,
    row: Row<T>,
    [d_hard, d_soft]: [T; 2],
) {
    let inverse = inverse::<T>(temperature);
    let hard_scale = row.scale * d_hard;
    let d_soft = d_soft * T::from_f64(temperature);
    let (soft_scale, teacher_scale) = (row.soft_scale * d_soft, row.teacher_scale * d_soft);
    let mut write = |at: usize, values: [T; LANES]| {
        let out = &mut d_student[at * LANES..];
        match out.first_chunk_mut() {
            Some(whole) => *whole = values,
            None => out.copy_from_slice(&values[..out.len()]),
        }
    };
    match (label, teacher) {
        (label, Some(teacher)) => {
            for (at, (mut student, teacher)) in lanes(student).zip(lanes(teacher)).enumerate() {
                for (s, t) in student.iter_mut().zip(teacher) {
                    let x = *s - row.max;
                    let q = (x * inverse).exp() * soft_scale;
                    let p = ((t - row.teacher_max) * inverse).exp() * teacher_scale;
                    *s = if label.is_some() { q - p + x.exp() * hard_scale } else { q - p };
                }
                write(at, student);
            }
        }
        (_, None) => {
            for (at, mut student) in lanes(student).enumerate() {
                for s in &mut student {
                    *s = (*s - row.max).exp() * hard_scale;
                }
                write(at, student);
            }
        }
    }
    if let Some(label) = label {
        d_student[label as usize] -= d_hard;
    }
}

impl Distillation {
    fn label(&self, row: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[row])
    }

    fn forward<T: Float>(&self, student: &[T], teacher: Option<&[T]>, (rows, classes): (usize, usize)) -> Vec<Row<T>> {
        let one = |row: usize| {
            let at = row * classes..(row + 1) * classes;
            let (student, teacher) = (&student[at.clone()], teacher.map(|teacher| &teacher[at]));
            cpu::vectorized(
                #[inline(always)]
                || forward_row(student, teacher, self.label(row), self.temperature),
            )
        };
        let per_task = cpu::rows_per_task(classes);
        if rows <= per_task {
            (0..rows).map(one).collect()
        } else {
            (0..rows).into_par_iter().with_min_len(per_task).map(one).collect()
        }
    }

    fn backward<T: Float>(&self, student: &[T], teacher: Option<&[T]>, classes: usize, gradient: &[T]) -> Vec<T> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the loop writes every row.
        let mut d_student = unsafe { cpu::uninit::<T>(student.len()) };
        cpu::par_rows(
            &mut d_student,
            classes,
            #[inline(always)]
            |first_row, d_student| {
                for (idx, d_student) in d_student.chunks_exact_mut(classes).enumerate() {
                    let row = first_row + idx;
                    let at = row * classes..(row + 1) * classes;
                    // The parts that there are, hard before soft.
                    let d = match (&self.labels, teacher) {
                        (Some(_), Some(_)) => [gradient[row], gradient[rows.len() + row]],
                        (Some(_), None) => [gradient[row], T::zero()],
                        (None, _) => [T::zero(), gradient[row]],
                    };
                    let (student, teacher) = (&student[at.clone()], teacher.map(|t| &t[at]));
                    let sums = rows[row].map(T::from_f64);
                    backward_row(d_student, student, teacher, self.label(row), self.temperature, sums, d);
                }
            },
        );
        d_student
    }
}

impl<T> Row<T> {
    #[inline(always)]
    fn map<U>(self, f: impl Fn(T) -> U) -> Row<U> {
        Row {
            hard: f(self.hard),
            soft: f(self.soft),
            max: f(self.max),
            scale: f(self.scale),
            soft_scale: f(self.soft_scale),
            teacher_max: f(self.teacher_max),
            teacher_scale: f(self.teacher_scale),
        }
    }
}

impl CustomOp1 for Distillation {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, classes) = layout.shape().dims2()?;
        for_float!(storage.dtype(), T => {
            let student = cpu::slice::<T>(storage, layout)?;
            let teacher = self.teacher.as_ref().map(cpu::values::<T>).transpose()?;
            let found = self.forward(student, teacher.as_deref(), (rows, classes));
            let mut parts = Vec::with_capacity(2 * rows);
            if self.labels.is_some() {
                parts.extend(found.iter().map(|row| row.hard));
            }
            if self.teacher.is_some() {
                parts.extend(found.iter().map(|row| row.soft));
            }
            let shape = Shape::from((usize::from(self.labels.is_some()) + usize::from(self.teacher.is_some()), rows));
            let found = found.into_iter().map(|row| row.map(|x| x.to_f64())).collect();
            *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok((cpu::storage(parts), shape))
        })
    }

    fn bwd(&self, student: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (gradient, classes) = (gradient.contiguous()?, student.dim(1)?);
        for_float!(student.dtype(), T => {
            let teacher = self.teacher.as_ref().map(cpu::values::<T>).transpose()?;
            let d = self.backward::<T>(&cpu::values(student)?, teacher.as_deref(), classes, &cpu::values(&gradient)?);
            Ok(hand_over(student, cpu::tensor(d, student.shape())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};
    use candle_core::{Device, Var};

    #[test]
    fn kernel_and_composition_agree() {
        for (rows, classes) in [(1, 1), (5, 9), (3, 16), (4, 50), (0, 3)] {
            let student = Var::from_tensor(&(random(1, (rows, classes)).unwrap() * 5.0).unwrap()).unwrap();
            let teacher = (random(2, (rows, classes)).unwrap() * 5.0).unwrap();
            let labels: Vec<u32> = (0..rows).map(|row| (row % classes) as u32).collect();
            let labels = Tensor::from_vec(labels, rows, &Device::Cpu).unwrap();
            for temperature in [1.0, 3.0] {
                for (teacher, labels) in
                    [(None, Some(&labels)), (Some(&teacher), None), (Some(&teacher), Some(&labels))]
                {
                    let found = apply(&student, teacher, labels, temperature).unwrap();
                    let expected = composed(&student, teacher, labels, temperature).unwrap();
                    assert_close(&found, &expected, 1e-12, 1e-12).unwrap();
                    let weights = random(3, found.shape()).unwrap();
                    let gradient = |parts: Tensor| {
                        let loss = (parts * &weights).unwrap().sum_all().unwrap();
                        loss.backward().unwrap().get(&student).unwrap().clone()
                    };
                    if rows > 0 {
                        assert_close(&gradient(found), &gradient(expected), 1e-12, 1e-12).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_logits_stay_exact() {
        // Rows: far apart; a class that the teacher rules out, and the student too; a student that rules out what the
        // teacher says: infinite, as it is.
        let student = [[1e4f32, 0.0, -1e4], [0.0, 0.0, f32::NEG_INFINITY], [0.0, f32::NEG_INFINITY, 0.0]];
        let teacher = [[-1e4f32, 0.0, 1e4], [0.0, 0.0, f32::NEG_INFINITY], [0.0; 3]];
        let student = Var::new(&student, &Device::Cpu).unwrap();
        let teacher = Tensor::new(&teacher, &Device::Cpu).unwrap();
        let labels = Tensor::new(&[1u32, 0, 0], &Device::Cpu).unwrap();
        let (hard, soft) = distillation_rows(&student, &teacher, &labels, 2.0).unwrap();
        assert_eq!(hard.to_vec1::<f32>().unwrap(), [1e4, 2f32.ln(), 2f32.ln()]);
        assert_eq!(soft.to_vec1::<f32>().unwrap(), [4e4, 0.0, f32::INFINITY]);
        let gradients = (hard + soft).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&student).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(gradient[0], [3.0, -1.0, -2.0]); // 1 + T, -1, -T
        assert_eq!(gradient[1], [-0.5, 0.5, 0.0]);
        let nan = Tensor::new(&[[f32::NAN, 0.0, 1.0]], &Device::Cpu).unwrap();
        let one = Tensor::new(&[[0f32, 0.0, 1.0]], &Device::Cpu).unwrap();
        for (student, teacher) in [(&nan, &one), (&one, &nan)] {
            assert!(kl_divergence_rows(student, teacher, 1.0).unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let two = Tensor::zeros((2, 2), DType::F64, &Device::Cpu).unwrap();
        let three = Tensor::zeros((3, 2), DType::F64, &Device::Cpu).unwrap();
        let labels = |labels: &[u32]| Tensor::new(labels, &Device::Cpu).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(kl_divergence_rows(&two, &three, 1.0)).contains("[2, 2] of F64, found [3, 2]"));
        assert!(message(kl_divergence_rows(&two, &two, f64::NAN)).contains("temperature NaN"));
        assert!(message(cross_entropy_rows(&two, &labels(&[0, 2]))).contains("label 2 with 2 classes"));
        assert!(message(cross_entropy_rows(&two, &labels(&[0]))).contains("labels [2] of u32, found [1]"));
    }
}
