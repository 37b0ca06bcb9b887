//! Blocks: the parts that a network in a JSON file is wired of.
//!
//! A block is a file with three things: a configuration, which is the `conf` of the file and knows what the block makes of
//! its inputs' shapes before there is a tensor; the block, which has variables; and its tests. A line in [`standard`]
//! gives it its name. [`crate::plan`] wires them.
//!
//! ```
//! use candle_core::Result;
//! use candle_nn::VarBuilder;
//! use kd_core::model::Mode;
//! use kd_students::blocks::{Block, BlockConfig, Kind, Shape, Site, Value};
//! use std::ops::RangeInclusive;
//!
//! /// `factor · x`, of any shape.
//! #[derive(Debug, Clone, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Scale { factor: f64 }
//!
//! impl BlockConfig for Scale {
//!     fn arity(&self) -> RangeInclusive<usize> { 1..=1 }
//!     fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> { Ok(inputs[0].clone()) }
//!     fn build(&self, _: &[Shape], _: &Site, _: VarBuilder) -> kd_students::Result<Box<dyn Block>> {
//!         Ok(Box::new(self.clone()))
//!     }
//! }
//!
//! impl Block for Scale {
//!     fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
//!         Ok(inputs[0].with((&inputs[0].tensor * self.factor)?))
//!     }
//! }
//!
//! let further = [Kind::of::<Scale>("Scale")]; // for `Plan::parse`
//! # let _ = further;
//! ```
//!
//! The layers and their parameters are those of Gong et al. 2019, "NeuronBlocks: Building your NLP DNN models like playing
//! Lego", version 1.1; what differs is said in each block's file.

mod attention;
mod bilinear_attention;
mod combination;
mod concat;
mod conv;
mod conv2d;
mod conv_pooling;
mod crf;
mod distance;
mod dropout;
mod elementwise;
pub mod embedding;
mod flatten;
mod full_attention;
mod highway_linear;
mod layer_norm;
mod linear;
mod linear_attention;
mod maps;
mod matrix_multiply;
mod pairwise;
mod pool;
mod pooling;
mod pooling_windows;
pub mod recurrent;
mod shape;
mod transformer;
mod trilinear;
mod value;
mod windows;

#[cfg(test)]
mod checks;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::de::DeserializeOwned;

pub use attention::{AttentionConfig, MatchAttentionConfig};
pub use bilinear_attention::BilinearAttentionConfig;
pub use combination::{CombinationConfig, Part};
pub use concat::{Concat2dConfig, Concat3dConfig};
pub use conv::ConvConfig;
pub use conv_pooling::ConvPoolingConfig;
pub use conv2d::Conv2dConfig;
pub use crf::CrfConfig;
pub use distance::{CalculateDistanceConfig, Distance};
pub use dropout::DropoutConfig;
pub use elementwise::{ElementwiseConfig, Operation};
pub use flatten::FlattenConfig;
pub use full_attention::FullAttentionConfig;
pub use highway_linear::HighwayLinearConfig;
pub use layer_norm::LayerNormConfig;
pub use linear::{LinearConfig, Width, Widths};
pub use linear_attention::LinearAttentionConfig;
pub use matrix_multiply::{MatrixMultiplyConfig, Product};
pub use pairwise::{ExpandPlusConfig, Expansion, InteractionConfig, MatchConfig, MatchingType};
pub use pool::PoolType;
pub use pooling::PoolingConfig;
pub use pooling_windows::{Pooling1dConfig, Pooling2dConfig, Sizes};
pub use shape::{Dim, Length, Shape};
pub use transformer::{MlpConfig, MultiHeadAttentionConfig, NoConfig, TransformerConfig};
pub use trilinear::{BiAttFlowConfig, Seq2SeqAttentionConfig};
pub use value::{Value, mask_or_ones, replace_padding};
pub use windows::PaddingType;

/// What a block knows of the place that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Site {
    /// Number of classes of the target, which is what `"#target#"` and `-1` mean as a width; `None` if it has none.
    pub classes: Option<usize>,
    /// Whether padding leaks as in the published code, to compare with it.
    pub legacy_padding: bool,
    /// Whether the first input is the output of a `Conv`, whose padding another `Conv` under `legacy_padding` reads as it is.
    pub after_conv: bool,
}

/// The configuration of a block: the `conf` of a layer.
///
/// A plan calls `infer` with as many shapes as `arity` allows, and `build` and `forward` only with what `infer` accepted.
pub trait BlockConfig: fmt::Debug + Send + Sync {
    /// Keys that published files have in `conf` and the published code never read: a warning instead of an error.
    fn ignored() -> &'static [&'static str]
    where
        Self: Sized,
    {
        &[]
    }

    /// How many inputs the block takes.
    fn arity(&self) -> RangeInclusive<usize>;

    /// Shape of the output for inputs of these shapes.
    ///
    /// # Errors
    /// What was expected and found, without the place, which the plan adds.
    fn infer(&self, inputs: &[Shape], site: &Site) -> Result<Shape, String>;

    /// The block for inputs of these shapes, its variables those of `vb`.
    ///
    /// A variable that needs another start than an [`Init`](candle_nn::Init) gets it only if `vb.contains_tensor` says that
    /// it is new: a plan builds blocks on tensors without memory to count their parameters, and twice to share them.
    ///
    /// # Errors
    /// If `vb` cannot give a variable.
    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>>;
}

/// A part of a network. Its forward pass is a pure function of variables, inputs and mode, but for the running statistics of
/// a [`BatchNorm`](kd_core::nn::BatchNorm) in training.
pub trait Block: fmt::Debug + Send + Sync {
    /// The output for these inputs, whose shapes are those the block was built for.
    ///
    /// Values of inputs on padding do not change what the output has on tokens.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn forward(&self, inputs: &[Value], mode: Mode) -> candle_core::Result<Value>;
}

type Parse = dyn Fn(serde_json::Value) -> Result<Box<dyn BlockConfig>, String> + Send + Sync;

/// A name for `layer`, and how its `conf` is read.
#[derive(Clone)]
pub struct Kind {
    name: String,
    ignored: &'static [&'static str],
    parse: Arc<Parse>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).field("ignored", &self.ignored).finish_non_exhaustive()
    }
}

impl Kind {
    /// Blocks whose configuration is a `C`.
    pub fn of<C: BlockConfig + DeserializeOwned + 'static>(name: impl Into<String>) -> Self {
        let parse = |conf| Ok(Box::new(parse_conf::<C>(conf)?) as Box<dyn BlockConfig>);
        Self { ignored: C::ignored(), ..Self::new(name, parse) }
    }

    /// Blocks whose configuration `parse` makes of the layer's `conf`, an object: for those that need more than the file
    /// says. Its error has no place, which the plan adds, but may begin with `key: `.
    pub fn new(
        name: impl Into<String>,
        parse: impl Fn(serde_json::Value) -> Result<Box<dyn BlockConfig>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), ignored: &[], parse: Arc::new(parse) }
    }

    /// What stands in `layer`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keys of `conf` that are read by nobody ([`BlockConfig::ignored`]).
    pub fn ignored(&self) -> &'static [&'static str] {
        self.ignored
    }

    /// The configuration in `conf`.
    ///
    /// # Errors
    /// If a key is unknown or a value is not what it should be.
    pub fn parse(&self, conf: serde_json::Value) -> Result<Box<dyn BlockConfig>, String> {
        (self.parse)(conf)
    }
}

/// `conf` as a `C`; the error begins with the key that it is about, below `conf`.
pub(crate) fn parse_conf<C: DeserializeOwned>(conf: serde_json::Value) -> Result<C, String> {
    serde_path_to_error::deserialize(conf).map_err(|error| match error.path().to_string() {
        path if path == "." => error.into_inner().to_string(),
        path => format!("{path}: {}", error.into_inner()),
    })
}

/// The block that the format calls `layer`, if it has one of that name.
pub fn standard(layer: &str) -> Option<Kind> {
    Some(match layer {
        "Attention" => Kind::of::<AttentionConfig>(layer),
        "BiAttFlow" => Kind::of::<BiAttFlowConfig>(layer),
        "BiGRU" => Kind::of::<recurrent::BiGruConfig>(layer),
        "BiGRULast" => Kind::of::<recurrent::BiGruLastConfig>(layer),
        "BiLSTM" => Kind::of::<recurrent::BiLstmConfig>(layer),
        "BiLSTMAtt" => Kind::of::<recurrent::BiLstmAttConfig>(layer),
        "BiLSTMLast" => Kind::of::<recurrent::BiLstmLastConfig>(layer),
        "BiQRNN" => Kind::of::<recurrent::BiQrnnConfig>(layer),
        "BilinearAttention" => Kind::of::<BilinearAttentionConfig>(layer),
        "CRF" => Kind::of::<CrfConfig>(layer),
        "CalculateDistance" => Kind::of::<CalculateDistanceConfig>(layer),
        "Combination" => Kind::of::<CombinationConfig>(layer),
        "Concat2D" => Kind::of::<Concat2dConfig>(layer),
        "Concat3D" => Kind::of::<Concat3dConfig>(layer),
        "Conv" => Kind::of::<ConvConfig>(layer),
        "Conv2D" => Kind::of::<Conv2dConfig>(layer),
        "ConvPooling" => Kind::of::<ConvPoolingConfig>(layer),
        "Dropout" => Kind::of::<DropoutConfig>(layer),
        "EncoderDecoder" => Kind::of::<recurrent::EncoderDecoderConfig>(layer),
        "Expand_plus" => Kind::of::<ExpandPlusConfig>(layer),
        "Flatten" => Kind::of::<FlattenConfig>(layer),
        "FullAttention" => Kind::of::<FullAttentionConfig>(layer),
        "HighwayLinear" => Kind::of::<HighwayLinearConfig>(layer),
        "Interaction" => Kind::of::<InteractionConfig>(layer),
        "LayerNorm" => Kind::of::<LayerNormConfig>(layer),
        "Linear" => Kind::of::<LinearConfig>(layer),
        "LinearAttention" => Kind::of::<LinearAttentionConfig>(layer),
        "MLP" => Kind::of::<MlpConfig>(layer),
        "Match" => Kind::of::<MatchConfig>(layer),
        "MatchAttention" => Kind::of::<MatchAttentionConfig>(layer),
        "MatrixMultiply" => Kind::of::<MatrixMultiplyConfig>(layer),
        "MultiHeadAttention" => Kind::of::<MultiHeadAttentionConfig>(layer),
        "Pooling" => Kind::of::<PoolingConfig>(layer),
        "Pooling1D" => Kind::of::<Pooling1dConfig>(layer),
        "Pooling2D" => Kind::of::<Pooling2dConfig>(layer),
        "Seq2SeqAttention" => Kind::of::<Seq2SeqAttentionConfig>(layer),
        "Transformer" => Kind::of::<TransformerConfig>(layer),
        _ => return ElementwiseConfig::kind(layer),
    })
}
