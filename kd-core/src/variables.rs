//! Named, seeded variables: what a model is made of before and after training.
//!
//! Candle's CPU generator cannot be seeded and its `VarMap` iterates a `HashMap`, so two runs of one
//! program differ. [`Variables`] draws each variable from a generator seeded by the model's seed and the
//! variable's *name*, and hands them out in name order. Adding a layer does not change the others' start.
//!
//! ```
//! use candle_core::{DType, Device};
//! use kd_core::variables::Variables;
//! let variables = Variables::new(7, DType::F32, &Device::Cpu);
//! let layer = candle_nn::linear(3, 2, variables.builder().pp("out"))?;
//! assert_eq!(variables.named().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["out.bias", "out.weight"]);
//! # let _ = layer;
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::init::{Init, NormalOrUniform};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One well-mixed 64-bit value from two (two rounds of SplitMix64's finaliser).
pub fn mix(a: u64, b: u64) -> u64 {
    let round = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    round(round(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Whether a variable of this name is observed in forward passes instead of trained: the `running_mean` and `running_var` of
/// a [`BatchNorm`](crate::nn::BatchNorm), as in PyTorch.
///
/// Such a statistic is saved, restored and counted among the best weights like the others, but [`Variables::named`], which
/// optimisers are made of, does not give it.
///
/// ```
/// use kd_core::variables::is_statistic;
/// assert!(is_statistic("head.norm.running_mean") && !is_statistic("head.norm.weight"));
/// ```
pub fn is_statistic(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("running_mean" | "running_var"))
}

/// The variables of a model, by name. Clones share them.
#[derive(Clone)]
pub struct Variables {
    seed: u64,
    dtype: DType,
    device: Device,
    named: Arc<Mutex<BTreeMap<String, Var>>>,
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shapes: BTreeMap<_, _> =
            self.tensors().into_iter().map(|(name, tensor)| (name, tensor.shape().clone())).collect();
        f.debug_struct("Variables").field("seed", &self.seed).field("shapes", &shapes).finish()
    }
}

impl Variables {
    /// No variables yet; those that a [`VarBuilder`] asks for will be drawn from `seed`.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Self {
        Self { seed, dtype, device: device.clone(), named: Arc::default() }
    }

    /// Variables with copies of these values, which no longer depend on a seed.
    pub fn from_tensors(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let variables = Self::new(0, dtype, device);
        for (name, tensor) in tensors {
            let value = tensor.detach().to_dtype(dtype)?.to_device(device)?.copy()?;
            variables.lock().insert(name, Var::from_tensor(&value)?);
        }
        Ok(variables)
    }

    /// The same variables; those that a [`VarBuilder`] asks for and that are not there yet will be drawn from `seed`. A model of
    /// pretrained values under a new head is made so without drawing what is replaced.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// A builder that creates what is asked for and remembers it under its full name.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), self.dtype, self.device.clone())
    }

    /// Every variable that can be trained with its name, in name order: all but [statistics](is_statistic).
    pub fn named(&self) -> Vec<(String, Var)> {
        self.all().into_iter().filter(|(name, _)| !is_statistic(name)).collect()
    }

    /// Every variable with its name, [statistics](is_statistic) too, in name order.
    pub fn all(&self) -> Vec<(String, Var)> {
        self.lock().iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// The values of all variables, [statistics](is_statistic) too, for a checkpoint or a saved student.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.lock().iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }

    /// Number of values in all variables but [statistics](is_statistic).
    pub fn parameter_count(&self) -> usize {
        self.named().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Sets every variable, [statistics](is_statistic) too, from `tensors`, converting their dtype.
    ///
    /// # Errors
    /// If a variable has no tensor, a tensor has no variable, or a shape differs; the message names all of them.
    /// Nothing is changed then.
    pub fn set(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let named = self.lock();
        let mut wrong: Vec<String> = Vec::new();
        for (name, var) in named.iter() {
            match tensors.get(name) {
                None => wrong.push(format!("`{name}` is missing, expected shape {:?}", var.dims())),
                Some(tensor) if tensor.dims() != var.dims() => {
                    wrong.push(format!("`{name}` has shape {:?}, expected {:?}", tensor.dims(), var.dims()));
                }
                Some(_) => {}
            }
        }
        let mut unknown: Vec<_> = tensors.keys().filter(|name| !named.contains_key(*name)).collect();
        unknown.sort();
        wrong.extend(unknown.into_iter().map(|name| format!("`{name}` belongs to no variable")));
        if !wrong.is_empty() {
            bail!("the tensors do not fit the model: {}", wrong.join("; "));
        }
        for (name, var) in named.iter() {
            var.set(&tensors[name].to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Var>> {
        self.named.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn draw(&self, shape: &Shape, name: &str, init: Init) -> Result<Tensor> {
        let name_hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3) // FNV-1a
        });
        let mut rng = ChaCha8Rng::seed_from_u64(mix(self.seed, name_hash));
        let count = shape.elem_count();
        let values: Vec<f32> = match init {
            Init::Const(value) => vec![value as f32; count],
            Init::Uniform { lo, up } => uniform(&mut rng, count, lo, up),
            Init::Randn { mean, stdev } => normal(&mut rng, count, mean, stdev),
            Init::Kaiming { dist, fan, non_linearity } => {
                let std = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Uniform => {
                        let bound = 3f64.sqrt() * std;
                        uniform(&mut rng, count, -bound, bound)
                    }
                    NormalOrUniform::Normal => normal(&mut rng, count, 0.0, std),
                }
            }
        };
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

fn uniform(rng: &mut ChaCha8Rng, count: usize, lo: f64, up: f64) -> Vec<f32> {
    (0..count).map(|_| (lo + (up - lo) * rng.random::<f64>()) as f32).collect()
}

/// Box and Muller's pairs of normal values.
fn normal(rng: &mut ChaCha8Rng, count: usize, mean: f64, stdev: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * stdev;
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.extend([(mean + radius * cos) as f32, (mean + radius * sin) as f32]);
    }
    values.truncate(count);
    values
}

impl SimpleBackend for Variables {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut named = self.lock();
        if let Some(var) = named.get(name) {
            if var.shape() != &shape {
                bail!("`{name}` has shape {:?}, {shape:?} was asked for", var.dims());
            }
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&self.draw(&shape, name, init)?.to_dtype(dtype)?.to_device(device)?)?;
        let tensor = var.as_tensor().clone();
        named.insert(name.to_string(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _dtype: DType, _device: &Device) -> Result<Tensor> {
        match self.lock().get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => bail!("there is no variable `{name}`, and without a shape none can be made"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(variables: &Variables) -> Vec<Vec<f32>> {
        variables.named().iter().map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap()).collect()
    }

    #[test]
    fn what_is_there_is_kept_and_the_rest_is_drawn_from_the_seed() {
        let device = Device::Cpu;
        let of = |variables: &Variables| candle_nn::linear(3, 2, variables.builder().pp("out")).unwrap();
        let drawn = Variables::new(7, DType::F32, &device);
        of(&drawn);
        let bias = ("out.bias".to_string(), Tensor::new(&[1f32, 2.], &device).unwrap());
        let given = Variables::from_tensors([bias], DType::F32, &device).unwrap().with_seed(7);
        of(&given);
        assert_eq!(all(&given)[0], [1., 2.]);
        assert_eq!(all(&given)[1], all(&drawn)[1]);
    }

    #[test]
    fn a_variable_depends_on_seed_and_name_only() {
        let make = |seed, names: &[&str]| {
            let variables = Variables::new(seed, DType::F32, &Device::Cpu);
            for name in names {
                variables.builder().get_with_hints((4, 3), name, candle_nn::init::DEFAULT_KAIMING_NORMAL).unwrap();
            }
            variables
        };
        assert_eq!(all(&make(1, &["a", "b"])), all(&make(1, &["b", "a"])));
        assert_ne!(all(&make(1, &["a"])), all(&make(2, &["a"])));
        assert_ne!(all(&make(1, &["a"])), all(&make(1, &["b"])));
    }

    #[test]
    fn statistics_are_kept_and_not_trained() {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        crate::nn::BatchNorm::new(2, variables.builder().pp("norm")).unwrap();
        let names = variables.named().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names, ["norm.bias", "norm.weight"]);
        assert_eq!(variables.parameter_count(), 4);
        let all: HashMap<_, _> = variables.tensors().into_iter().collect();
        assert_eq!(all.len(), 4);
        variables.set(&all.iter().map(|(name, tensor)| (name.clone(), (tensor + 3.0).unwrap())).collect()).unwrap();
        assert_eq!(variables.tensors()["norm.running_var"].to_vec1::<f32>().unwrap(), [4.0; 2]);
        let without = all.into_iter().filter(|(name, _)| name != "norm.running_mean").collect();
        let message = variables.set(&without).unwrap_err().to_string();
        assert!(message.contains("`norm.running_mean` is missing"), "{message}");
    }

    #[test]
    fn normal_values_have_the_stated_moments() {
        let values = normal(&mut ChaCha8Rng::seed_from_u64(3), 100_001, 1.0, 2.0);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        // Four standard errors: 4 · 2 / √100001 and 4 · 4 · √(2 / 100001).
        assert!((mean - 1.0).abs() < 0.026, "{mean}");
        assert!((variance - 4.0).abs() < 0.072, "{variance}");
    }

    #[test]
    fn setting_names_every_tensor_that_does_not_fit() {
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        let _ = candle_nn::linear(3, 2, variables.builder()).unwrap();
        let weight = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let tensors = HashMap::from([("weight".to_string(), weight.clone()), ("extra".to_string(), weight)]);
        let message = variables.set(&tensors).unwrap_err().to_string();
        for part in
            ["`bias` is missing", "`weight` has shape [3, 2], expected [2, 3]", "`extra` belongs to no variable"]
        {
            assert!(message.contains(part), "{message}");
        }
    }
}
