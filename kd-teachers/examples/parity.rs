//! How far our encoders are from PyTorch's with published checkpoints, on 20 texts: a check that is run by hand.
//!
//! ```sh
//! python kd-teachers/tests/reference/real.py DIR     # what transformers says; needs the checkpoints
//! cargo run --release -p kd-teachers --example parity -- DIR
//! ```
//!
//! Prints a row for each model and exits with an error if a difference is larger than it should be. *Absolute* is the largest difference
//! of any two numbers, *relative* that divided by the largest number of the same tensor (hidden states have a few components that
//! are ten to a hundred times as large as the others).

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Sequence, pad};
use kd_core::model::Mode;
use kd_core::variables::Variables;
use kd_teachers::checkpoint::{Checkpoint, Part};
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::{Encoded, Encoder, Wanted};
use kd_teachers::hub::ModelFiles;
use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The largest relative difference that counts as rounding.
const TOLERANCE: f32 = 1e-4;

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("expected DIR, the folder that real.py wrote")?;
    let mut documents: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Outcome<Vec<_>>>()?;
    documents.retain(|path| path.extension().is_some_and(|end| end == "json"));
    documents.sort();
    println!("| model | family | tokens | last hidden states | all hidden states | attention |");
    println!("|---|---|---|---|---|---|");
    let mut worst = 0f32;
    for path in documents {
        worst = worst.max(compare(&path)?);
    }
    if worst > TOLERANCE {
        return Err(format!("the largest relative difference is {worst:.1e}, expected at most {TOLERANCE:.0e}").into());
    }
    Ok(())
}

/// The largest relative difference of a model; its row is printed.
fn compare(path: &Path) -> Outcome<f32> {
    let document: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let text = |key: &str| document[key].as_str().ok_or_else(|| format!("{}: no `{key}`", path.display()));
    let files = ModelFiles::in_folder(Path::new(text("folder")?))?;
    let config = EncoderConfig::read(&files.config)?;
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    let encoder = Encoder::new(&config, variables.builder())?;
    Checkpoint::of(&files, config.family)?.load_into(&variables.named(), Part::Encoder, 0..0)?;
    let ids: Vec<Vec<u32>> = serde_json::from_value(document["ids"].clone())?;
    let segments: Vec<Vec<u32>> = serde_json::from_value(document["segments"].clone())?;
    let uses_segments = document["uses_segments"].as_bool().unwrap_or(false);
    let batch = document["batch"].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("no `batch`")?;

    let mut found = Found::default();
    for (ids, segments) in ids.chunks(batch).zip(segments.chunks(batch)) {
        let padded = pad(ids, &Device::Cpu)?;
        let segments = if uses_segments { Some(pad(segments, &Device::Cpu)?.ids) } else { None };
        let sequence = Sequence { segments, ..padded };
        found.add(&encoder.encode(&sequence, Mode::Eval, Wanted { hidden: true, attention: true })?, &sequence)?;
    }
    let expected = candle_core::safetensors::load(path.with_extension("safetensors"), &Device::Cpu)?;
    let list = |name: String| -> Outcome<Vec<f32>> {
        Ok(expected.get(&name).ok_or_else(|| format!("{}: no `{name}`", path.display()))?.to_vec1()?)
    };
    let last = Difference::between(&found.last, &list("last".into())?)?;
    let (mut hidden, mut attention) = (Difference::default(), Difference::default());
    for (idx, state) in found.hidden.iter().enumerate() {
        hidden = hidden.or(Difference::between(state, &list(format!("hidden.{idx}"))?)?);
    }
    for (idx, probs) in found.attention.iter().enumerate() {
        attention = attention.or(Difference::between(probs, &list(format!("attention.{idx}"))?)?);
    }
    let tokens: usize = ids.iter().map(Vec::len).sum();
    let family = config.family.model_type();
    println!(
        "| {} | {family} | {tokens} | {} | {} | {} |",
        text("model")?,
        last.shown(),
        hidden.shown(),
        attention.shown()
    );
    Ok([last, hidden, attention].map(|difference| difference.relative).into_iter().fold(0.0, f32::max))
}

/// What is said of tokens that are not padding, in the order of the texts.
#[derive(Default)]
struct Found {
    last: Vec<f32>,
    hidden: Vec<Vec<f32>>,
    attention: Vec<Vec<f32>>,
}

impl Found {
    fn add(&mut self, encoded: &Encoded, sequence: &Sequence) -> Outcome<()> {
        self.hidden.resize(encoded.hidden.len(), Vec::new());
        self.attention.resize(encoded.attention.len(), Vec::new());
        let values = |tensor: Tensor| -> Outcome<Vec<f32>> { Ok(tensor.flatten_all()?.to_vec1()?) };
        for (row, len) in sequence.lengths()?.into_iter().enumerate() {
            self.last.extend(values(encoded.last.get(row)?.narrow(0, 0, len)?)?);
            for (list, state) in self.hidden.iter_mut().zip(&encoded.hidden) {
                list.extend(values(state.get(row)?.narrow(0, 0, len)?)?);
            }
            for (list, probs) in self.attention.iter_mut().zip(&encoded.attention) {
                list.extend(values(probs.get(row)?.narrow(1, 0, len)?.narrow(2, 0, len)?)?);
            }
        }
        Ok(())
    }
}

/// Largest differences.
#[derive(Debug, Clone, Copy, Default)]
struct Difference {
    absolute: f32,
    relative: f32,
}

impl Difference {
    fn between(found: &[f32], expected: &[f32]) -> Outcome<Self> {
        if found.len() != expected.len() {
            return Err(format!("expected {} numbers, found {}", expected.len(), found.len()).into());
        }
        if found.iter().any(|x| !x.is_finite()) {
            return Err("found a number that is not finite".into());
        }
        let largest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
        let absolute = largest(&mut found.iter().zip(expected).map(|(a, b)| a - b));
        Ok(Self { absolute, relative: absolute / largest(&mut expected.iter().copied()) })
    }

    fn or(self, other: Self) -> Self {
        Self { absolute: self.absolute.max(other.absolute), relative: self.relative.max(other.relative) }
    }

    fn shown(self) -> String {
        format!("{:.1e}, {:.1e}", self.absolute, self.relative)
    }
}
