//! A student of many teachers as a folder: the first layers of an encoder under a head for each teacher.
//!
//! | file | content |
//! |---|---|
//! | `config.json` | the encoder's, with as many layers as the student has; `kd_pooling`; the heads in `kd_heads` |
//! | `model.safetensors` | encoder, pooler and heads, f32 |
//! | the tokenizer's | as they were |
//!
//! Transformers' `AutoModel` reads the encoder and leaves the heads out. [`load`] gives a student to train on; for inference
//! on the CPU its body is packed:
//!
//! ```no_run
//! use candle_core::Device;
//! use kd_core::ops::packed::Precision;
//! use kd_teachers::distilled;
//! let (student, classes, _) = distilled::load("student".as_ref(), &Device::Cpu)?;
//! let fast = student.copy_onto(student.body().pack(Precision::Int8)?)?;
//! # let _ = (fast, classes);
//! # Ok::<(), kd_teachers::Error>(())
//! ```

use std::path::Path;

use candle_core::{DType, Device};
use kd_core::nn::{HeadPerTeacher, HeadsOf};
use kd_core::variables::Variables;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Part};
use crate::config::EncoderConfig;
use crate::error::{Error, Result};
use crate::folder::{self, HEADS, POOLING};
use crate::heads::{Pooling, Representation, RepresentationOptions};
use crate::hub::ModelFiles;

/// A student that was loaded, the names of the classes of each of its data sets, and its variables.
pub type Loaded = (HeadPerTeacher<Representation>, Vec<Vec<String>>, Variables);

/// What stands in `kd_heads`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heads {
    bias: bool,
    dropout: f64,
    sets: Vec<SetOfHeads>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOfHeads {
    name: String,
    /// Names, in the order of the logits' columns.
    classes: Vec<String>,
    teachers: usize,
    gold: bool,
}

/// Writes a student, made of `variables`, into `folder`, which appears whole or not at all. `classes` has the names of the
/// classes of each data set.
///
/// # Errors
/// If `classes` does not fit the student, or a file cannot be read or written.
pub fn save(
    student: &HeadPerTeacher<Representation>,
    classes: &[Vec<String>],
    variables: &Variables,
    tokenizer: &Path,
    folder: &Path,
) -> Result<()> {
    let sets = student.sets();
    if classes.len() != sets.len() {
        let message = format!("expected the classes of {} data sets, found those of {}", sets.len(), classes.len());
        return Err(Error::Argument(message));
    }
    let with_names = |(set, classes): (&HeadsOf, &Vec<String>)| {
        let HeadsOf { name, classes: n_classes, teachers, gold } = set.clone();
        if classes.len() != n_classes {
            let message = format!("data set `{name}`: expected the names of {n_classes} classes, found {classes:?}");
            return Err(Error::Argument(message));
        }
        Ok(SetOfHeads { name, classes: classes.clone(), teachers, gold })
    };
    let sets = sets.iter().zip(classes).map(with_names).collect::<Result<Vec<_>>>()?;
    let config = student.body().encoder().config();
    let mut config_json = config.to_json(&format!("{}Model", config.family.class_prefix()), &classes[0]);
    config_json[POOLING] = json!(pooling_name(student.body().pooling()));
    config_json[HEADS] = json!(Heads { bias: student.has_bias(), dropout: student.dropout(), sets });
    folder::write(config.family, &config_json, variables, tokenizer, folder)
}

/// A student that [`save`] wrote.
///
/// # Errors
/// If a file is missing or does not fit, or holds another kind of model.
pub fn load(folder: &Path, device: &Device) -> Result<Loaded> {
    load_files(&ModelFiles::in_folder(folder)?, device)
}

/// A student that [`save`] wrote, from files that were found on the hub.
///
/// # Errors
/// As [`load`].
pub fn load_files(files: &ModelFiles, device: &Device) -> Result<Loaded> {
    let path = &files.config;
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, &source))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|source| Error::config(path, source.to_string()))?;
    let Some(heads) = value.get_mut(HEADS).map(Value::take) else {
        return Err(Error::config(path, format!("expected `{HEADS}`, found none: is it a student of many teachers?")));
    };
    let heads: Heads =
        serde_json::from_value(heads).map_err(|source| Error::config(path, format!("`{HEADS}`: {source}")))?;
    let pooling = [Pooling::Cls, Pooling::Mean, Pooling::Family]
        .into_iter()
        .find(|&pooling| value[POOLING].as_str() == Some(pooling_name(pooling)))
        .ok_or_else(|| {
            let found = &value[POOLING];
            Error::config(path, format!("`{POOLING}`: expected \"cls\", \"mean\" or \"family\", found {found}"))
        })?;

    let config = EncoderConfig::read(path)?;
    let variables = Variables::new(0, DType::F32, device);
    let options = RepresentationOptions { pooling, ..Default::default() };
    let body = Representation::new(&config, &options, variables.builder())?;
    let (mut sets, mut classes) = (Vec::new(), Vec::new());
    for SetOfHeads { name, classes: names, teachers, gold } in heads.sets {
        sets.push(HeadsOf { name, classes: names.len(), teachers, gold });
        classes.push(names);
    }
    let student = HeadPerTeacher::new(body, sets, heads.bias, heads.dropout, variables.builder())
        .map_err(|source| Error::config(path, format!("`{HEADS}`: {source}")))?;
    Checkpoint::of(files, config.family)?.load_into(&variables.named(), Part::Whole, 0..0)?;
    Ok((student, classes, variables))
}

fn pooling_name(pooling: Pooling) -> &'static str {
    Pooling::NAMED.into_iter().find(|(named, _)| *named == pooling).map_or("family", |(_, name)| name)
}
