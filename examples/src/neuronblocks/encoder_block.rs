//! `Encoder`: the first layers of a pretrained encoder as a block, from outside the crate that has the others.
//!
//! ```json
//! {"layer_id": "bert", "layer": "Encoder", "conf": {"model": "intfloat/e5-small", "layers": 3}, "inputs": ["pair"]}
//! ```
//!
//! Its input is a branch that is in no cluster of the `Embedding`: one column of text, or two that are read as a pair. They
//! are cut into the checkpoint's own word pieces, at most `max_len` of them with start and end. The output is
//! `(batch, pieces, hidden)`, the last of the layers that are kept; the piece `[CLS]` stands first.
//!
//! A saved model has configuration and tokenizer of the checkpoint in `encoders/`, and needs the checkpoint no more.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use candle_core::Device;
use candle_nn::VarBuilder;
use kd_core::checkpoint::replace_file_with;
use kd_core::model::Mode;
use kd_data::digest;
use kd_students::blocks::{Block, BlockConfig, Dim, Kind, Shape, Site, Value};
use kd_students::plan::Plan;
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::Encoder;
use kd_teachers::heads::{Pooling, Representation, RepresentationOptions};
use kd_teachers::hub::{HubEnvironment, ModelFiles};
use serde::Deserialize;

use super::blueprint::PASSAGE;
use super::configuration::{Configuration, Problem};

/// Word pieces of a text where `max_len` says nothing.
const MAX_LEN: usize = 128;

/// The name of the block.
pub const NAME: &str = "Encoder";

/// Folder of a saved model that has a folder for each checkpoint.
const FOLDER: &str = "encoders";
/// Files that may stand beside a tokenizer's and belong to it.
const BESIDE_TOKENIZER: [&str; 2] = ["merges.txt", "tokenizer_config.json"];
/// Characters of a digest that name a checkpoint's folder.
const FOLDER_NAME: usize = 16;
/// The checkpoint's configuration there.
const CONFIG: &str = "config.json";

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
    /// What stands for it in a plan: its checkpoint is found when the plan is parsed, so that shapes are known. `model` is the
    /// folder of the saved model that the network is of, if it is of one.
    pub fn kind(model: Option<&Path>) -> Kind {
        let model = model.map(Path::to_path_buf);
        Kind::new(NAME, move |conf| {
            let block: EncoderBlock = serde_json::from_value(conf).map_err(|error| error.to_string())?;
            Ok(Box::new(block.open(model.as_deref())?) as Box<dyn BlockConfig>)
        })
    }

    /// The files of the checkpoint; those of a saved model are configuration and tokenizer, and no weights.
    ///
    /// # Errors
    /// If they are not in the model's folder, or not in the hub's cache or folder and cannot be downloaded.
    pub fn files(&self, model: Option<&Path>) -> Result<ModelFiles, String> {
        if let Some(model) = model {
            return self.saved(model);
        }
        let environment = HubEnvironment::from_env().map_err(|error| format!("model: {error}"))?;
        ModelFiles::find(&self.model, &self.revision, &environment).map_err(|error| format!("model: {error}"))
    }

    fn folder(&self, model: &Path) -> PathBuf {
        model.join(FOLDER).join(&digest::of_parts([&self.model, &self.revision])[..FOLDER_NAME])
    }

    fn saved(&self, model: &Path) -> Result<ModelFiles, String> {
        let folder = self.folder(model);
        let wrong = |error: std::io::Error| format!("model: {}: {error}", folder.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(wrong)? {
            names.push(entry.map_err(wrong)?.file_name());
        }
        let is_tokenizer = |name: &&std::ffi::OsString| {
            let name = name.to_string_lossy();
            name != CONFIG && !BESIDE_TOKENIZER.contains(&&*name) && !name.ends_with(".partial")
        };
        let tokenizer = names.iter().find(is_tokenizer);
        let tokenizer =
            tokenizer.ok_or_else(|| format!("model: {}: expected a tokenizer, found none", folder.display()))?;
        Ok(ModelFiles {
            config: folder.join(CONFIG),
            weights: Vec::new(),
            pickle: false,
            tokenizer: folder.join(tokenizer),
            id: self.model.clone(),
            revision: self.revision.clone(),
        })
    }

    /// Copies what a saved model needs of the checkpoint into the model's folder `to`.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, from: Option<&Path>, to: &Path) -> anyhow::Result<()> {
        let (files, folder) = (self.files(from).map_err(anyhow::Error::msg)?, self.folder(to));
        let copy = |from: &Path, name: &std::ffi::OsStr| -> anyhow::Result<()> {
            let bytes = std::fs::read(from).with_context(|| from.display().to_string())?;
            Ok(replace_file_with(&folder.join(name), &bytes)?)
        };
        copy(&files.config, CONFIG.as_ref())?;
        copy(&files.tokenizer, files.tokenizer.file_name().unwrap_or_default())?;
        for name in BESIDE_TOKENIZER {
            let beside = files.tokenizer.with_file_name(name);
            if beside.exists() {
                copy(&beside, name.as_ref())?;
            }
        }
        Ok(())
    }

    fn open(self, model: Option<&Path>) -> Result<Opened, String> {
        let files = self.files(model)?;
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

/// Checks what encoders read.
///
/// # Errors
/// If the words of a branch that one reads have tags or answers, which its pieces have not; if it reads more than a pair; or if
/// several read one branch. The message has the path.
pub fn check(configuration: &Configuration, plan: &Plan) -> anyhow::Result<()> {
    let problem = configuration.inputs.problem;
    let first = configuration.inputs.model_inputs.first().map(|(name, _)| name);
    let mut read: Vec<(&String, &String)> = Vec::new();
    for layer in plan.layers().iter().filter(|layer| layer.block == NAME) {
        let Some(branch) = layer.inputs.first() else { continue };
        let path = format!("{}.inputs[0]", layer.path);
        if problem == Problem::SequenceTagging && Some(branch) == first {
            bail!("{path}: expected no Encoder of `{branch}`, whose words have tags, for it gives pieces of words");
        }
        if problem == Problem::Mrc && branch == PASSAGE {
            bail!(
                "{path}: expected no Encoder of `{branch}`, in whose words answers are sought, for it gives pieces of words"
            );
        }
        if let Some((_, other)) = read.iter().find(|(other, _)| *other == branch) {
            bail!("{path}: expected a branch that no other Encoder reads, found `{branch}`, which `{other}` reads");
        }
        let columns = plan.branches().iter().find(|it| it.name == *branch).map_or(0, |it| it.columns.len());
        if columns > 2 {
            bail!("{path}: expected a branch of a text or a pair, found `{branch}` of {columns} columns");
        }
        read.push((branch, &layer.id));
    }
    Ok(())
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
        if self.files.weights.is_empty() {
            // Of a saved model, whose weights follow.
            let config = EncoderConfig::read(&self.files.config).map_err(wrong)?;
            let body = Representation::new(&config, &options, vb).map_err(wrong)?;
            return Ok(Box::new(Layers(body.encoder().clone())));
        }
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
