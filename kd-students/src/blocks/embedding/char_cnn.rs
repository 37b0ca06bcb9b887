//! `CNNCharEmbedding`: a word's vector by convolutions over its characters.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::nn::{Activation, ActivationKind, Linear};
use kd_core::ops;
use serde::Deserialize;
use serde_json::Value as Json;

use super::super::pool::{PoolType, pool};
use super::super::windows::{PaddingType, Windows};
use super::super::{parse_conf, replace_padding};
use super::table;

/// One convolution and maximum for each window: `max over windows of activation(W [c_t; ..; c_(t + size - 1)] + b)`.
///
/// Only windows within a word count; a word shorter than a window is padded up to it with zeros.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `embedding.weight` | `(rows, embedding_matrix_dim)` | uniform in ±0.001, row 0 zero |
/// | `conv_I.weight` | `(dim, window · embedding_matrix_dim)` | uniform in `±1/√(window · embedding_matrix_dim)` |
/// | `conv_I.bias` | `(dim,)` | the same |
/// | `activation_I.weight` | `(1,)`, of `PReLU` only | 0.25 |
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CnnCharConfig {
    /// Filters of each window, ≥ 1; 30 as in the format.
    pub dim: OneOrMore,
    /// Width of a character's vector, ≥ 1; 30 as in the format.
    pub embedding_matrix_dim: usize,
    /// Characters under each window, ≥ 1; 3 as in the format.
    pub window_size: OneOrMore,
    /// Characters between two windows, ≥ 1; 1 as in the format.
    pub stride: OneOrMore,
    /// Zeros on each side of a word; 0 as in the format.
    pub padding: usize,
    /// After the convolution; `ReLU` as in the format, or `null`.
    pub activation: Option<ActivationKind>,
}

/// A number for all, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum OneOrMore {
    /// For all.
    One(usize),
    /// For each.
    More(Vec<usize>),
}

impl OneOrMore {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::More(values) => values.len(),
        }
    }

    fn get(&self, idx: usize) -> usize {
        match self {
            Self::One(value) => *value,
            Self::More(values) => values.get(idx).copied().unwrap_or_default(),
        }
    }
}

impl Default for CnnCharConfig {
    fn default() -> Self {
        Self {
            dim: OneOrMore::One(30),
            embedding_matrix_dim: 30,
            window_size: OneOrMore::One(3),
            stride: OneOrMore::One(1),
            padding: 0,
            activation: Some(ActivationKind::ReLU),
        }
    }
}

impl CnnCharConfig {
    /// Keys of published files that have no effect.
    pub(super) const IGNORED: &'static [&'static str] = &["dropout"];

    pub(super) fn parse(conf: Json) -> std::result::Result<Self, String> {
        let config: Self = parse_conf(conf)?;
        let count = config.count();
        for (key, found) in [("dim", &config.dim), ("window_size", &config.window_size), ("stride", &config.stride)] {
            if !matches!(found, OneOrMore::One(_)) && found.len() != count || found.len() == 0 {
                return Err(format!("{key}: expected {count} numbers, one for each window, found {}", found.len()));
            }
            if (0..count).any(|idx| found.get(idx) == 0) {
                return Err(format!("{key}: expected at least 1, found 0"));
            }
        }
        if config.activation == Some(ActivationKind::Softmax2d) {
            return Err("activation: expected a function of a convolution's values, found Softmax2d".to_string());
        }
        if config.embedding_matrix_dim == 0 {
            return Err("embedding_matrix_dim: expected at least 1, found 0".to_string());
        }
        let narrowest = (0..count).map(|idx| config.window_size.get(idx)).min().unwrap_or(1);
        if config.padding >= narrowest {
            return Err(format!("padding: expected less than the window of {narrowest}, found {}", config.padding));
        }
        Ok(config)
    }

    fn count(&self) -> usize {
        self.dim.len().max(self.window_size.len()).max(self.stride.len())
    }

    /// Width of a word's vector: the sum over the windows.
    pub fn width(&self) -> usize {
        (0..self.count()).map(|idx| self.dim.get(idx)).sum()
    }

    fn windows(&self, idx: usize) -> Windows {
        Windows {
            size: self.window_size.get(idx),
            stride: self.stride.get(idx),
            padding: self.padding,
            padding_type: PaddingType::Valid,
        }
    }
}

#[derive(Debug)]
pub(super) struct CnnChar {
    table: Tensor,
    convolutions: Vec<(Windows, Linear, Option<Activation>)>,
}

impl CnnChar {
    pub(super) fn new(config: &CnnCharConfig, rows: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let width = config.embedding_matrix_dim;
        let init = Init::Uniform { lo: -0.001, up: 0.001 };
        let table = table((rows, width), init, &vb.pp("embedding"))?;
        let convolution = |idx: usize| {
            let windows = config.windows(idx);
            let linear = Linear::new(windows.size * width, config.dim.get(idx), vb.pp(format!("conv_{idx}")))?;
            let activation = config.activation.map(|kind| Activation::new(kind, vb.pp(format!("activation_{idx}"))));
            Ok((windows, linear, activation.transpose()?))
        };
        Ok(Self { table, convolutions: (0..config.count()).map(convolution).collect::<Result<_>>()? })
    }

    /// `(batch, len, chars)` u32 → `(batch, len, width)`.
    pub(super) fn forward(&self, chars: &Tensor) -> Result<Tensor> {
        let (batch, len, longest) = chars.dims3()?;
        let chars = chars.reshape((batch * len, longest))?;
        let mask = chars.ne(0u32)?;
        let xs = replace_padding(&ops::embedding(&self.table, &chars)?, &mask, 1, 0.0)?; // (words, chars, width)
        let mut parts = Vec::with_capacity(self.convolutions.len());
        for (windows, linear, activation) in &self.convolutions {
            let unfolded = Tensor::cat(&windows.places(&xs, 1, 0.0)?, 2)?; // (words, windows, size · width)
            let mut ys = linear.forward(&unfolded)?;
            if let Some(activation) = activation {
                ys = activation.forward(&ys)?;
            }
            parts.push(pool(&ys, 1, Some(&windows.mask(&mask)?), PoolType::Max)?);
        }
        let all = Tensor::cat(&parts, 1)?;
        let width = all.dim(1)?;
        all.reshape((batch, len, width))
    }
}
