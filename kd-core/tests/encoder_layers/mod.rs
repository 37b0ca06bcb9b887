//! An encoder layer of given weights, for the tests of several files.

use candle_core::Tensor;
use kd_core::ops::Activation;
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};

/// `weights` are weight and bias of each part, in the order of the layer's fields; `dropout` is that of attention, behind
/// `W_o` and behind `W_2`.
pub(crate) fn encoder_layer_of(weights: &[Tensor], heads: usize, dropout: [f64; 3]) -> EncoderLayer {
    let affine = |idx: usize| Affine { weight: weights[2 * idx].clone(), bias: weights[2 * idx + 1].clone() };
    EncoderLayer {
        query: affine(0),
        key: affine(1),
        value: affine(2),
        output: affine(3),
        attention_norm: affine(4),
        inner: affine(5),
        activation: Activation::Gelu,
        outer: affine(6),
        norm: affine(7),
        heads,
        eps: 1e-3,
        attention_dropout: dropout[0],
        output_dropout: dropout[1],
        hidden_dropout: dropout[2],
    }
}
