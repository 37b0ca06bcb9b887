//! The tiny checkpoints beside this file, what transformers says of them, and other spellings of them.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens, pad};
use kd_core::variables::Variables;
use kd_teachers::checkpoint::{Checkpoint, Part};
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::Encoder;
use kd_teachers::hub::ModelFiles;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

pub(crate) const FAMILIES: [&str; 2] = ["bert", "distilbert"];

pub(crate) fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(family)
}

pub(crate) fn reference() -> Value {
    serde_json::from_str(include_str!("reference.json")).unwrap()
}

pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn whole(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| u32::try_from(x.as_u64().unwrap()).unwrap()).collect()
}

/// The reference's input: three sequences of 7, 4 and 1 tokens in two segments.
pub(crate) fn sequence() -> Sequence {
    let reference = reference();
    let lengths = whole(&reference["lengths"]);
    let rows = |key: &str| -> Vec<Vec<u32>> {
        let rows = reference[key].as_array().unwrap().iter().zip(&lengths);
        rows.map(|(row, &len)| whole(row)[..len as usize].to_vec()).collect()
    };
    let segments = pad(&rows("segments"), &Device::Cpu).unwrap().ids;
    Sequence { segments: Some(segments), ..pad(&rows("ids"), &Device::Cpu).unwrap() }
}

/// The reference's input with six words as rows.
pub(crate) fn tokens() -> Tokens {
    let index = Tensor::new(whole(&reference()["words"]), &Device::Cpu).unwrap();
    Tokens {
        first: sequence(),
        second: None,
        more: Vec::new(),
        rows: Rows::Words { index, per_example: vec![3, 2, 1] },
    }
}

/// The values of the positions that are not padding.
pub(crate) fn unpadded(hidden: &Tensor, sequence: &Sequence) -> Vec<f32> {
    let rows = hidden.to_vec3::<f32>().unwrap();
    let lengths = sequence.lengths().unwrap();
    rows.iter().zip(lengths).flat_map(|(row, len)| row[..len].concat()).collect()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (idx, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}: value {idx} is {a}, expected {b} within {tolerance}");
    }
}

/// A tensor of a safetensors file: name, dtype, shape, bytes.
pub(crate) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// The tensors of a folder's model.safetensors, by name.
pub(crate) fn stored(folder: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor =
        |(name, view): (&str, TensorView)| (name.into(), view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut stored: Vec<Stored> = file.iter().map(tensor).collect();
    stored.sort_by(|a, b| a.0.cmp(&b.0));
    stored
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Rows of ids.
pub(crate) fn ids_of(value: &Value) -> Vec<Vec<u32>> {
    value.as_array().unwrap().iter().map(whole).collect()
}

/// A copy of a family's folder whose tensors went through `edit`.
pub(crate) fn edited(family: &str, edit: impl FnOnce(&mut Vec<Stored>)) -> (tempfile::TempDir, ModelFiles) {
    let (from, to) = (folder(family), tempfile::tempdir().unwrap());
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    let mut stored = stored(&from);
    edit(&mut stored);
    write(&to.path().join("model.safetensors"), &stored);
    let files = ModelFiles::in_folder(to.path()).unwrap();
    (to, files)
}

pub(crate) fn write(path: &Path, stored: &[Stored]) {
    let views = stored
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The encoder of some files, without a head, and its variables.
pub(crate) fn encoder(files: &ModelFiles) -> kd_teachers::Result<(Encoder, Variables)> {
    let config = EncoderConfig::read(&files.config)?;
    let variables = Variables::new(1, candle_core::DType::F32, &Device::Cpu);
    let encoder = Encoder::new(&config, variables.builder())?;
    Checkpoint::read(&files.weights, config.family)?.load_into(&variables.named(), Part::Encoder, 0..0)?;
    Ok((encoder, variables))
}
