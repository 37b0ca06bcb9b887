//! `EncoderDecoder`: a class for each token that depends on the classes before it.

use std::ops::RangeInclusive;

use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::nn::{Embedding, Linear};
use kd_core::ops;
use serde::Deserialize;

use super::super::dropout::check_probability;
use super::super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};
use super::bi_lstm::{BiLstmConfig, Stack};
use super::{LstmCell, of_last_token};

/// The aligned encoder and decoder with attention of Liu and Lane 2016, §3.1, for tagging, `(batch, len, input)` → `(batch, len,
/// classes)` log-probabilities.
///
/// A [`BiLstmConfig`] encodes the text to `e`. An LSTM then reads at token `t` the vector of the class it has said of the
/// token before, a context and `e_t`, and says the class of `t` from its state and that context; the next context is `softmax(e
/// (A s_t)) e` over the text. The first class is one of its own and the first context the encoder's state at the last token.
/// In training, too, the decoder reads what it said itself.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `encoder.layers.N.*` | of the LSTM | |
/// | `decoder.embedding.weight` | `(classes + 1, decoder_emb_dim)` | uniform in ±0.1; the last row is the first class read |
/// | `decoder.lstm.*_lN` | of an LSTM, `N` the layer | uniform in `±1/√hidden_dim` |
/// | `decoder.attention.*` | `2 · encoder hidden_dim → layers · hidden_dim` | as `nn.Linear` |
/// | `decoder.output.*` | `2 · encoder hidden_dim + layers · hidden_dim → classes` | as `nn.Linear` |
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderDecoderConfig {
    /// Which encoder.
    pub encoder: EncoderName,
    /// Its sizes, those of a `BiLSTM`.
    pub encoder_conf: BiLstmConfig,
    /// Which decoder.
    pub decoder: DecoderName,
    /// Its sizes.
    pub decoder_conf: DecoderConfig,
}

/// Names of encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum EncoderName {
    /// A bidirectional LSTM.
    #[default]
    #[serde(rename = "SLUEncoder")]
    Slu,
}

/// Names of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum DecoderName {
    /// An LSTM with attention that reads its own classes.
    #[default]
    #[serde(rename = "SLUDecoder")]
    Slu,
}

/// Sizes of a decoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderConfig {
    /// Width of the state, ≥ 1; 128 as in the format.
    pub hidden_dim: usize,
    /// Probability of dropping a value between two layers, in `[0, 1)`; 0 as in the format.
    pub dropout: f64,
    /// Layers, ≥ 1; 1 as in the format.
    pub num_layers: usize,
    /// Width of a class's vector, ≥ 1; 100 as in the format.
    pub decoder_emb_dim: usize,
}

impl Default for EncoderDecoderConfig {
    fn default() -> Self {
        Self {
            encoder: EncoderName::Slu,
            encoder_conf: BiLstmConfig::default(),
            decoder: DecoderName::Slu,
            decoder_conf: DecoderConfig::default(),
        }
    }
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self { hidden_dim: 128, dropout: 0.0, num_layers: 1, decoder_emb_dim: 100 }
    }
}

impl EncoderDecoderConfig {
    fn classes(&self, site: &Site) -> std::result::Result<usize, String> {
        match site.classes {
            Some(classes) if classes > 0 => Ok(classes),
            found => Err(format!("decoder: expected a target with classes, found {found:?}")),
        }
    }
}

impl BlockConfig for EncoderDecoderConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], site: &Site) -> std::result::Result<Shape, String> {
        let DecoderConfig { hidden_dim, dropout, num_layers, decoder_emb_dim } = self.decoder_conf;
        for (key, found) in
            [("hidden_dim", hidden_dim), ("num_layers", num_layers), ("decoder_emb_dim", decoder_emb_dim)]
        {
            if found == 0 {
                return Err(format!("decoder_conf.{key}: expected at least 1, found 0"));
            }
        }
        check_probability("decoder_conf.dropout", dropout)?;
        // A message about a key of the encoder gets the key of its conf; one about the input has none.
        self.encoder_conf.check(&inputs[0]).map_err(|message| match message.split_once(": ") {
            Some((key, _)) if !key.contains(' ') => format!("encoder_conf.{message}"),
            _ => message,
        })?;
        Ok(inputs[0].with_width(self.classes(site)?))
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let input = inputs[0].width().map_err(candle_core::Error::msg)?;
        let classes = self.classes(site).map_err(candle_core::Error::msg)?;
        let encoded = 2 * self.encoder_conf.hidden_dim;
        let DecoderConfig { hidden_dim: hidden, dropout, num_layers, decoder_emb_dim: width } = self.decoder_conf;
        let encoder = Stack::new(&self.encoder_conf, input, vb.pp("encoder"))?;
        let vb = vb.pp("decoder");
        let init = Init::Uniform { lo: -0.1, up: 0.1 };
        let cell = |layer: usize| {
            let input = if layer == 0 { width + 2 * encoded } else { hidden };
            LstmCell::new(input, hidden, layer, vb.pp("lstm"))
        };
        Ok(Box::new(EncoderDecoder {
            encoder,
            embedding: Embedding::new(classes + 1, width, init, vb.pp("embedding"))?,
            cells: (0..num_layers).map(cell).collect::<Result<_>>()?,
            attention: Linear::new(encoded, num_layers * hidden, vb.pp("attention"))?,
            output: Linear::new(encoded + num_layers * hidden, classes, vb.pp("output"))?,
            dropout,
            classes,
        }))
    }
}

#[derive(Debug)]
struct EncoderDecoder {
    encoder: Stack,
    embedding: Embedding,
    cells: Vec<LstmCell>,
    attention: Linear,
    output: Linear,
    dropout: f64,
    classes: usize,
}

impl Block for EncoderDecoder {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let input = &inputs[0];
        let lengths = input.lengths()?;
        let encoded = self.encoder.forward(&input.vectors()?, &lengths, mode.site(0))?; // (batch, len, 2 · hidden)
        let (batch, len, _) = encoded.dims3()?;
        let mask = mask_or_ones(input.mask.as_ref(), batch, len, &encoded)?;
        let keys = self.attention.forward(&encoded)?; // (batch, len, layers · hidden)
        let by_time = encoded.transpose(0, 1)?.contiguous()?;
        let mut context = of_last_token(&encoded, &lengths)?;
        let mut said = Tensor::full(self.classes as u32, batch, encoded.device())?;
        let mut states = self.cells.iter().map(|cell| cell.zeros(batch)).collect::<Result<Vec<_>>>()?;
        let mut decoded = Vec::with_capacity(len);
        for step in 0..len {
            let mut x = Tensor::cat(&[&self.embedding.forward(&said)?, &context, &by_time.get(step)?], 1)?;
            for (layer, (cell, state)) in self.cells.iter().zip(&mut states).enumerate() {
                if layer > 0 {
                    x = ops::dropout(&x, self.dropout, mode.site(1).site(step as u64).site(layer as u64))?;
                }
                *state = cell.step(&x, state)?;
                x = state.0.clone();
            }
            let state = Tensor::cat(&states.iter().map(|(state, _)| state).collect::<Vec<_>>(), 1)?;
            let log_probs = ops::log_softmax(&self.output.forward(&Tensor::cat(&[&state, &context], 1)?)?)?;
            said = log_probs.detach().argmax(D::Minus1)?;
            decoded.push(log_probs);
            let scores = keys.matmul(&state.unsqueeze(2)?)?.squeeze(2)?; // (batch, len)
            let probs = ops::masked_softmax(&scores, 1.0, &mask, 0.0, Mode::Eval)?;
            context = probs.unsqueeze(1)?.matmul(&encoded)?.squeeze(1)?;
        }
        Ok(input.with_last(Tensor::stack(&decoded, 1)?))
    }
}
