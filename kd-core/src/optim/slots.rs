//! The variables of an optimiser with their moments.
//!
//! Moments are f32, also those of half-precision variables; f64 variables have f64 ones. They lie where their
//! variable lies.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var, bail};

use super::groups::{Group, Setting, assign};
use super::update::{All, Rows, Rule};
use crate::ops::embedding::SparseGradient;

/// What every optimiser keeps.
#[derive(Debug)]
pub(super) struct Slots {
    /// Of the optimiser, in errors.
    optimizer: &'static str,
    /// Names of the moments.
    kinds: &'static [&'static str],
    updates: usize,
    slots: Vec<Slot>,
    frozen: Vec<String>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    lr_factor: f64,
    weight_decay: f64,
    moments: Moments,
}

#[derive(Debug)]
enum Moments {
    /// f32 on the CPU, updated in place.
    Host(Vec<Vec<f32>>),
    Tensors(Vec<Tensor>),
}

/// Numbers of one update of one variable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Updates made, this one included.
    pub(super) updates: i32,
    /// The factor of the variable's group on the learning rate.
    pub(super) lr_factor: f64,
    pub(super) weight_decay: f64,
}

/// f64 for f64, f32 for all others.
fn moment_dtype(var: &Var) -> DType {
    if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

impl Slots {
    /// Fresh moments `kinds` for all variables that no group freezes.
    pub(super) fn new(
        optimizer: &'static str,
        kinds: &'static [&'static str],
        named: Vec<(String, Var)>,
        groups: &[Group],
        weight_decay: f64,
    ) -> crate::Result<Self> {
        let settings = assign(&named, groups, weight_decay)?;
        let (mut slots, mut frozen) = (Vec::with_capacity(named.len()), Vec::new());
        for ((name, var), setting) in named.into_iter().zip(settings) {
            let Setting::Trained { lr_factor, weight_decay } = setting else {
                frozen.push(name);
                continue;
            };
            let moments = if var.dtype() == DType::F32 && var.device().is_cpu() {
                Moments::Host(kinds.iter().map(|_| vec![0.0; var.elem_count()]).collect())
            } else {
                let zeros = || Tensor::zeros(var.shape(), moment_dtype(&var), var.device());
                Moments::Tensors(kinds.iter().map(|_| zeros()).collect::<Result<_>>()?)
            };
            slots.push(Slot { name, var, lr_factor, weight_decay, moments });
        }
        Ok(Self { optimizer, kinds, updates: 0, slots, frozen })
    }

    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), &slot.var))
    }

    pub(super) fn frozen(&self) -> &[String] {
        &self.frozen
    }

    pub(super) fn updates(&self) -> usize {
        self.updates
    }

    /// One update, by the rule that `rule` gives for each variable.
    pub(super) fn step<const N: usize, R: Rule<N>>(
        &mut self,
        gradients: &GradStore,
        sparse: &[(&str, &SparseGradient)],
        rule: impl Fn(Step) -> R,
    ) -> Result<()> {
        self.check(gradients, sparse)?;
        self.updates += 1;
        let updates = i32::try_from(self.updates).unwrap_or(i32::MAX);
        for slot in &mut self.slots {
            let rows = sparse.iter().find(|(name, _)| *name == slot.name).map(|(_, rows)| *rows);
            let gradient = match (rows, gradients.get(slot.var.as_tensor())) {
                (Some(rows), _) if rows.ids().is_empty() => continue,
                (Some(rows), _) => rows.values(),
                (None, Some(gradient)) => gradient,
                (None, None) => continue,
            };
            let step = Step { updates, lr_factor: slot.lr_factor, weight_decay: slot.weight_decay };
            slot.update(gradient, rows, rule(step))?;
        }
        Ok(())
    }

    fn check(&self, gradients: &GradStore, sparse: &[(&str, &SparseGradient)]) -> Result<()> {
        let optimizer = self.optimizer;
        for (name, rows) in sparse {
            let Some(slot) = self.slots.iter().find(|slot| slot.name == *name) else {
                // Dense gradients of frozen variables are left alone too.
                if self.frozen.iter().any(|frozen| frozen == name) {
                    continue;
                }
                bail!("{optimizer}: no variable `{name}` for a sparse gradient")
            };
            if slot.var.dims() != rows.dims() {
                bail!("{optimizer}: `{name}` has shape {:?}, found a gradient for {:?}", slot.var.dims(), rows.dims());
            }
            if gradients.get(slot.var.as_tensor()).is_some() {
                bail!("{optimizer}: `{name}` has a sparse and a dense gradient; add them with `to_dense`");
            }
        }
        for Slot { name, var, .. } in &self.slots {
            match gradients.get(var.as_tensor()) {
                Some(gradient) if gradient.dims() != var.dims() => {
                    bail!("{optimizer}: `{name}` has shape {:?}, found a gradient of {:?}", var.dims(), gradient.dims())
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Copies of all moments, as `NAME.KIND` in the shape of the variable.
    pub(super) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for Slot { name, var, moments, .. } in &self.slots {
            for (idx, kind) in self.kinds.iter().enumerate() {
                let moment = match moments {
                    Moments::Host(moments) => Tensor::from_slice(&moments[idx], var.shape(), &Device::Cpu)?,
                    Moments::Tensors(moments) => moments[idx].copy()?,
                };
                state.insert(format!("{name}.{kind}"), moment);
            }
        }
        Ok(state)
    }

    /// Takes back what [`Slots::state`] gave; if that fails nothing has changed.
    pub(super) fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: usize) -> Result<()> {
        let (mut restored, mut used) = (Vec::with_capacity(self.slots.len()), 0);
        for Slot { name, var, moments, .. } in &self.slots {
            let mut tensors = Vec::with_capacity(self.kinds.len());
            for kind in self.kinds {
                let key = format!("{name}.{kind}");
                match state.get(&key) {
                    Some(tensor) if tensor.dims() == var.dims() => tensors.push(tensor.to_dtype(moment_dtype(var))?),
                    Some(tensor) => bail!("`{key}` has shape {:?}, expected {:?}", tensor.dims(), var.dims()),
                    None => bail!("`{key}` is missing"),
                }
                used += 1;
            }
            restored.push(match moments {
                Moments::Host(_) => {
                    let values = tensors.iter().map(|tensor| tensor.flatten_all()?.to_vec1());
                    Moments::Host(values.collect::<Result<_>>()?)
                }
                Moments::Tensors(_) => {
                    let copies = tensors.iter().map(|tensor| tensor.to_device(var.device())?.copy());
                    Moments::Tensors(copies.collect::<Result<_>>()?)
                }
            });
        }
        if used != state.len() {
            let is_known = |key: &&String| {
                let of_slot = |slot: &Slot| self.kinds.iter().any(|kind| **key == format!("{}.{kind}", slot.name));
                self.slots.iter().any(of_slot)
            };
            let unknown: Vec<_> = state.keys().filter(|key| !is_known(key)).map(|key| format!("`{key}`")).collect();
            bail!("the state has {}, which belong to no trained variable", unknown.join(", "));
        }
        for (slot, moments) in self.slots.iter_mut().zip(restored) {
            slot.moments = moments;
        }
        self.updates = updates;
        Ok(())
    }
}

impl Slot {
    /// By `gradient`, which has `rows` only if they are given.
    fn update<const N: usize, R: Rule<N>>(
        &mut self,
        gradient: &Tensor,
        rows: Option<&SparseGradient>,
        rule: R,
    ) -> Result<()> {
        let Self { name, var, moments, .. } = self;
        let wrong = |found: usize| candle_core::Error::msg(format!("`{name}` has {found} moments, expected {N}"));
        match moments {
            Moments::Host(moments) => {
                let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
                let found = moments.len();
                let moments: Vec<_> = moments.iter_mut().map(Vec::as_mut_slice).collect();
                let moments = Mutex::new(moments.try_into().map_err(|_| wrong(found))?);
                match rows {
                    None => var.inplace_op2(&gradient, &All { moments, rule }),
                    Some(rows) => {
                        let (ids, width) = (rows.ids(), rows.dims()[1]);
                        var.inplace_op2(&gradient, &Rows { moments, rule, ids, width })
                    }
                }
            }
            Moments::Tensors(moments) => {
                let dtype = moment_dtype(var);
                let places = rows.map(SparseGradient::places).transpose()?;
                let read = |tensor: &Tensor| match &places {
                    Some(places) => tensor.gather(places, 0),
                    None => Ok(tensor.clone()),
                };
                let weights = read(&var.as_detached_tensor())?.to_dtype(dtype)?;
                let old: Vec<_> = moments.iter().map(read).collect::<Result<_>>()?;
                let old: Vec<&Tensor> = old.iter().collect();
                let old = <[&Tensor; N]>::try_from(old).map_err(|old| wrong(old.len()))?;
                let (weights, new) = rule.composed(&weights, &gradient.to_dtype(dtype)?, old)?;
                let weights = weights.to_dtype(var.dtype())?.detach();
                match &places {
                    None => {
                        moments.iter_mut().zip(new).for_each(|(moment, new)| *moment = new.detach());
                        var.set(&weights)
                    }
                    Some(places) => {
                        for (moment, new) in moments.iter().zip(&new) {
                            moment.scatter_set(places, new, 0)?;
                        }
                        var.scatter_set(places, &weights, 0)
                    }
                }
            }
        }
    }
}

/// The part of [`Optimizer`](super::Optimizer) that is the same for all who have `slots`.
macro_rules! bookkeeping {
    () => {
        fn named(&self) -> Box<dyn Iterator<Item = (&str, &candle_core::Var)> + '_> {
            Box::new(self.slots.named())
        }

        fn frozen(&self) -> &[String] {
            self.slots.frozen()
        }

        fn updates(&self) -> usize {
            self.slots.updates()
        }

        fn state(&self) -> candle_core::Result<std::collections::BTreeMap<String, candle_core::Tensor>> {
            self.slots.state()
        }

        fn restore(
            &mut self,
            state: &std::collections::BTreeMap<String, candle_core::Tensor>,
            updates: usize,
        ) -> candle_core::Result<()> {
            self.slots.restore(state, updates)
        }
    };
}
pub(super) use bookkeeping;
