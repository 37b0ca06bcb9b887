//! AdamW in one pass, and the norm of all gradients.
//!
//! Candle's own AdamW makes a dozen temporaries per variable; here weight, gradient and both moments are
//! read once and written once (f32 on the CPU), or updated by ordinary tensor operations elsewhere.
//! Of an embedding table only the rows with a gradient need be read: [`AdamW::step_sparse`].

mod update;

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::update::{All, Rows, Rule};
use crate::ops::embedding::SparseGradient;

/// Values per task; fixed, so that no result depends on the number of threads.
const CHUNK: usize = 1 << 14;

/// Settings of [`AdamW`].
///
/// | field          | default | range        | source                         |
/// |----------------|---------|--------------|--------------------------------|
/// | `lr`           | –       | ≥ 0          | peak rate; a schedule scales it |
/// | `beta1`        | 0.9     | [0, 1)       | Kingma & Ba 2015               |
/// | `beta2`        | 0.999   | [0, 1)       | Kingma & Ba 2015               |
/// | `eps`          | 1e-8    | > 0          | Kingma & Ba 2015               |
/// | `weight_decay` | 0.01    | ≥ 0          | Devlin et al. 2019; 0 is Adam  |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay per step and unit of learning rate; not applied to biases and norms.
    pub weight_decay: f64,
}

impl AdamWConfig {
    /// The defaults of the table with a learning rate.
    pub fn with_lr(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }

    fn check(&self) -> crate::Result<()> {
        let wrong =
            |field, expected, found: f64| Err(crate::Error::Config { field, expected, found: found.to_string() });
        match *self {
            Self { lr, .. } if !(lr.is_finite() && lr >= 0.0) => wrong("lr", "a finite rate of at least 0", lr),
            Self { beta1, .. } if !(0.0..1.0).contains(&beta1) => wrong("beta1", "a value in [0, 1)", beta1),
            Self { beta2, .. } if !(0.0..1.0).contains(&beta2) => wrong("beta2", "a value in [0, 1)", beta2),
            Self { eps, .. } if !(eps.is_finite() && eps > 0.0) => wrong("eps", "a finite value above 0", eps),
            Self { weight_decay, .. } if !(weight_decay.is_finite() && weight_decay >= 0.0) => {
                wrong("weight_decay", "a finite value of at least 0", weight_decay)
            }
            _ => Ok(()),
        }
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019) over named variables.
///
/// `m ← β₁m + (1-β₁)g`, `v ← β₂v + (1-β₂)g²`, `θ ← θ - lr·λ·θ - lr · m̂ / (√v̂ + ε)` with `m̂ = m / (1-β₁ᵗ)` and
/// `v̂ = v / (1-β₂ᵗ)`.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    /// Updates made, `t` of the formula.
    updates: usize,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    decay: bool,
    moments: Moments,
}

#[derive(Debug)]
enum Moments {
    Host { m: Vec<f32>, v: Vec<f32> },
    Tensors { m: Tensor, v: Tensor },
}

/// Whether weight decay leaves a variable alone: biases and the scales of norms.
fn is_exempt(name: &str, var: &Var) -> bool {
    var.rank() < 2 || name.ends_with("bias")
}

impl AdamW {
    /// An optimiser of `named` with fresh moments.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: AdamWConfig) -> crate::Result<Self> {
        config.check()?;
        let slots = named
            .into_iter()
            .map(|(name, var)| {
                let moments = if var.dtype() == DType::F32 && var.device().is_cpu() {
                    Moments::Host { m: vec![0.0; var.elem_count()], v: vec![0.0; var.elem_count()] }
                } else {
                    Moments::Tensors { m: var.zeros_like()?, v: var.zeros_like()? }
                };
                Ok(Slot { decay: !is_exempt(&name, &var), name, var, moments })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, updates: 0, slots })
    }

    /// The variables and their names.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), &slot.var))
    }

    /// Updates made so far.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// One update with the gradients times `gradient_scale` (see [`clip_scale`]) at learning rate `lr · lr_factor`.
    /// A variable without a gradient keeps its value and moments.
    pub fn step(&mut self, gradients: &GradStore, lr_factor: f64, gradient_scale: f64) -> Result<()> {
        self.step_sparse(gradients, &[], lr_factor, gradient_scale)
    }

    /// As [`AdamW::step`], with gradients of some rows for the variables that `sparse` names.
    ///
    /// The update of these variables is lazy, as in PyTorch's `SparseAdam`: only rows with a gradient move, only their
    /// moments and weights decay, and the bias correction counts all updates. So a row that is rarely read
    /// keeps its momentum until it is read again, where the dense update would have used it up. Where every row has a gradient the
    /// two are the same.
    ///
    /// # Errors
    /// If a name is unknown, the shapes differ, or the variable has an ordinary gradient too; then nothing has changed.
    pub fn step_sparse(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        lr_factor: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        for (name, rows) in sparse {
            let Some(slot) = self.slots.iter().find(|slot| slot.name == *name) else {
                bail!("adamw: no variable `{name}` for a sparse gradient")
            };
            if slot.var.dims() != rows.dims() {
                bail!("adamw: `{name}` has shape {:?}, found a gradient for {:?}", slot.var.dims(), rows.dims());
            }
            if gradients.get(slot.var.as_tensor()).is_some() {
                bail!("adamw: `{name}` has a sparse and a dense gradient; add them with `to_dense`");
            }
        }
        self.updates += 1;
        let AdamWConfig { lr, beta1, beta2, eps, weight_decay } = self.config;
        let lr = lr * lr_factor;
        let updates = i32::try_from(self.updates).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - beta1.powi(updates), 1.0 - beta2.powi(updates));
        for Slot { name, var, decay, moments } in &mut self.slots {
            let rows = sparse.iter().find(|(wanted, _)| wanted == name).map(|(_, rows)| *rows);
            let gradient = match (rows, gradients.get(var.as_tensor())) {
                (Some(rows), _) if rows.ids().is_empty() => continue,
                (Some(rows), _) => rows.values(),
                (None, Some(gradient)) => gradient,
                (None, None) => continue,
            };
            let decay = if *decay { 1.0 - lr * weight_decay } else { 1.0 };
            match moments {
                Moments::Host { m, v } => {
                    let rule = Rule {
                        gradient_scale: gradient_scale as f32,
                        keep: [beta1 as f32, beta2 as f32],
                        take: [(1.0 - beta1) as f32, (1.0 - beta2) as f32],
                        step: (lr / correction1) as f32,
                        root: (1.0 / correction2.sqrt()) as f32,
                        eps: eps as f32,
                        decay: decay as f32,
                    };
                    let (moments, gradient) =
                        (Mutex::new((m.as_mut_slice(), v.as_mut_slice())), gradient.contiguous()?);
                    match rows {
                        None => var.inplace_op2(&gradient, &All { moments, rule })?,
                        Some(rows) => {
                            let (ids, width) = (rows.ids(), rows.dims()[1]);
                            var.inplace_op2(&gradient, &Rows { moments, rule, ids, width })?;
                        }
                    }
                }
                Moments::Tensors { m, v } => {
                    let places = rows.map(|rows| rows.places()).transpose()?;
                    let read = |tensor: &Tensor| match &places {
                        Some(places) => tensor.gather(places, 0),
                        None => Ok(tensor.clone()),
                    };
                    let gradient = (gradient * gradient_scale)?;
                    let new_m = ((read(m)? * beta1)? + (&gradient * (1.0 - beta1))?)?.detach();
                    let new_v = ((read(v)? * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?.detach();
                    let root = ((&new_v / correction2)?.sqrt()? + eps)?;
                    let change = ((&new_m * (lr / correction1))? / root)?;
                    let new = ((read(&var.as_detached_tensor())? * decay)? - change)?.detach();
                    // Copies, since `state` may have handed the old ones out.
                    match &places {
                        None => {
                            (*m, *v) = (new_m, new_v);
                            var.set(&new)?;
                        }
                        Some(places) => {
                            *m = m.scatter(places, &new_m, 0)?;
                            *v = v.scatter(places, &new_v, 0)?;
                            var.scatter_set(places, &new, 0)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Both moments of every variable, as `NAME.m` and `NAME.v` in the variable's shape.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for Slot { name, var, moments, .. } in &self.slots {
            let (m, v) = match moments {
                Moments::Host { m, v } => (
                    Tensor::from_slice(m, var.shape(), &Device::Cpu)?,
                    Tensor::from_slice(v, var.shape(), &Device::Cpu)?,
                ),
                Moments::Tensors { m, v } => (m.clone(), v.clone()),
            };
            state.insert(format!("{name}.m"), m);
            state.insert(format!("{name}.v"), v);
        }
        Ok(state)
    }

    /// Takes back what [`AdamW::state`] gave, after `updates` updates.
    ///
    /// # Errors
    /// If a moment is missing or has another shape than its variable.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: usize) -> Result<()> {
        for Slot { name, var, moments, .. } in &mut self.slots {
            let get = |moment: &str| -> Result<Tensor> {
                let key = format!("{name}.{moment}");
                match state.get(&key) {
                    Some(tensor) if tensor.dims() == var.dims() => Ok(tensor.clone()),
                    Some(tensor) => bail!("`{key}` has shape {:?}, expected {:?}", tensor.dims(), var.dims()),
                    None => bail!("`{key}` is missing"),
                }
            };
            let (new_m, new_v) = (get("m")?, get("v")?);
            match moments {
                Moments::Host { m, v } => {
                    *m = new_m.flatten_all()?.to_vec1()?;
                    *v = new_v.flatten_all()?.to_vec1()?;
                }
                Moments::Tensors { m, v } => {
                    *m = new_m.to_dtype(var.dtype())?.to_device(var.device())?;
                    *v = new_v.to_dtype(var.dtype())?.to_device(var.device())?;
                }
            }
        }
        self.updates = updates;
        Ok(())
    }
}

/// Euclidean norm of all gradients of `named` together; that of sparse ones is [`SparseGradient::norm`].
pub fn gradient_norm<'a>(named: impl IntoIterator<Item = &'a Var>, gradients: &GradStore) -> Result<f64> {
    let mut sum = 0.0;
    for var in named {
        if let Some(gradient) = gradients.get(var.as_tensor()) {
            sum += sum_of_squares(gradient)?;
        }
    }
    Ok(sum.sqrt())
}

/// The factor that brings a gradient of norm `norm` down to `max_norm`, and 1 below it
/// (as PyTorch's `clip_grad_norm_`, which adds 1e-6 to the divisor).
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

/// Sum of squares, in f64 over chunks of fixed size, so that it is the same for any number of threads.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            let partial = |values: &[f32]| {
                let mut lanes = [0f64; 8];
                let whole = values.chunks_exact(8);
                let rest: f64 = whole.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                for values in whole {
                    for (lane, &x) in lanes.iter_mut().zip(values) {
                        *lane += f64::from(x) * f64::from(x);
                    }
                }
                lanes.iter().sum::<f64>() + rest
            };
            let partials: Vec<f64> = values[start..end].par_chunks(CHUNK).map(partial).collect();
            return Ok(partials.iter().sum());
        }
    }
    tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: f64, dtype: DType, name: &str, config: AdamWConfig) -> (Var, AdamW) {
        let var = Var::from_tensor(&Tensor::new(&[[value]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()).unwrap();
        (var.clone(), AdamW::new(vec![(name.to_string(), var)], config).unwrap())
    }

    fn value(var: &Var) -> f64 {
        var.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()[0]
    }

    #[test]
    fn two_steps_by_hand() {
        // loss = θ², g = 2θ, θ₀ = 1, lr 0.1, λ 0.5: after bias correction the first step is sign-like,
        // θ₁ = 1·(1 - 0.05) - 0.1·2/(2 + 1e-8) = 0.85 (to 5e-10).
        // g₂ = 1.7: m̂ = (0.9·0.2 + 0.1·1.7) / 0.19 = 0.35/0.19, v̂ = (0.999·0.004 + 0.001·2.89) / 0.001999,
        // θ₂ = 0.85·0.95 - 0.1 · m̂ / √v̂.
        let expected = 0.85 * 0.95 - 0.1 * (0.35 / 0.19) / (0.006886f64 / 0.001999).sqrt();
        for dtype in [DType::F32, DType::F64] {
            let (var, mut adamw) = one(1.0, dtype, "w", AdamWConfig { weight_decay: 0.5, ..AdamWConfig::with_lr(0.1) });
            for _ in 0..2 {
                let gradients = var.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                adamw.step(&gradients, 1.0, 1.0).unwrap();
            }
            assert!((value(&var) - expected).abs() < 1e-6, "{dtype:?}: {} {expected}", value(&var));
        }
    }

    #[test]
    fn biases_are_not_decayed() {
        let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::with_lr(0.1) };
        for (name, expected) in [("w", 0.95), ("layer.bias", 1.0)] {
            let (var, mut adamw) = one(1.0, DType::F32, name, config);
            // (θ - 1)² at θ = 1: a gradient of 0 that is there; Candle leaves θ · 0 out of the graph.
            let gradients = (var.as_tensor() - 1.0).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
            adamw.step(&gradients, 1.0, 1.0).unwrap();
            assert!((value(&var) - expected).abs() < 1e-6, "{name}: {}", value(&var));
        }
    }

    #[test]
    fn restored_state_goes_on_with_the_same_bytes() {
        let run = |cut: usize| {
            let (var, mut adamw) = one(1.0, DType::F32, "w", AdamWConfig::with_lr(0.1));
            for step in 0..5 {
                if step == cut {
                    let (state, updates) = (adamw.state().unwrap(), adamw.updates());
                    adamw = AdamW::new(vec![("w".to_string(), var.clone())], AdamWConfig::with_lr(0.1)).unwrap();
                    adamw.restore(&state, updates).unwrap();
                }
                let gradients = var.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                adamw.step(&gradients, 1.0, 1.0).unwrap();
            }
            value(&var)
        };
        assert_eq!(run(3), run(usize::MAX));
    }

    #[test]
    fn the_norm_spans_all_variables_and_clipping_keeps_small_ones() {
        let a = Var::new(&[[3f32]], &Device::Cpu).unwrap();
        let b = Var::new(&[[4f32]], &Device::Cpu).unwrap();
        let loss = ((a.sqr().unwrap() + b.sqr().unwrap()).unwrap() * 0.5).unwrap().sum_all().unwrap();
        let norm = gradient_norm([&a, &b], &loss.backward().unwrap()).unwrap();
        assert_eq!(norm, 5.0);
        assert_eq!(clip_scale(norm, 6.0), 1.0);
        assert!((clip_scale(norm, 1.0) - 0.2).abs() < 1e-6);
    }

    #[test]
    fn a_rate_that_is_no_number_is_refused() {
        let error = AdamW::new(vec![], AdamWConfig::with_lr(f64::NAN)).unwrap_err().to_string();
        assert_eq!(error, "lr: expected a finite rate of at least 0, found NaN");
    }
}
