//! Recurrent blocks: states that run along a text, in both directions.
//!
//! | block | file | output |
//! |---|---|---|
//! | `BiLSTM` | [`BiLstmConfig`] | `(batch, len, 2 · hidden_dim)` |
//! | `BiLSTMLast` | [`BiLstmLastConfig`] | `(batch, 2 · hidden_dim)` |
//! | `BiLSTMAtt` | [`BiLstmAttConfig`] | `(batch, len, 2 · hidden_dim)` |
//! | `BiGRU`, `BiGRULast` | [`BiGruConfig`], [`BiGruLastConfig`] | as the LSTMs |
//! | `BiQRNN` | [`BiQrnnConfig`] | `(batch, len, 2 · hidden_dim)` |
//! | `EncoderDecoder` | [`EncoderDecoderConfig`] | `(batch, len, classes)` |
//!
//! Sequences run from their first token to their last and back, as PyTorch's packed sequences: padding is not read, and what
//! a block gives there is 0.

mod bi_gru;
mod bi_lstm;
mod bi_lstm_att;
mod bi_qrnn;
mod encoder_decoder;
mod lstm_cell;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};
use kd_core::batch::Rows;

use super::{Shape, dropout::check_probability};

pub use bi_gru::{BiGruConfig, BiGruLastConfig};
pub use bi_lstm::{BiLstmConfig, BiLstmLastConfig};
pub use bi_lstm_att::BiLstmAttConfig;
pub use bi_qrnn::BiQrnnConfig;
pub use encoder_decoder::{DecoderConfig, DecoderName, EncoderDecoderConfig, EncoderName};
pub(crate) use lstm_cell::LstmCell;

/// Checks sizes that every recurrent block has, and gives the width of its input.
fn check(input: &Shape, hidden: usize, layers: usize, dropout: f64) -> std::result::Result<usize, String> {
    if hidden == 0 {
        return Err("hidden_dim: expected at least 1, found 0".to_string());
    }
    if layers == 0 {
        return Err("num_layers: expected at least 1, found 0".to_string());
    }
    check_probability("dropout", dropout)?;
    input.expect_rank([3])?;
    input.width()
}

/// The first half of the last token's state and the second half of the first token's, `(batch, len, width)` → `(batch,
/// width)`; zeros for a text of no tokens.
pub(crate) fn last_states(states: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let half = states.dim(2)? / 2;
    let forward = of_last_token(&states.narrow(2, 0, half)?, lengths)?;
    let backward = states.narrow(2, half, half)?.narrow(1, 0, 1)?.squeeze(1)?;
    Tensor::cat(&[forward, backward], 1)
}

/// What stands at each text's last token, `(batch, len, width)` → `(batch, width)`; at the first place of one without tokens.
fn of_last_token(states: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (batch, len, _) = states.dims3()?;
    let last = lengths.iter().enumerate().map(|(text, length)| (text * len + length.saturating_sub(1)) as u32);
    let index = Tensor::new(last.collect::<Vec<u32>>(), states.device())?;
    Rows::Words { index, per_example: vec![1; batch] }.select(states)
}
