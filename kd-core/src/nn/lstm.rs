//! A stack of bidirectional LSTM layers.

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::VarBuilder;
use candle_nn::init::Init;

use crate::ops::lstm::{LstmWeights, PackedLayer, bidirectional};
use crate::ops::packed::Precision;

/// Bidirectional LSTM layers over padded sequences, each over the concatenated states of the one below; no
/// dropout between layers.
///
/// Variables have PyTorch's names and shapes (`weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, the same with
/// `_reverse`, then `_l1` and so on), gate order (i, f, g, o) and start: uniform within `±1 / √hidden`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use kd_core::nn::BiLstm;
/// use kd_core::variables::Variables;
/// let variables = Variables::new(0, DType::F32, &Device::Cpu);
/// let lstm = BiLstm::new(5, 3, 2, variables.builder())?;
/// let xs = Tensor::ones((2, 4, 5), DType::F32, &Device::Cpu)?;
/// let states = lstm.forward(&xs, &[4, 1])?; // the second sequence has one token and three of padding
/// assert_eq!(states.dims(), [2, 4, 6]);
/// assert_eq!(states.get(1)?.get(2)?.to_vec1::<f32>()?, [0.0; 6]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BiLstm {
    layers: Vec<[LstmWeights; 2]>,
    /// The same layers packed, once [`BiLstm::freeze`] was called.
    packed: Vec<PackedLayer>,
    hidden: usize,
}

impl BiLstm {
    /// `layers` layers; the first reads vectors of `input`, each gives `2 · hidden`.
    ///
    /// # Errors
    /// If a size is 0, or `vb` has no such variables.
    pub fn new(input: usize, hidden: usize, layers: usize, vb: VarBuilder<'_>) -> Result<Self> {
        if input == 0 || hidden == 0 || layers == 0 {
            bail!("an lstm needs sizes above 0, found input {input}, hidden {hidden}, layers {layers}");
        }
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let direction = |layer: usize, suffix: &str| -> Result<LstmWeights> {
            let input = if layer == 0 { input } else { 2 * hidden };
            let name = |kind: &str| format!("{kind}_l{layer}{suffix}");
            Ok(LstmWeights {
                weight_ih: vb.get_with_hints((4 * hidden, input), &name("weight_ih"), init)?,
                weight_hh: vb.get_with_hints((4 * hidden, hidden), &name("weight_hh"), init)?,
                bias_ih: vb.get_with_hints(4 * hidden, &name("bias_ih"), init)?,
                bias_hh: vb.get_with_hints(4 * hidden, &name("bias_hh"), init)?,
            })
        };
        let layers = (0..layers)
            .map(|layer| Ok([direction(layer, "")?, direction(layer, "_reverse")?]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, packed: Vec::new(), hidden })
    }

    /// Packs the weights for inference on the CPU, as they are or rounded: forward passes are faster, keep no graph, and do not see later changes
    /// of the variables. On other devices and in other dtypes there is nothing to pack, and nothing changes.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn freeze(&mut self, precision: Precision) -> Result<()> {
        let packs =
            |weights: &LstmWeights| weights.weight_hh.device().is_cpu() && weights.weight_hh.dtype() == DType::F32;
        if self.layers.iter().flatten().all(packs) {
            let layers = self.layers.iter().map(|[forward, backward]| PackedLayer::new(forward, backward, precision));
            self.packed = layers.collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// A copy of the layers as they are now, without variables and without a gradient.
    ///
    /// # Errors
    /// If a weight cannot be copied.
    pub fn copy(&self) -> Result<Self> {
        let copy = |tensor: &Tensor| Ok::<_, candle_core::Error>(tensor.copy()?.detach());
        let direction = |weights: &LstmWeights| -> Result<LstmWeights> {
            Ok(LstmWeights {
                weight_ih: copy(&weights.weight_ih)?,
                weight_hh: copy(&weights.weight_hh)?,
                bias_ih: copy(&weights.bias_ih)?,
                bias_hh: copy(&weights.bias_hh)?,
            })
        };
        let layer = |[forward, backward]: &[LstmWeights; 2]| Ok([direction(forward)?, direction(backward)?]);
        Ok(Self { layers: self.layers.iter().map(layer).collect::<Result<_>>()?, ..self.clone() })
    }

    /// Size of the output's last dimension, `2 · hidden`.
    pub fn output(&self) -> usize {
        2 * self.hidden
    }

    /// States of the last layer, `(batch, len, input)` → `(batch, len, 2 · hidden)`; exactly 0 at padding.
    ///
    /// `lengths` has each sequence's number of tokens; what stands behind them is not read.
    ///
    /// # Errors
    /// If shapes do not fit, or a length is above `len`.
    pub fn forward(&self, xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let mut states = xs.clone();
        if !self.packed.is_empty() {
            for layer in &self.packed {
                states = layer.forward(&states, lengths)?;
            }
            return Ok(states);
        }
        for [left_to_right, right_to_left] in &self.layers {
            states = bidirectional(&states, lengths, left_to_right, right_to_left)?;
        }
        Ok(states)
    }
}
