//! What a reward is compared with before it judges an action.
//!
//! | baseline                                | advantage of sample `s` of row `r`              | unbiased     |
//! |-----------------------------------------|-------------------------------------------------|--------------|
//! | [`BaselineConfig::None`]                | `R_sr`                                          | yes          |
//! | [`BaselineConfig::MovingAverage`]       | `R_sr - b`, `b` of the batches before           | yes          |
//! | [`BaselineConfig::Standardised`]        | `(R_sr - mean of the batch's others) / σ`, `σ` of the batches before | yes, but for `1 / σ` |
//! | [`BaselineConfig::LeaveOneOut`]         | `R_sr - mean of the row's other samples`        | yes          |
//! | [`BaselineConfig::Learned`]             | `R_sr - v(s_r)`, `v` linear, fitted to earlier rewards | yes   |
//!
//! A baseline that contains the reward it judges pulls the gradient towards 0: the common `(R - mean) / deviation` of a batch is
//! off by a factor `1 - 1/rows` for the mean, and by one that depends on the actions for the deviation. Hence *others* and
//! *before* in the table. Where rows share one reward (that of the batch), the batch's others say the same and the
//! standardised advantage is 0: use one of the batches before.
//!
//! A row that has nothing to be compared with (one row, one sample) gets the advantage 0 from the two that compare within the
//! batch: nothing can be learnt from it.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::nn::Linear;
use kd_core::optim::{AdamW, AdamWConfig, Optimizer};
use kd_core::variables::Variables;
use serde::{Deserialize, Serialize};

/// Which baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineConfig {
    /// None: unbiased, and so noisy that a reward of one sign pushes every action drawn the same way.
    None,
    /// `b ← decay · b + (1 - decay) · mean R`; the first batch sets it, and has the advantage of its own mean as others.
    MovingAverage {
        /// In `[0, 1)`; 0.9 remembers about ten batches.
        decay: f64,
    },
    /// The mean of the batch's other rows, in units of the moving deviation of the batches before (of 1 in the first one).
    Standardised {
        /// Of the variance's moving average, in `[0, 1)`.
        decay: f64,
    },
    /// The mean of the other samples of the same row (Kool et al. 2019); needs two samples or more.
    LeaveOneOut,
    /// A linear function of the state, fitted by gradient steps (Sutton & Barto 2018, §13.4). It comes near the mean reward and not to it:
    /// of a reward that never varies small advantages stay, and a policy under AdamW makes steps of small ones too.
    Learned {
        /// Learning rate of its AdamW, ≥ 0.
        lr: f64,
    },
}

impl Default for BaselineConfig {
    /// A moving average over about ten batches.
    fn default() -> Self {
        Self::MovingAverage { decay: 0.9 }
    }
}

/// A baseline and what it has seen.
pub struct Baseline {
    config: BaselineConfig,
    value: Option<f64>,
    learned: Option<Learned>,
}

struct Learned {
    variables: Variables,
    value: Linear,
    optimizer: AdamW,
}

impl std::fmt::Debug for Baseline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Baseline").field("config", &self.config).field("value", &self.value).finish_non_exhaustive()
    }
}

impl Baseline {
    /// A baseline that has seen nothing, for states of `features` numbers, of the given dtype on the given device.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn new(config: BaselineConfig, features: usize, dtype: DType, device: &Device) -> Result<Self> {
        if let BaselineConfig::MovingAverage { decay } | BaselineConfig::Standardised { decay } = config
            && !(0.0..1.0).contains(&decay)
        {
            bail!("`decay`: expected a number in [0, 1), found {decay}");
        }
        let learned = match config {
            BaselineConfig::Learned { lr } => {
                let variables = Variables::new(0, dtype, device);
                let zero = candle_nn::Init::Const(0.0);
                let value = Linear::new_with(features, 1, zero, zero, variables.builder())?;
                let config = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(lr) };
                let optimizer = AdamW::new(variables.named(), config).map_err(candle_core::Error::wrap)?;
                Some(Learned { variables, value, optimizer })
            }
            _ => None,
        };
        Ok(Self { config, value: None, learned })
    }

    /// The advantage of each sample of each row, by what was seen before.
    ///
    /// # Shapes
    /// - `rewards`: `(samples, rows)` float; `states`: `(rows, features)`, read by [`BaselineConfig::Learned`] only
    /// - returns `(samples, rows)` f64 on the CPU
    ///
    /// # Errors
    /// If a reward is not finite (the message names its place), or there is one sample and the baseline compares samples.
    pub fn advantages(&self, rewards: &Tensor, states: &Tensor) -> Result<Tensor> {
        let values = finite(rewards)?;
        let (samples, rows) = rewards.dims2()?;
        let all = || values.iter().flatten();
        let (count, sum) = ((samples * rows) as f64, all().sum::<f64>());
        let advantages: Vec<f64> = match self.config {
            BaselineConfig::None => values.concat(),
            BaselineConfig::MovingAverage { .. } => match self.value {
                Some(value) => all().map(|reward| reward - value).collect(),
                None => all().map(|reward| from_others(*reward, sum, count)).collect(),
            },
            BaselineConfig::Standardised { .. } => {
                let deviation = self.value.map_or(1.0, f64::sqrt);
                let scale = if deviation > 1e-8 { deviation.recip() } else { 1.0 };
                // Samples of the row itself are no others: they share its state and what is not of the action.
                let of_row: Vec<f64> = (0..rows).map(|row| values.iter().map(|sample| sample[row]).sum()).collect();
                let advantage = |(row, reward): (usize, &f64)| {
                    let others = count - samples as f64;
                    if others == 0.0 { 0.0 } else { (reward - (sum - of_row[row]) / others) * scale }
                };
                values.iter().flat_map(|sample| sample.iter().enumerate().map(advantage)).collect()
            }
            BaselineConfig::LeaveOneOut if samples < 2 => {
                bail!("the leave-one-out baseline compares samples of a row: expected at least 2, found {samples}")
            }
            BaselineConfig::LeaveOneOut => {
                let of_row: Vec<f64> = (0..rows).map(|row| values.iter().map(|sample| sample[row]).sum()).collect();
                let advantage = |(row, reward): (usize, &f64)| from_others(*reward, of_row[row], samples as f64);
                values.iter().flat_map(|sample| sample.iter().enumerate().map(advantage)).collect()
            }
            BaselineConfig::Learned { .. } => {
                let expected = self.expected(states)?;
                let advantage = |(reward, expected): (&f64, &f64)| reward - expected;
                values.iter().flat_map(|sample| sample.iter().zip(&expected).map(advantage)).collect()
            }
        };
        Tensor::from_vec(advantages, (samples, rows), &Device::Cpu)
    }

    /// Takes in a batch's rewards. Call it after [`advantages`](Self::advantages) has judged them.
    ///
    /// # Errors
    /// As there; nothing has changed then. No rewards change nothing.
    pub fn update(&mut self, rewards: &Tensor, states: &Tensor) -> Result<()> {
        let values = finite(rewards)?.concat();
        if values.is_empty() {
            return Ok(());
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        match self.config {
            BaselineConfig::None | BaselineConfig::LeaveOneOut => {}
            BaselineConfig::MovingAverage { decay } => {
                self.value = Some(self.value.map_or(mean, |value| value + (1.0 - decay) * (mean - value)));
            }
            BaselineConfig::Standardised { decay } => {
                let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
                self.value = Some(self.value.map_or(variance, |value| value + (1.0 - decay) * (variance - value)));
            }
            BaselineConfig::Learned { .. } => {
                let rewards = rewards.detach().mean(0)?;
                if let Some(Learned { value, optimizer, .. }) = &mut self.learned {
                    let expected = value.forward(&states.detach())?.squeeze(1)?;
                    let rewards =
                        rewards.to_device(&Device::Cpu)?.to_dtype(expected.dtype())?.to_device(expected.device())?;
                    let loss = (expected - rewards)?.sqr()?.mean(0)?;
                    optimizer.step(&loss.backward()?, 1.0, 1.0)?;
                }
            }
        }
        Ok(())
    }

    /// What it holds beside its settings: a moving value, the updates made and tensors by name.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<(Option<f64>, usize, BTreeMap<String, Tensor>)> {
        let Some(Learned { variables, optimizer, .. }) = &self.learned else {
            return Ok((self.value, 0, BTreeMap::new()));
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in variables.tensors() {
            tensors.insert(format!("value/{name}"), tensor.copy()?);
        }
        tensors.extend(optimizer.state()?.into_iter().map(|(name, tensor)| (format!("moments/{name}"), tensor)));
        Ok((self.value, optimizer.updates(), tensors))
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// If the tensors are those of another baseline.
    pub fn restore(&mut self, value: Option<f64>, updates: usize, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(Learned { variables, optimizer, .. }) = &mut self.learned {
            let of = |kind: &'static str| {
                tensors
                    .iter()
                    .filter_map(move |(name, tensor)| Some((name.strip_prefix(kind)?.to_string(), tensor.clone())))
            };
            optimizer.restore(&of("moments/").collect(), updates)?;
            variables.set(&of("value/").collect::<HashMap<_, _>>())?;
        } else if !tensors.is_empty() {
            bail!("the baseline {:?} has no tensors, found {:?}", self.config, tensors.keys());
        }
        self.value = value;
        Ok(())
    }

    /// `v(s)` of each row; nothing of the others.
    fn expected(&self, states: &Tensor) -> Result<Vec<f64>> {
        match &self.learned {
            Some(learned) => {
                let expected = learned.value.forward(&states.detach())?.squeeze(1)?;
                expected.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
            }
            None => Ok(Vec::new()),
        }
    }
}

/// `value` minus the mean of the others among `count` values that sum to `sum`, 0 if there are none.
fn from_others(value: f64, sum: f64, count: f64) -> f64 {
    if count > 1.0 { value - (sum - value) / (count - 1.0) } else { 0.0 }
}

/// Rewards by sample and row.
fn finite(rewards: &Tensor) -> Result<Vec<Vec<f64>>> {
    let values = rewards.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    for (sample, values) in values.iter().enumerate() {
        if let Some(row) = values.iter().position(|value| !value.is_finite()) {
            bail!("sample {sample}, row {row}: expected a finite reward, found {}", values[row]);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[&[f64]]) -> Tensor {
        let shape = (values.len(), values.first().map_or(0, |row| row.len()));
        Tensor::from_vec(values.concat(), shape, &Device::Cpu).unwrap()
    }

    fn baseline(config: BaselineConfig) -> Baseline {
        Baseline::new(config, 1, DType::F64, &Device::Cpu).unwrap()
    }

    fn advantages(baseline: &Baseline, rewards: &Tensor) -> Vec<Vec<f64>> {
        let states = Tensor::ones((rewards.dim(1).unwrap(), 1), DType::F64, &Device::Cpu).unwrap();
        baseline.advantages(rewards, &states).unwrap().to_vec2().unwrap()
    }

    fn update(baseline: &mut Baseline, rewards: &Tensor) {
        let states = Tensor::ones((rewards.dim(1).unwrap(), 1), DType::F64, &Device::Cpu).unwrap();
        baseline.update(rewards, &states).unwrap();
    }

    #[test]
    fn each_compares_as_its_table_says() {
        let rewards = tensor(&[&[1.0, 3.0, 8.0]]);
        assert_eq!(advantages(&baseline(BaselineConfig::None), &rewards), [[1.0, 3.0, 8.0]]);
        // The first batch: 1 - 11/2, 3 - 9/2, 8 - 4/2. Then from the mean 4, and after another of mean 8 from 0.75·4 + 0.25·8.
        let mut average = baseline(BaselineConfig::MovingAverage { decay: 0.75 });
        assert_eq!(advantages(&average, &rewards), [[-4.5, -1.5, 6.0]]);
        update(&mut average, &rewards);
        assert_eq!(advantages(&average, &rewards), [[-3.0, -1.0, 4.0]]);
        update(&mut average, &tensor(&[&[8.0]]));
        assert_eq!(advantages(&average, &rewards), [[-4.0, -2.0, 3.0]]);
        // Variance of (0, 4) is 4: the next batch is measured in units of 2.
        let mut standardised = baseline(BaselineConfig::Standardised { decay: 0.5 });
        assert_eq!(advantages(&standardised, &rewards), [[-4.5, -1.5, 6.0]]);
        update(&mut standardised, &tensor(&[&[0.0, 4.0]]));
        assert_eq!(advantages(&standardised, &rewards), [[-2.25, -0.75, 3.0]]);
        // Rows apart: of row 0 samples 1 and 3, of row 1 samples 2 and 8.
        let samples = tensor(&[&[1.0, 2.0], &[3.0, 8.0]]);
        assert_eq!(advantages(&baseline(BaselineConfig::LeaveOneOut), &samples), [[-2.0, -6.0], [2.0, 6.0]]);
    }

    #[test]
    fn a_learned_value_finds_the_mean_of_each_state() {
        let mut learned = Baseline::new(BaselineConfig::Learned { lr: 0.1 }, 2, DType::F64, &Device::Cpu).unwrap();
        let (states, rewards) = (tensor(&[&[1.0, 0.0], &[0.0, 1.0]]), tensor(&[&[3.0, -1.0]]));
        for _ in 0..300 {
            learned.update(&rewards, &states).unwrap();
        }
        let left = learned.advantages(&rewards, &states).unwrap().to_vec2::<f64>().unwrap();
        assert!(left.concat().iter().all(|advantage| advantage.abs() < 0.05), "{left:?}");
        let (value, updates, tensors) = learned.state().unwrap();
        let mut again = Baseline::new(BaselineConfig::Learned { lr: 0.1 }, 2, DType::F64, &Device::Cpu).unwrap();
        again.restore(value, updates, &tensors).unwrap();
        for baseline in [&mut learned, &mut again] {
            baseline.update(&tensor(&[&[2.0, 0.0]]), &states).unwrap();
        }
        let bits = |baseline: &Baseline| baseline.advantages(&rewards, &states).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(bits(&learned), bits(&again));
    }

    #[test]
    fn a_reward_that_never_varies_teaches_nothing() {
        let rewards = tensor(&[&[0.25; 8], &[0.25; 8]]);
        for config in [
            BaselineConfig::MovingAverage { decay: 0.9 },
            BaselineConfig::Standardised { decay: 0.9 },
            BaselineConfig::LeaveOneOut,
        ] {
            let mut baseline = baseline(config);
            for _ in 0..3 {
                assert!(advantages(&baseline, &rewards).concat().iter().all(|&value| value == 0.0), "{config:?}");
                update(&mut baseline, &rewards);
            }
        }
    }

    #[test]
    fn one_reward_alone_has_the_advantage_0() {
        for config in [BaselineConfig::MovingAverage { decay: 0.9 }, BaselineConfig::Standardised { decay: 0.9 }] {
            assert_eq!(advantages(&baseline(config), &tensor(&[&[5.0]])), [[0.0]]);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let make = |config| Baseline::new(config, 1, DType::F64, &Device::Cpu).unwrap_err().to_string();
        assert!(make(BaselineConfig::MovingAverage { decay: 1.0 }).contains("a number in [0, 1), found 1"));
        assert!(make(BaselineConfig::Standardised { decay: f64::NAN }).contains("found NaN"));
        assert!(make(BaselineConfig::Learned { lr: -1.0 }).contains("lr: expected"));
        let states = tensor(&[&[0.0]]);
        let mut average = baseline(BaselineConfig::default());
        for result in [
            average.advantages(&tensor(&[&[f64::NAN]]), &states).map(|_| ()),
            average.update(&tensor(&[&[f64::NAN]]), &states),
        ] {
            assert!(result.unwrap_err().to_string().contains("sample 0, row 0: expected a finite reward, found NaN"));
        }
        let message = baseline(BaselineConfig::LeaveOneOut).advantages(&tensor(&[&[1.0]]), &states).unwrap_err();
        assert!(message.to_string().contains("expected at least 2, found 1"), "{message}");
        let named = BTreeMap::from([("x".to_string(), states)]);
        assert!(average.restore(None, 0, &named).unwrap_err().to_string().contains("has no tensors"));
    }
}
