//! Differentiable kernels: what Candle lacks a backward or a fast forward for.
//!
//! Each op is a plain function of tensors. On the CPU in `f32` and `f64` it is one Candle custom op with an analytic
//! backward, and so it is on a CUDA device in `f32`, `f64` and `bf16` where `cuda` (behind the feature of that name) has
//! kernels for it; elsewhere it is composed of Candle's differentiable operations and gives the same values. On the CPU the
//! bytes of outputs and gradients do not depend on the number of threads.
//!
//! | op | shapes | instead of |
//! |---|---|---|
//! | [`linear()`], [`linear_activation`] | `(.., in)` → `(.., out)` | `candle_nn::Linear`, wrong on some strides |
//! | [`layer_norm()`], [`layer_norm_residual`] | `(.., width)` → same | `candle_nn::LayerNorm`, no backward |
//! | [`softmax()`], [`log_softmax`], [`masked_softmax`] | `(.., classes)` → same | `softmax_last_dim`, no backward |
//! | [`gelu()`] | any → same | |
//! | [`dropout()`] | any → same | `candle_nn::ops::dropout`, cannot be seeded on the CPU |
//! | [`attention()`] | three `(batch, len, hidden)` → same | a dozen operations and copies |
//! | [`encoder_layer()`] | `(batch, len, hidden)` → same | the above, and Candle's frame around each |
//! | [`embedding()`] | ids → `(.., width)` | |
//! | [`distillation`] | two `(rows, classes)` → `(rows,)` | softmax, KL and cross-entropy one by one |
//!
//! For inference only, [`packed`] has linear layers of f32, bf16 or int8 whose weights are packed once.
//!
//! [`backward()`] is `loss.backward()` with less work between the ops.

pub mod attention;
pub mod backward;
pub mod char_cnn;
pub mod cpu;
pub mod crf;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod distillation;
pub mod dropout;
pub mod embedding;
pub mod encoder_layer;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod lstm;
pub mod packed;
pub mod softmax;

mod pieces;
mod tie;

pub use attention::{attention, attention_probs};
pub use backward::backward;
pub use dropout::dropout;
pub use embedding::embedding;
pub use encoder_layer::encoder_layer;
pub use gelu::gelu;
pub use layer_norm::{layer_norm, layer_norm_residual};
pub use linear::{Activation, linear, linear_activation};
pub use softmax::{log_softmax, masked_softmax, softmax};
