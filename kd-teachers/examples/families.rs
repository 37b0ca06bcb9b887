//! Models of every family for transformers to read: half of a check that goes both ways, run by hand.
//!
//! ```sh
//! cargo run --release -p kd-teachers --example families -- save DIR
//! python kd-teachers/tests/reference/check_saved.py DIR    # loads them with transformers, compares, saves them again
//! cargo run --release -p kd-teachers --example families -- check DIR
//! ```
//!
//! `save` takes the tiny checkpoints of `tests/reference/`, moves every weight as if it had been trained, saves a sequence
//! classifier with the family's own head and a token classifier, and writes what they say of three sentences into
//! `expected.json`. `check` loads what transformers saved of them and compares.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens, pad};
use kd_core::model::{Mode, Student};
use kd_core::variables::Variables;
use kd_teachers::heads::{HeadOptions, Pooling, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Ids of pieces that are special in no family.
const IDS: [&[u32]; 3] = [&[11, 7, 9, 42, 13, 8, 77], &[21, 99, 6], &[55]];

/// The largest difference between logits that counts as none; they are around 1.
const TOLERANCE: f32 = 5e-6;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["save", folder] => save(Path::new(folder)),
        ["check", folder] => check(Path::new(folder)),
        _ => Err("expected `save DIR` or `check DIR`".into()),
    }
}

/// The tiny checkpoints that have a sequence classifier's head.
fn checkpoints() -> Outcome<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        // What compares pickled weights has values too, and no model.
        if ["config.json", "reference.json"].iter().all(|file| path.join(file).is_file()) {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

fn save(to: &Path) -> Outcome<()> {
    for from in checkpoints()? {
        let name = from.file_name().ok_or("a checkpoint without a name")?.to_string_lossy().into_owned();
        let tokenizer = from.join("tokenizer.json");

        let (model, variables) = SequenceClassifier::load(&from, &Device::Cpu)?;
        move_weights(&variables)?;
        let folder = to.join(format!("{name}-sequence"));
        model.save(&variables, &tokenizer, &folder)?;
        expect(&folder, &logits(&model, false)?)?;

        let classes = ["O", "B", "I"].map(String::from);
        let options = HeadOptions { pooling: Pooling::Family, ..HeadOptions::default() };
        let files = ModelFiles::in_folder(&from)?;
        let (model, variables) = TokenTagger::from_files(&files, &classes, 1, &Device::Cpu, &options)?;
        move_weights(&variables)?;
        let folder = to.join(format!("{name}-token"));
        model.save(&variables, &tokenizer, &folder)?;
        expect(&folder, &logits(&model, true)?)?;
    }
    Ok(())
}

fn check(folder: &Path) -> Outcome<()> {
    for from in checkpoints()? {
        for (head, words) in [("sequence", false), ("token", true)] {
            let name = format!("{}-{head}", from.file_name().ok_or("a checkpoint without a name")?.to_string_lossy());
            let again = folder.join(&name).join("again");
            let found = if words {
                logits(&TokenTagger::load(&again, &Device::Cpu)?.0, words)?
            } else {
                logits(&SequenceClassifier::load(&again, &Device::Cpu)?.0, words)?
            };
            let text = std::fs::read_to_string(folder.join(&name).join("expected.json"))?;
            let expected: Value = serde_json::from_str(&text)?;
            let expected: Vec<f32> = serde_json::from_value(expected["logits"].clone())?;
            if found.len() != expected.len() {
                return Err(format!("{name}: expected {} logits, found {}", expected.len(), found.len()).into());
            }
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name}: the largest difference is {worst:e}");
            if worst.is_nan() || worst > TOLERANCE {
                return Err(format!("{name}: expected a difference below {TOLERANCE:e}, found {worst:e}").into());
            }
        }
    }
    Ok(())
}

/// Adds up to 0.1 to every weight.
fn move_weights(variables: &Variables) -> candle_core::Result<()> {
    for (_, var) in variables.named() {
        let step: Vec<f32> = (0..var.elem_count()).map(|idx| 0.1 * (idx as f32).sin()).collect();
        var.set(&(var.as_tensor() + Tensor::from_vec(step, var.shape(), &Device::Cpu)?)?)?;
    }
    Ok(())
}

fn logits(model: &dyn Student, words: bool) -> candle_core::Result<Vec<f32>> {
    let first: Sequence = pad(&IDS.map(<[u32]>::to_vec), &Device::Cpu)?;
    let rows = if words { first.token_rows()? } else { Rows::Examples };
    let tokens = Tokens { first, second: None, more: Vec::new(), rows };
    model.forward(&tokens, Mode::Eval)?.logits()?.flatten_all()?.to_vec1()
}

fn expect(folder: &Path, logits: &[f32]) -> Outcome<()> {
    let expected = json!({"ids": IDS, "logits": logits});
    std::fs::write(folder.join("expected.json"), format!("{expected}\n"))?;
    println!("{}", folder.display());
    Ok(())
}
