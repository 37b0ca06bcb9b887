//! Moving averages of weights.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CHUNK, ensure};
use crate::ops::cpu::vectorized;

/// Settings of [`Ema`].
///
/// | field     | default | purpose                                       | range  |
/// |-----------|---------|-----------------------------------------------|--------|
/// | `decay`   | –       | what is kept of the average at each update    | [0, 1) |
/// | `warm_up` | true    | smaller decays at first                       |        |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// What is kept of the average at each update; the average is over about `1 / (1 - decay)` updates.
    pub decay: f64,
    /// Whether update `t`, from 1, keeps at most `(1 + t) / (10 + t)`, as TensorFlow's `ExponentialMovingAverage`
    /// with a number of updates. Without it the first weights stay in the average for long.
    #[serde(default = "yes")]
    pub warm_up: bool,
}

fn yes() -> bool {
    true
}

impl EmaConfig {
    /// A decay with warm-up.
    pub fn with_decay(decay: f64) -> Self {
        Self { decay, warm_up: true }
    }
}

/// Exponential moving averages of named variables (Polyak & Juditsky 1992 average uniformly).
///
/// `a ← d·a + (1-d)·θ`, from the weights that the variables had when it was made. Averages are f32 also for
/// half-precision variables, and f64 for f64 ones.
///
/// ```
/// use candle_core::{Device, Var};
/// use kd_core::optim::{Ema, EmaConfig};
/// let weight = Var::new(&[0f32], &Device::Cpu)?;
/// let mut ema = Ema::new(vec![("weight".to_string(), weight.clone())], EmaConfig { decay: 0.75, warm_up: false })?;
/// weight.set(&weight.ones_like()?)?; // what an optimiser does
/// ema.update()?;
/// assert_eq!(ema.with_averages(|| weight.to_vec1::<f32>())??, [0.25]);
/// assert_eq!(weight.to_vec1::<f32>()?, [1.]);
/// # Ok::<(), kd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    updates: usize,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    average: Tensor,
}

fn average_dtype(var: &Var) -> DType {
    if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// A copy that shares no memory, in the dtype of averages.
fn copy(var: &Var) -> Result<Tensor> {
    var.as_detached_tensor().to_dtype(average_dtype(var))?.copy()
}

impl Ema {
    /// Averages of `named`, which start as their values.
    ///
    /// # Errors
    /// If the decay is outside its range.
    pub fn new(named: Vec<(String, Var)>, config: EmaConfig) -> crate::Result<Self> {
        ensure((0.0..1.0).contains(&config.decay), "decay", "a value in [0, 1)", config.decay)?;
        let slots = named.into_iter().map(|(name, var)| Ok(Slot { average: copy(&var)?, name, var }));
        Ok(Self { config, updates: 0, slots: slots.collect::<Result<_>>()? })
    }

    /// Updates made so far.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// Takes the variables' values into the averages; to be called after every update of the optimiser.
    pub fn update(&mut self) -> Result<()> {
        self.updates += 1;
        let updates = self.updates as f64;
        let decay = if self.config.warm_up {
            self.config.decay.min((1.0 + updates) / (10.0 + updates))
        } else {
            self.config.decay
        };
        for Slot { var, average, .. } in &mut self.slots {
            let values = var.as_detached_tensor().to_dtype(average.dtype())?.contiguous()?;
            if average.device().is_cpu() && average.dtype() == DType::F32 {
                average.inplace_op2(&values, &Towards { share: (1.0 - decay) as f32 })?;
            } else {
                *average = (&*average + ((values - &*average)? * (1.0 - decay))?)?;
            }
        }
        Ok(())
    }

    /// What `f` gives while the variables hold the averages; afterwards they hold the same bytes as before.
    ///
    /// # Errors
    /// If the values cannot be copied. What `f` returns, an error too, is the inner value.
    pub fn with_averages<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        let trained = self.slots.iter().map(|slot| slot.var.as_detached_tensor().copy()).collect::<Result<Vec<_>>>()?;
        let swapped =
            self.slots.iter().try_for_each(|slot| slot.var.set(&slot.average.to_dtype(slot.var.dtype())?.copy()?));
        let result = swapped.map(|()| f());
        for (slot, trained) in self.slots.iter().zip(&trained) {
            slot.var.set(trained)?;
        }
        result
    }

    /// Copies of the averages, as `NAME.ema` in the variable's shape, f32 or for f64 variables f64.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.slots.iter().map(|slot| Ok((format!("{}.ema", slot.name), slot.average.copy()?))).collect()
    }

    /// Takes back what [`Ema::state`] gave, after `updates` updates.
    ///
    /// # Errors
    /// If an average is missing, has another shape than its variable, or belongs to none; then nothing has changed.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: usize) -> Result<()> {
        let mut averages = Vec::with_capacity(self.slots.len());
        for Slot { name, var, .. } in &self.slots {
            let key = format!("{name}.ema");
            match state.get(&key) {
                Some(tensor) if tensor.dims() == var.dims() => {
                    averages.push(tensor.to_dtype(average_dtype(var))?.to_device(var.device())?.copy()?);
                }
                Some(tensor) => bail!("`{key}` has shape {:?}, expected {:?}", tensor.dims(), var.dims()),
                None => bail!("`{key}` is missing"),
            }
        }
        if averages.len() != state.len() {
            bail!("the state has {} averages, expected those of {} variables", state.len(), averages.len());
        }
        for (slot, average) in self.slots.iter_mut().zip(averages) {
            slot.average = average;
        }
        self.updates = updates;
        Ok(())
    }
}

/// Moves every value by a share of the way to another, in place.
struct Towards {
    share: f32,
}

impl InplaceOp2 for Towards {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn cpu_fwd(&self, averages: &mut CpuStorage, layout: &Layout, values: &CpuStorage, at: &Layout) -> Result<()> {
        let (CpuStorage::F32(averages), CpuStorage::F32(values)) = (averages, values) else {
            bail!("ema: expected f32 values for f32 averages")
        };
        let (Some((start, end)), Some((from, to))) = (layout.contiguous_offsets(), at.contiguous_offsets()) else {
            bail!("ema: expected contiguous tensors")
        };
        let share = self.share;
        let chunks = averages[start..end].par_chunks_mut(CHUNK).zip(values[from..to].par_chunks(CHUNK));
        chunks.for_each(|(averages, values)| {
            vectorized(
                #[inline(always)]
                || averages.iter_mut().zip(values).for_each(|(average, &value)| *average += share * (value - *average)),
            );
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};
    use candle_core::Device;

    fn ema(start: &Tensor, config: EmaConfig) -> (Var, Ema) {
        let var = Var::from_tensor(&start.copy().unwrap()).unwrap();
        (var.clone(), Ema::new(vec![("w".to_string(), var)], config).unwrap())
    }

    fn bits(tensor: &Tensor) -> Vec<u64> {
        let values: Vec<f64> = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f64::to_bits).collect()
    }

    #[test]
    fn three_updates_by_hand() {
        // Weights 1, then 2, 3, 4. At decay 0.5: 1.5, 2.25, 3.125. With warm-up the decays are 2/11, 3/12 and 4/13,
        // all below 0.5: 2/11 + 9/11 · 2 = 20/11; 1/4 · 20/11 + 3/4 · 3 = 119/44; 4/13 · 119/44 + 9/13 · 4 = 515/143.
        for (warm_up, expected) in [(false, 3.125), (true, 515.0 / 143.0)] {
            for dtype in [DType::F32, DType::F64, DType::BF16] {
                let start = Tensor::ones((1, 1), dtype, &Device::Cpu).unwrap();
                let (var, mut ema) = ema(&start, EmaConfig { decay: 0.5, warm_up });
                for value in [2.0, 3.0, 4.0] {
                    var.set(&(&start * value).unwrap()).unwrap();
                    ema.update().unwrap();
                }
                let expected = Tensor::new(&[[expected]], &Device::Cpu).unwrap();
                let state = ema.state().unwrap();
                assert_close(&state["w.ema"], &expected, 1e-6, 0.0).unwrap();
                let is_f64 = dtype == DType::F64;
                assert_eq!(state["w.ema"].dtype(), if is_f64 { DType::F64 } else { DType::F32 });
                assert_eq!(ema.updates(), 3);
            }
        }
    }

    #[test]
    fn weights_come_back_with_the_same_bytes_also_after_an_error() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let start = random(1, (40, 3)).unwrap().to_dtype(dtype).unwrap();
            let (var, mut ema) = ema(&start, EmaConfig::with_decay(0.9));
            var.set(&random(2, (40, 3)).unwrap().to_dtype(dtype).unwrap()).unwrap();
            ema.update().unwrap();
            let (weights, averages) = (bits(&var), bits(&ema.state().unwrap()["w.ema"]));
            let rounded = bits(&ema.state().unwrap()["w.ema"].to_dtype(dtype).unwrap());
            assert_eq!(ema.with_averages(|| bits(&var)).unwrap(), rounded);
            let inner = ema.with_averages(|| {
                // What changes the variables inside is undone, and does not reach the averages.
                var.set(&start)?;
                candle_core::bail!("no score") as Result<()>
            });
            assert!(inner.unwrap().unwrap_err().to_string().contains("no score"));
            assert_eq!((bits(&var), bits(&ema.state().unwrap()["w.ema"])), (weights, averages));
        }
    }

    #[test]
    fn restored_state_goes_on_with_the_same_bytes() {
        for dtype in [DType::F32, DType::F64, DType::F16] {
            let value = |seed| random(seed, (40, 3)).unwrap().to_dtype(dtype).unwrap();
            let run = |cut: u64| {
                let (var, mut averages) = ema(&value(0), EmaConfig::with_decay(0.9));
                for step in 1..6 {
                    if step == cut {
                        let (state, updates) = (averages.state().unwrap(), averages.updates());
                        averages = Ema::new(vec![("w".to_string(), var.clone())], EmaConfig::with_decay(0.9)).unwrap();
                        averages.restore(&state, updates).unwrap();
                        // What was given back is not changed by later updates.
                        averages.update().unwrap();
                        averages.restore(&state, updates).unwrap();
                    }
                    var.set(&value(step)).unwrap();
                    averages.update().unwrap();
                }
                bits(&averages.state().unwrap()["w.ema"])
            };
            assert_eq!(run(3), run(u64::MAX), "{dtype:?}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_byte() {
        let [start, later] = [1, 2].map(|seed| random(seed, (300, 333)).unwrap().to_dtype(DType::F32).unwrap());
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let (var, mut ema) = ema(&start, EmaConfig::with_decay(0.9));
                var.set(&later).unwrap();
                ema.update().unwrap();
                bits(&ema.state().unwrap()["w.ema"])
            })
        };
        let expected = run(1);
        assert!(run(2) == expected && run(4) == expected);
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_changes_nothing() {
        let start = Tensor::ones((2, 1), DType::F32, &Device::Cpu).unwrap();
        let (_, mut averages) = ema(&start, EmaConfig::with_decay(0.9));
        let mut message = |state: &[(&str, &Tensor)]| {
            let state = state.iter().map(|(name, tensor)| (name.to_string(), (*tensor).clone())).collect();
            averages.restore(&state, 4).unwrap_err().to_string()
        };
        assert!(message(&[]).starts_with("`w.ema` is missing"));
        assert!(message(&[("w.ema", &start.t().unwrap())]).starts_with("`w.ema` has shape [1, 2], expected [2, 1]"));
        assert!(message(&[("w.ema", &start), ("v.ema", &start)]).contains("2 averages, expected those of 1 variables"));
        assert_eq!(averages.updates(), 0);
        let error = Ema::new(vec![], EmaConfig::with_decay(1.0)).unwrap_err().to_string();
        assert_eq!(error, "decay: expected a value in [0, 1), found 1");
        assert_eq!(serde_json::from_str::<EmaConfig>(r#"{"decay": 0.9}"#).unwrap(), EmaConfig::with_decay(0.9));
    }
}
