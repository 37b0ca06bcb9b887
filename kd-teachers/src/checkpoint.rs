//! Pretrained weights from safetensors files (or, where that is allowed, PyTorch's), under one name each.
//!
//! Published checkpoints spell one model in several ways. Here a tensor has the name that transformers' model without a head
//! gives it, without the prefix that it has in a model with one:
//!
//! | in the file                                 | here                                |
//! |---------------------------------------------|-------------------------------------|
//! | `bert.X`, `roberta.X`, `distilbert.X`, ...  | `X`                                 |
//! | `X.LayerNorm.gamma`, `X.LayerNorm.beta`     | `X.LayerNorm.weight`, `….bias`      |
//! | [`NOT_USED`]: pretraining heads             | nothing                             |
//! | `X` I8 `(rows, columns)` with `X.scale`     | `X`, see [`crate::int8`]            |
//!
//! Everything else in a file must belong to a variable, and every variable must be in a file; a [`Part`] may leave heads and
//! poolers out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::pickle::{PthTensors, TensorInfo};
use candle_core::{DType, Device, Tensor, Var};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::config::Family;
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::int8;

/// What is left out of a checkpoint: position numbers that some versions stored, and the heads of pretraining and question
/// answering. A name that ends in a dot stands for all that begin with it.
pub const NOT_USED: [&str; 14] = [
    "embeddings.position_ids",
    "cls.",
    "qa_outputs.",
    // DistilBERT
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    // RoBERTa, MPNet
    "lm_head.",
    // ALBERT
    "predictions.",
    "sop_classifier.",
    // ELECTRA
    "discriminator_predictions.",
    "generator_predictions.",
    "generator_lm_head.",
    // XLNet
    "lm_loss.",
    "mask_emb",
];

/// What the names of heads' variables begin with; the last is that of [`kd_core::nn::HeadPerTeacher`].
pub const HEADS: [&str; 5] = ["classifier.", "pre_classifier.", "sequence_summary.", "logits_proj.", "heads."];

/// What the names of a pooler's variables begin with. It belongs to the encoder in transformers, but only some heads use it.
pub const POOLER: &str = "pooler.";

/// Whether a variable belongs to a head, and not to the encoder or its pooler.
pub fn is_head(name: &str) -> bool {
    HEADS.iter().any(|head| name.starts_with(head))
}

/// Which variables are to be set from a checkpoint. A pooler in the checkpoint that the model does not have is never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The encoder's; head and pooler keep their values, and those in the checkpoint are not used.
    Encoder,
    /// The encoder's, and the pooler's if the checkpoint has one; the head keeps its values.
    EncoderAndPooler,
    /// All of them.
    Whole,
}

/// The tensors of a checkpoint, f32 on the CPU, by the name they have here.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<PathBuf>,
    family: Family,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug)]
struct Stored {
    tensor: Tensor,
    stored_name: String,
}

impl Checkpoint {
    /// Reads the weights of a model of `family`, pickled ones if they were allowed when the files were found.
    ///
    /// # Errors
    /// As [`Checkpoint::read`] or [`Checkpoint::read_pickle`].
    pub fn of(files: &ModelFiles, family: Family) -> Result<Self> {
        if files.pickle { Self::read_pickle(&files.weights, family) } else { Self::read(&files.weights, family) }
    }

    /// Reads all of `files`, the shards of one model of `family`.
    ///
    /// # Errors
    /// If a file cannot be read, is no safetensors file, has a tensor of another dtype than F32, F16, BF16 or I8 with
    /// a scale, or if two tensors have the same name here.
    pub fn read(files: &[PathBuf], family: Family) -> Result<Self> {
        let mut checkpoint = Self { files: files.to_vec(), family, tensors: BTreeMap::new() };
        for path in files {
            let bytes = std::fs::read(path).map_err(|source| Error::io(path, &source))?;
            let wrong = wrong_in(path);
            if bytes.starts_with(b"PK\x03\x04") {
                return Err(wrong("expected a safetensors file, found a zip file, as torch.save writes them".into()));
            }
            let file = SafeTensors::deserialize(&bytes)
                .map_err(|source| wrong(format!("expected a safetensors file: {source}")))?;
            let mut views: Vec<(&str, TensorView<'_>)> = file.iter().collect();
            views.sort_by_key(|(name, _)| *name);
            for (stored_name, view) in views {
                let Some(name) = canonical(stored_name, family) else { continue };
                if is_scale(&file, stored_name) {
                    continue;
                }
                let tensor = decode(&file, stored_name, &view).map_err(&wrong)?;
                checkpoint.insert(name, tensor, stored_name, path)?;
            }
        }
        Ok(checkpoint)
    }

    /// Reads all of `files` as [`Checkpoint::read`] does, but files that `torch.save` wrote (a zip file with a pickle in it,
    /// since PyTorch 1.6), the shards of one state dict.
    ///
    /// A pickle is a program that Python would run. Candle's reader, which is used here, knows tensors and nothing else, and
    /// runs nothing; still, files from strangers are better had as safetensors.
    ///
    /// # Errors
    /// If a file cannot be read, is no state dict, has a tensor of another dtype than F32, F16 or BF16, or if two tensors
    /// have the same name here.
    pub fn read_pickle(files: &[PathBuf], family: Family) -> Result<Self> {
        let mut checkpoint = Self { files: files.to_vec(), ..Self::read(&[], family)? };
        for path in files {
            let wrong = wrong_in(path);
            let file = PthTensors::new(path, None)
                .map_err(|source| wrong(format!("expected a state dict that torch.save wrote: {source}")))?;
            let mut infos: Vec<&TensorInfo> = file.tensor_infos().values().collect();
            infos.sort_by(|a, b| a.name.cmp(&b.name));
            if infos.is_empty() {
                return Err(wrong("expected a state dict that torch.save wrote, found no tensors".into()));
            }
            for info in infos {
                let Some(name) = canonical(&info.name, family) else { continue };
                if !matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16) {
                    return Err(wrong(format!("`{}`: expected F32, F16 or BF16, found {:?}", info.name, info.dtype)));
                }
                let tensor = file.get(&info.name).and_then(|tensor| match tensor {
                    Some(tensor) => tensor.to_dtype(DType::F32)?.contiguous(),
                    None => candle_core::bail!("no such tensor"),
                });
                let tensor = tensor.map_err(|source| wrong(format!("`{}`: {source}", info.name)))?;
                checkpoint.insert(name, tensor, &info.name, path)?;
            }
        }
        Ok(checkpoint)
    }

    fn insert(&mut self, name: String, tensor: Tensor, stored_name: &str, path: &Path) -> Result<()> {
        let stored = Stored { tensor, stored_name: stored_name.to_string() };
        match self.tensors.insert(name.clone(), stored) {
            None => Ok(()),
            Some(first) => {
                Err(wrong_in(path)(format!("`{stored_name}` and `{}` are both `{name}`", first.stored_name)))
            }
        }
    }

    /// The tensors by name, in name order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), &stored.tensor))
    }

    /// Sets the variables of `part` from the tensors of their names, in each variable's dtype and on its device.
    ///
    /// `left_out` are layers of the checkpoint that the model does not have; in ALBERT, groups of layers.
    ///
    /// # Errors
    /// If a variable has no tensor, a tensor has no variable, or a shape differs; the message names all of them.
    /// No variable is changed then.
    pub fn load_into(&self, variables: &[(String, Var)], part: Part, left_out: Range<usize>) -> Result<()> {
        let has_pooler = self.tensors.keys().any(|name| name.starts_with(POOLER));
        let wanted = |name: &str| match part {
            Part::Whole => true,
            Part::EncoderAndPooler if name.starts_with(POOLER) => has_pooler,
            _ => !is_head(name) && !name.starts_with(POOLER),
        };
        let mut wrong = Vec::new();
        for (name, var) in variables.iter().filter(|(name, _)| wanted(name)) {
            match self.tensors.get(name) {
                None => wrong.push(format!("`{name}`: expected shape {:?}, found no such tensor", var.dims())),
                Some(Stored { tensor, stored_name }) if tensor.dims() != var.dims() => {
                    wrong.push(format!("`{stored_name}`: expected shape {:?}, found {:?}", var.dims(), tensor.dims()));
                }
                Some(_) => {}
            }
        }
        for (name, stored) in self.tensors.iter().filter(|(name, _)| wanted(name)) {
            let left_out = layer(name, self.family).is_some_and(|layer| left_out.contains(&layer));
            if !left_out && !name.starts_with(POOLER) && !variables.iter().any(|(other, _)| other == name) {
                let found = stored.tensor.dims();
                wrong.push(format!("`{}`: expected no such tensor, found shape {found:?}", stored.stored_name));
            }
        }
        if !wrong.is_empty() {
            let more = wrong.len().saturating_sub(SHOWN);
            wrong.truncate(SHOWN);
            let more = if more == 0 { String::new() } else { format!("; and {more} more") };
            return Err(Error::Checkpoint { files: join(&self.files), message: wrong.join("; ") + &more });
        }
        for (name, var) in variables.iter().filter(|(name, _)| wanted(name)) {
            var.set(&self.tensors[name].tensor.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }
}

/// How many tensors an error names before it only counts them.
const SHOWN: usize = 8;

fn wrong_in(path: &Path) -> impl Fn(String) -> Error {
    let files = path.display().to_string();
    move |message| Error::Checkpoint { files: files.clone(), message }
}

fn join(files: &[PathBuf]) -> String {
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The name that a tensor has here; none if it is not used.
fn canonical(stored_name: &str, family: Family) -> Option<String> {
    let prefix = format!("{}.", family.prefix());
    let name = stored_name.strip_prefix(&prefix).unwrap_or(stored_name);
    if NOT_USED.iter().any(|unused| if unused.ends_with('.') { name.starts_with(unused) } else { name == *unused }) {
        return None;
    }
    Some(if let Some(norm) = name.strip_suffix("LayerNorm.gamma") {
        format!("{norm}LayerNorm.weight")
    } else if let Some(norm) = name.strip_suffix("LayerNorm.beta") {
        format!("{norm}LayerNorm.bias")
    } else {
        name.to_string()
    })
}

/// The number of the layer, or of the group of layers, that a tensor belongs to.
fn layer(name: &str, family: Family) -> Option<usize> {
    name.strip_prefix(family.layers())?.strip_prefix('.')?.split('.').next()?.parse().ok()
}

fn is_scale(file: &SafeTensors<'_>, name: &str) -> bool {
    let base = name.strip_suffix(int8::SCALE).and_then(|base| file.tensor(base).ok());
    base.is_some_and(|view| view.dtype() == Dtype::I8)
}

/// The values of a stored tensor as f32.
fn decode(file: &SafeTensors<'_>, name: &str, view: &TensorView<'_>) -> std::result::Result<Tensor, String> {
    let floats = |view: &TensorView<'_>, name: &str| -> std::result::Result<Vec<f32>, String> {
        let data = view.data();
        let halves = |to: fn([u8; 2]) -> f32| data.chunks_exact(2).map(|b| to([b[0], b[1]])).collect();
        match view.dtype() {
            Dtype::F32 => Ok(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            Dtype::F16 => Ok(halves(|bytes| half::f16::from_le_bytes(bytes).to_f32())),
            Dtype::BF16 => Ok(halves(|bytes| half::bf16::from_le_bytes(bytes).to_f32())),
            other => Err(format!("`{name}`: expected F32, F16, BF16 or I8 with a scale, found {other:?}")),
        }
    };
    let values = if view.dtype() == Dtype::I8 {
        let scale_name = format!("{name}{}", int8::SCALE);
        let scale = file
            .tensor(&scale_name)
            .map_err(|_| format!("`{name}`: expected `{scale_name}` beside a tensor of dtype I8, found none"))?;
        let &[rows, columns] = view.shape() else {
            return Err(format!(
                "`{name}`: expected (rows, columns) of a tensor of dtype I8, found {:?}",
                view.shape()
            ));
        };
        if scale.shape() != [rows] {
            return Err(format!("`{scale_name}`: expected shape [{rows}], found {:?}", scale.shape()));
        }
        let quantized: Vec<i8> = view.data().iter().map(|&byte| byte.cast_signed()).collect();
        int8::dequantize_rows(&quantized, &floats(&scale, &scale_name)?, columns)
    } else {
        floats(view, name)?
    };
    Tensor::from_vec(values, view.shape(), &Device::Cpu).map_err(|source| format!("`{name}`: {source}"))
}

/// The bytes of a safetensors file of f32 tensors that transformers loads.
pub(crate) fn encode(tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<Vec<u8>> {
    let mut stored = Vec::new();
    for (name, tensor) in tensors {
        let bytes = int8::f32_bytes(&int8::f32_values(tensor)?);
        stored.push((name.clone(), Dtype::F32, tensor.dims().to_vec(), bytes));
    }
    int8::serialize(&stored).map_err(|message| Error::Checkpoint { files: path.display().to_string(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_one_name() {
        let check = |family, stored_name: &str, expected: Option<&str>| {
            assert_eq!(canonical(stored_name, family).as_deref(), expected, "{stored_name}");
        };
        let key = "encoder.layer.0.attention.self.key.weight";
        check(Family::Bert, key, Some(key));
        check(Family::Bert, &format!("bert.{key}"), Some(key));
        check(Family::Bert, "bert.embeddings.LayerNorm.gamma", Some("embeddings.LayerNorm.weight"));
        check(Family::Bert, "embeddings.LayerNorm.beta", Some("embeddings.LayerNorm.bias"));
        check(Family::DistilBert, "distilbert.embeddings.LayerNorm.bias", Some("embeddings.LayerNorm.bias"));
        // Another family's prefix stays, so that the tensor fits no variable and is named.
        check(Family::Bert, "distilbert.embeddings.LayerNorm.bias", Some("distilbert.embeddings.LayerNorm.bias"));
        for unused in ["embeddings.position_ids", "cls.predictions.bias"] {
            check(Family::Bert, unused, None);
        }
        check(Family::Bert, "bert.pooler.dense.weight", Some("pooler.dense.weight"));
        check(Family::XlmRoberta, "roberta.embeddings.LayerNorm.bias", Some("embeddings.LayerNorm.bias"));
        check(Family::XlNet, "transformer.layer.0.ff.layer_norm.bias", Some("layer.0.ff.layer_norm.bias"));
        check(Family::DistilBert, "vocab_layer_norm.weight", None);
        check(Family::Bert, "classifier.weight", Some("classifier.weight"));
    }

    #[test]
    fn a_layer_is_known_by_its_number() {
        assert_eq!(layer("encoder.layer.11.output.dense.bias", Family::Roberta), Some(11));
        assert_eq!(layer("transformer.layer.3.sa_layer_norm.bias", Family::DistilBert), Some(3));
        let group = "encoder.albert_layer_groups.2.albert_layers.0.ffn.bias";
        assert_eq!(layer(group, Family::Albert), Some(2));
        assert_eq!(layer("layer.3.ff.layer_1.bias", Family::XlNet), Some(3));
        assert_eq!(layer("embeddings.LayerNorm.bias", Family::Bert), None);
    }
}
