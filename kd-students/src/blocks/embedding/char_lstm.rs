//! `LSTMCharEmbedding`: a word's vector by an LSTM over its characters.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::nn::BiLstm;
use kd_core::ops;
use serde::Deserialize;
use serde_json::Value as Json;

use super::super::dropout::check_probability;
use super::super::parse_conf;
use super::super::recurrent::{LstmCell, last_states};
use super::table;

/// The state at a word's last character, and that of an LSTM from the last to the first at its first (Lample et al. 2016,
/// §4.1); padding is not read.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `embedding.weight` | `(rows, embedding_matrix_dim)` | uniform in ±0.001, row 0 zero |
/// | `lstm.*` | that of [`BiLstm`] with `dim / 2` units, or of one direction with `dim` | uniform in `±1/√units` |
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LstmCharConfig {
    /// Width of a word's vector, ≥ 1, even with two directions; 50 as in the format.
    pub dim: usize,
    /// Width of a character's vector, ≥ 1; 30 as in the format.
    pub embedding_matrix_dim: usize,
    /// Probability of dropping a value of a character's vector, in `[0, 1)`; 0.2 as in the format.
    pub dropout: f64,
    /// Whether there is a second direction; true as in the format.
    pub bidirect_flag: bool,
}

impl Default for LstmCharConfig {
    fn default() -> Self {
        Self { dim: 50, embedding_matrix_dim: 30, dropout: 0.2, bidirect_flag: true }
    }
}

impl LstmCharConfig {
    pub(super) fn parse(conf: Json) -> std::result::Result<Self, String> {
        let config: Self = parse_conf(conf)?;
        check_probability("dropout", config.dropout)?;
        for (key, found) in [("dim", config.dim), ("embedding_matrix_dim", config.embedding_matrix_dim)] {
            if found == 0 {
                return Err(format!("{key}: expected at least 1, found 0"));
            }
        }
        if config.bidirect_flag && !config.dim.is_multiple_of(2) {
            return Err(format!("dim: expected an even number, half for each direction, found {}", config.dim));
        }
        Ok(config)
    }
}

#[derive(Debug)]
pub(super) struct LstmChar {
    table: Tensor,
    lstm: Directions,
    dropout: f64,
}

#[derive(Debug)]
enum Directions {
    One(LstmCell),
    Two(BiLstm),
}

impl LstmChar {
    pub(super) fn new(config: &LstmCharConfig, rows: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let width = config.embedding_matrix_dim;
        let init = Init::Uniform { lo: -0.001, up: 0.001 };
        let table = table((rows, width), init, &vb.pp("embedding"))?;
        let lstm = if config.bidirect_flag {
            Directions::Two(BiLstm::new(width, config.dim / 2, 1, vb.pp("lstm"))?)
        } else {
            Directions::One(LstmCell::new(width, config.dim, 0, vb.pp("lstm"))?)
        };
        Ok(Self { table, lstm, dropout: config.dropout })
    }

    /// `(batch, len, chars)` u32 → `(batch, len, dim)`.
    pub(super) fn forward(&self, chars: &Tensor, mode: Mode) -> Result<Tensor> {
        let (batch, len, longest) = chars.dims3()?;
        let chars = chars.reshape((batch * len, longest))?;
        let mask = chars.ne(0u32)?;
        let xs = ops::dropout(&ops::embedding(&self.table, &chars)?, self.dropout, mode)?;
        let last = match &self.lstm {
            Directions::Two(lstm) => {
                let lengths: Vec<u32> = mask.to_dtype(DType::U32)?.sum(1)?.to_vec1()?;
                let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
                last_states(&lstm.forward(&xs, &lengths)?, &lengths)?
            }
            Directions::One(cell) => cell.last_state(&xs, &mask)?,
        };
        let width = last.dim(1)?;
        last.reshape((batch, len, width))
    }
}
