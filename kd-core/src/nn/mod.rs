//! Layers: variables and the op that uses them.
//!
//! Each layer takes its variables from a `VarBuilder`, under PyTorch's names, and has a `forward`. The arithmetic is in
//! [`crate::ops`].

mod activation;
mod char_cnn;
mod crf;
mod lstm;
pub use activation::{Activation, ActivationKind};
pub use char_cnn::CharCnn;
pub use crf::Crf;
pub use lstm::BiLstm;

mod batch_norm;
mod embedding;
mod heads;
mod layer_norm;
mod linear;
pub use batch_norm::BatchNorm;
pub use embedding::Embedding;
pub use heads::{ForSet, HeadPerTeacher, HeadsOf, NewHead, Transfer};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
