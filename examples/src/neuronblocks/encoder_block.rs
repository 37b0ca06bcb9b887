//! `Encoder`: the first layers of a pretrained encoder as a block, from outside the crate that has the others.
//!
//! ```json
//! {"layer_id": "bert", "layer": "Encoder", "conf": {"model": "intfloat/e5-small", "layers": 3}, "inputs": ["pair"]}
//! ```
//!
//! Its input is a branch that is in no cluster of the `Embedding`: one column of text, or two that are read as a pair. They
//! are cut into the checkpoint's own word pieces, at most `max_len` of them with start and end. The output is
//! `(batch, pieces, hidden)`, the last of the layers that are kept; the piece `[CLS]` stands first.

use std::ops::RangeInclusive;

use candle_core::Device;
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_students::blocks::{Block, BlockConfig, Dim, Kind, Shape, Site, Value};
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::Encoder;
use kd_teachers::heads::{Pooling, Representation, RepresentationOptions};
use kd_teachers::hub::{HubEnvironment, ModelFiles};
use serde::Deserialize;

/// Word pieces of a text where `max_len` says nothing.
const MAX_LEN: usize = 128;

/// The name of the block.
pub const NAME: &str = "Encoder";

/// `conf` of the block.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderBlock {
    /// Hub id or folder of the checkpoint.
    pub model: String,
    /// Revision of the id.
    #[serde(default = "main")]
    pub revision: String,
    /// How many layers are kept, the first; all by default.
    #[serde(default)]
    pub layers: Option<usize>,
    /// Most word pieces that are read of a text or pair.
    #[serde(default = "max_len")]
    pub max_len: usize,
}

fn main() -> String {
    "main".to_string()
}

fn max_len() -> usize {
    MAX_LEN
}

impl EncoderBlock {
    /// What stands for it in a plan: its checkpoint is found when the plan is parsed, so that shapes are known.
    pub fn kind() -> Kind {
        Kind::new(NAME, |conf| {
            let block: EncoderBlock = serde_json::from_value(conf).map_err(|error| error.to_string())?;
            Ok(Box::new(block.open()?) as Box<dyn BlockConfig>)
        })
    }

    /// The files of the checkpoint.
    ///
    /// # Errors
    /// If they are not in the hub's cache or folder, and cannot be downloaded.
    pub fn files(&self) -> Result<ModelFiles, String> {
        let environment = HubEnvironment::from_env().map_err(|error| format!("model: {error}"))?;
        ModelFiles::find(&self.model, &self.revision, &environment).map_err(|error| format!("model: {error}"))
    }

    fn open(self) -> Result<Opened, String> {
        let files = self.files()?;
        let config = EncoderConfig::read(&files.config).map_err(|error| format!("model: {error}"))?;
        if let Some(layers) = self.layers.filter(|layers| !(1..=config.layers).contains(layers)) {
            return Err(format!(
                "layers: expected 1 to {}, as many as the checkpoint has, found {layers}",
                config.layers
            ));
        }
        if !(3..=config.max_positions).contains(&self.max_len) {
            let most = config.max_positions;
            return Err(format!("max_len: expected 3 to {most}, the checkpoint's positions, found {}", self.max_len));
        }
        Ok(Opened { layers: self.layers, files, hidden: config.hidden })
    }
}

/// The encoders of an architecture, by their `layer_id`.
///
/// # Errors
/// If a `conf` is none.
pub fn blocks(architecture: &serde_json::Value) -> serde_json::Result<Vec<(String, EncoderBlock)>> {
    let items = architecture.as_array().map(Vec::as_slice).unwrap_or_default();
    let block = |item: &serde_json::Value| {
        let id = item["layer_id"].as_str().unwrap_or_default().to_string();
        Ok((id, serde_json::from_value(item["conf"].clone())?))
    };
    items.iter().filter(|item| item["layer"] == NAME).map(block).collect()
}

/// A checkpoint whose files were found.
#[derive(Debug)]
struct Opened {
    layers: Option<usize>,
    files: ModelFiles,
    hidden: usize,
}

impl BlockConfig for Opened {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> Result<Shape, String> {
        match &inputs[0].0[..] {
            [len] => Ok(Shape(vec![*len, Dim::Fixed(self.hidden)])),
            _ => Err(format!("expected a branch that no cluster embeds, found the shape {}", inputs[0])),
        }
    }

    fn build(&self, _: &[Shape], _: &Site, vb: VarBuilder<'_>) -> kd_students::Result<Box<dyn Block>> {
        let wrong = |error: kd_teachers::Error| candle_core::Error::msg(error.to_string());
        let options = RepresentationOptions { layers: self.layers, pooling: Pooling::Mean, ..Default::default() };
        let (body, variables) = Representation::from_files(&self.files, 0, &Device::Cpu, &options).map_err(wrong)?;
        for (name, start) in variables.tensors() {
            if !vb.contains_tensor(&name) {
                let variable = vb.get(start.shape(), &name)?;
                let start = start.detach().to_dtype(variable.dtype())?.to_device(variable.device())?;
                variable.slice_set(&start.contiguous()?, 0, 0)?;
            }
        }
        Ok(Box::new(Layers(Encoder::new(body.encoder().config(), vb)?)))
    }
}

/// The layers.
#[derive(Debug)]
struct Layers(Encoder);

impl Block for Layers {
    fn forward(&self, inputs: &[Value], mode: Mode) -> candle_core::Result<Value> {
        let Some(sequence) = &inputs[0].sequence else {
            candle_core::bail!("expected the word pieces of a branch, found the output of a layer")
        };
        Ok(Value::masked(self.0.forward(sequence, mode)?, Some(sequence.mask.clone())))
    }
}
