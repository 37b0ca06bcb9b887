//! The memory of all examples that a contrast needs.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::Init;
use serde::{Deserialize, Serialize};

use super::super::preconditions::wide;
use super::super::unit::unit;
use super::noise_contrast::{first_log_normaliser, noise_contrast_rows};
use crate::error::Error;
use crate::variables::{Variables, mix};

/// Settings of a [`MemoryBank`]. There are no defaults: `examples` and what `negatives` cost depend on the data.
///
/// | field | range | Tian et al. 2020 |
/// |---|---|---|
/// | `examples` | at least 2 | size of the training data |
/// | `width` | at least 1 | 128 |
/// | `negatives` | at least 1 | 16384 |
/// | `temperature` | above 0 | 0.07 |
/// | `momentum` | `[0, 1)` | 0.5 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// Number of examples in the data, `N`.
    pub examples: usize,
    /// Width of a memory.
    pub width: usize,
    /// Number of other examples drawn for each row and step, `K`, uniformly and with repetition. A step gathers
    /// `2 · rows · (K + 1) · width` values.
    pub negatives: usize,
    /// Temperature `τ`.
    pub temperature: f64,
    /// Share of the old memory that stays when an example is seen.
    pub momentum: f64,
    /// Seed of the first memories and of all draws.
    pub seed: u64,
}

/// A memory of the student's and of the teacher's representation of every example, and the fixed normalising constants.
///
/// It is no part of the graph: a loss reads it and writes the batch into it, nothing learns through it. It cannot be
/// cloned, because it is written in place; [`MemoryBank::tensors`] copies it.
#[derive(Debug)]
pub struct MemoryBank {
    config: ContrastiveConfig,
    /// `(examples, width)` of the student and of the teacher.
    memories: [Tensor; 2],
    /// `ln Z` of the student against the teacher's memory and of the teacher against the student's, scalars.
    log_normalisers: Option<[Tensor; 2]>,
}

const MEMORIES: [&str; 2] = ["student", "teacher"];
const NORMALISERS: &str = "log_normalisers";

impl MemoryBank {
    /// A bank of memories drawn from `config.seed`, without normalising constants yet.
    ///
    /// `dtype` is that of the projected representations, `f32` where those are half precision.
    ///
    /// # Errors
    /// If a setting is out of range, or `dtype` is neither `f32` nor `f64`.
    pub fn new(config: ContrastiveConfig, dtype: DType, device: &Device) -> crate::Result<Self> {
        validate(&config)?;
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::Config { field: "dtype", expected: "f32 or f64", found: format!("{dtype:?}") });
        }
        let bound = (3.0 / config.width as f64).sqrt();
        let drawn = Variables::new(config.seed, dtype, device).builder();
        let memory = |name| -> Result<Tensor> {
            let init = Init::Uniform { lo: -bound, up: bound };
            drawn.get_with_hints((config.examples, config.width), name, init)?.detach().copy()
        };
        let memories = [memory(MEMORIES[0])?, memory(MEMORIES[1])?];
        Ok(Self { config, memories, log_normalisers: None })
    }

    /// The bank that [`MemoryBank::tensors`] described, on `device`.
    ///
    /// # Errors
    /// If a setting is out of range, a memory is missing or has another shape or dtype, or a tensor is none of a bank's.
    pub fn from_tensors(
        config: ContrastiveConfig,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> crate::Result<Self> {
        validate(&config)?;
        if let Some(name) = tensors.keys().find(|name| *name != NORMALISERS && !MEMORIES.contains(&name.as_str())) {
            return Err(wrong(format!("`{name}` belongs to no memory bank")));
        }
        let find = |name: &str, shape: &[usize]| match tensors.get(name) {
            Some(tensor) if tensor.dims() == shape && matches!(tensor.dtype(), DType::F32 | DType::F64) => {
                Ok(tensor.detach().to_device(device)?.copy()?)
            }
            Some(tensor) => Err(wrong(format!(
                "`{name}`: expected {shape:?} of f32 or f64, found {:?} of {:?}",
                tensor.dims(),
                tensor.dtype()
            ))),
            None => Err(wrong(format!("`{name}` of shape {shape:?} is missing"))),
        };
        let shape = [config.examples, config.width];
        let memories = [find(MEMORIES[0], &shape)?, find(MEMORIES[1], &shape)?];
        let log_normalisers = if tensors.contains_key(NORMALISERS) {
            let both = find(NORMALISERS, &[2])?;
            Some([both.get(0)?, both.get(1)?])
        } else {
            None
        };
        Ok(Self { config, memories, log_normalisers })
    }

    /// Copies of all that changes: `student` and `teacher`, `(examples, width)`, and `log_normalisers`, `(2,)`, once they
    /// are fixed.
    ///
    /// # Errors
    /// If the device fails.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, memory) in MEMORIES.iter().zip(&self.memories) {
            tensors.insert(name.to_string(), memory.copy()?);
        }
        if let Some(both) = &self.log_normalisers {
            tensors.insert(NORMALISERS.to_string(), Tensor::stack(both, 0)?);
        }
        Ok(tensors)
    }

    /// The settings.
    pub fn config(&self) -> &ContrastiveConfig {
        &self.config
    }

    /// For each row its own example and then the others it is contrasted with, `rows · (1 + negatives)` indices.
    ///
    /// They depend on the seed, the step and the row's place in the batch.
    ///
    /// # Errors
    /// If an example is not below the number of examples.
    pub fn draw(&self, examples: &[usize], step: u64) -> Result<Vec<u32>> {
        let (count, negatives) = (self.config.examples as u64, self.config.negatives as u64);
        let seed = mix(self.config.seed, step);
        let mut drawn = Vec::with_capacity(examples.len() * (1 + self.config.negatives));
        for (row, &example) in (0u64..).zip(examples) {
            if example >= self.config.examples {
                bail!("contrastive: example {example} with a memory bank of {count} examples");
            }
            drawn.push(example as u32);
            drawn.extend((0..negatives).map(|idx| {
                let other = mix(seed, row * negatives + idx) % (count - 1);
                (other + u64::from(other >= example as u64)) as u32 // the example itself is left out
            }));
        }
        Ok(drawn)
    }

    /// The loss of each row in both directions, `(rows,)`; the first call fixes the normalising constants.
    pub(super) fn contrast_rows(&mut self, u: &Tensor, v: &Tensor, examples: &[usize], step: u64) -> Result<Tensor> {
        let (rows, width) = u.dims2()?;
        if width != self.config.width || u.dtype() != self.memories[0].dtype() {
            bail!(
                "contrastive: expected projections of width {} and dtype {:?}, as the memory bank's, found {width} and {:?}",
                self.config.width,
                self.memories[0].dtype(),
                u.dtype()
            );
        }
        let index = Tensor::new(self.draw(examples, step)?, u.device())?;
        let candidates = |memory: &Tensor| memory.index_select(&index, 0)?.reshape((rows, (), width));
        let of_student = candidates(&self.memories[1])?; // (rows, 1 + K, width)
        let of_teacher = candidates(&self.memories[0])?;
        let (temperature, count) = (self.config.temperature, self.config.examples);
        let [ln_z_of_student, ln_z_of_teacher] = match &self.log_normalisers {
            Some(fixed) => fixed,
            None => self.log_normalisers.insert([
                first_log_normaliser(u, &of_student, temperature, count)?,
                first_log_normaliser(v, &of_teacher, temperature, count)?,
            ]),
        };
        noise_contrast_rows(u, &of_student, temperature, ln_z_of_student, count)?
            + noise_contrast_rows(v, &of_teacher, temperature, ln_z_of_teacher, count)?
    }

    /// Writes a batch into the memories.
    pub(super) fn remember(&mut self, u: &Tensor, v: &Tensor, examples: &[usize]) -> Result<()> {
        // The last row of each example.
        let last: BTreeMap<usize, u32> = examples.iter().copied().zip(0u32..).collect();
        let (examples, rows): (Vec<u32>, Vec<u32>) = last.iter().map(|(&example, &row)| (example as u32, row)).unzip();
        let (count, device) = (examples.len(), u.device());
        let (examples, rows) = (Tensor::new(examples, device)?, Tensor::new(rows, device)?);
        for (memory, new) in self.memories.iter().zip([u, v]) {
            let new = wide(&new.detach())?.index_select(&rows, 0)?;
            let old = memory.index_select(&examples, 0)?;
            let kept = unit(&((old * self.config.momentum)? + (new * (1.0 - self.config.momentum))?)?)?;
            let index = examples.unsqueeze(1)?.broadcast_as((count, self.config.width))?.contiguous()?;
            memory.scatter_set(&index, &kept, 0)?;
        }
        Ok(())
    }
}

fn validate(config: &ContrastiveConfig) -> crate::Result<()> {
    let wrong = |field, expected, found: String| Err(Error::Config { field, expected, found });
    if config.examples < 2 || u32::try_from(config.examples).is_err() {
        return wrong("examples", "2 to 2^32 - 1", config.examples.to_string());
    }
    if config.width == 0 {
        return wrong("width", "at least 1", "0".to_string());
    }
    if config.negatives == 0 {
        return wrong("negatives", "at least 1", "0".to_string());
    }
    if !(config.temperature.is_finite() && config.temperature > 0.0) {
        return wrong("temperature", "a finite value above 0", config.temperature.to_string());
    }
    if !(0.0..1.0).contains(&config.momentum) {
        return wrong("momentum", "a value in [0, 1)", config.momentum.to_string());
    }
    Ok(())
}

fn wrong(message: String) -> Error {
    Error::Tensor(candle_core::Error::Msg(format!("memory bank: {message}")))
}
