//! From files to a model and back: what [`crate::heads`]'s two models share.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kd_core::variables::Variables;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Part, encode, is_head};
use crate::config::{EncoderConfig, Family};
use crate::error::{Error, Result};
use crate::heads::{HeadOptions, Pooling};
use crate::hub::{ModelFiles, tokenizer_files};
use crate::save::write_folder;

/// The key of config.json that says how a [`crate::heads::SequenceClassifier`] pools; transformers ignores it.
pub(crate) const POOLING: &str = "kd_pooling";

/// The key of config.json that says which heads [`crate::distilled`] has put on a representation; transformers ignores it.
pub(crate) const HEADS: &str = "kd_heads";

/// Which model a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tagger,
    Classifier(Pooling),
}

/// The configuration with the options in it, after all of them are checked.
pub(crate) fn apply(config: &EncoderConfig, classes: &[String], options: &HeadOptions) -> Result<EncoderConfig> {
    let wrong = |message: String| Err(Error::Argument(message));
    if classes.is_empty() {
        return wrong("expected the names of the classes, found none".into());
    }
    if let Some((idx, name)) = classes.iter().enumerate().find(|(idx, name)| classes[..*idx].contains(name)) {
        return wrong(format!("class {idx} is called `{name}`, and so is one before it"));
    }
    let config = first_layers(config, options.layers)?;
    if let Some(p) = options.head_dropout.filter(|p| !(0.0..1.0).contains(p)) {
        return wrong(format!("expected a head dropout from 0 to below 1, found {p}"));
    }
    Ok(EncoderConfig {
        classifier_dropout: options.head_dropout.or(config.classifier_dropout),
        summary_dropout: match config.family {
            Family::DistilBert | Family::XlNet => options.head_dropout.or(config.summary_dropout),
            _ => None,
        },
        classes: Some(classes.to_vec()),
        problem_type: options.problem_type.or(config.problem_type),
        ..config
    })
}

/// The configuration of the first `layers` layers; none: of all.
pub(crate) fn first_layers(config: &EncoderConfig, layers: Option<usize>) -> Result<EncoderConfig> {
    let layers = layers.unwrap_or(config.layers);
    if !(1..=config.layers).contains(&layers) {
        let message = format!("expected 1 to {} layers, as many as the checkpoint has, found {layers}", config.layers);
        return Err(Error::Argument(message));
    }
    Ok(EncoderConfig { layers, groups: groups_of(config, layers)?, ..config.clone() })
}

/// How many groups of layers that share weights the first `layers` are.
fn groups_of(config: &EncoderConfig, layers: usize) -> Result<usize> {
    let per_group = config.layers / config.groups;
    match layers {
        _ if layers <= per_group => Ok(1),
        _ if layers.is_multiple_of(per_group) => Ok(layers / per_group),
        _ => Err(Error::Argument(format!(
            "expected a multiple of {per_group} layers, which share their weights, or less than that, found {layers}"
        ))),
    }
}

/// A pretrained encoder's first `layers` layers under a new head, and under a new pooler if it is asked for.
pub(crate) fn pretrained<M>(
    files: &ModelFiles,
    seed: u64,
    device: &Device,
    (layers, new_pooler): (Option<usize>, bool),
    new: impl FnOnce(&EncoderConfig, &Variables) -> Result<M>,
) -> Result<(M, Variables)> {
    // What the outputs of an old head meant says nothing of a new one.
    let config = EncoderConfig { problem_type: None, ..EncoderConfig::read(&files.config)? };
    let variables = Variables::new(seed, DType::F32, device);
    let model = new(&config, &variables)?;
    let checkpoint = Checkpoint::of(files, config.family)?;
    let layers = layers.unwrap_or(config.layers);
    let left_out = match config.family {
        Family::Albert => groups_of(&config, layers)?..config.groups,
        _ => layers..config.layers,
    };
    let part = if new_pooler { Part::Encoder } else { Part::EncoderAndPooler };
    checkpoint.load_into(&variables.named(), part, left_out)?;
    Ok((model, variables))
}

/// An encoder and its head, as they were saved.
pub(crate) fn fine_tuned<M>(
    files: &ModelFiles,
    device: &Device,
    new: impl FnOnce(Kind, &EncoderConfig, &[String], &Variables) -> Result<M>,
) -> Result<(M, Variables)> {
    let path = &files.config;
    let config = EncoderConfig::read(path)?;
    let kind = kind(path)?;
    // Two classes without names are what transformers makes of a config.json that says nothing of classes.
    let classes = config.classes.clone().unwrap_or_else(|| EncoderConfig::default_classes(2));
    let variables = Variables::new(0, DType::F32, device);
    let model = new(kind, &config, &classes, &variables)?;
    Checkpoint::of(files, config.family)?.load_into(&variables.named(), Part::Whole, 0..0)?;
    Ok((model, variables))
}

/// The kind of model that a config.json describes.
fn kind(path: &Path) -> Result<Kind> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, &source))?;
    let value: Value = serde_json::from_str(&text).map_err(|source| Error::config(path, source.to_string()))?;
    if value.get(HEADS).is_some() {
        let message = format!("found `{HEADS}`, a head for each teacher: `distilled::load` reads it");
        return Err(Error::config(path, message));
    }
    if let Some(pooling) = value.get(POOLING) {
        let known = Pooling::NAMED.into_iter().find(|(_, name)| pooling.as_str() == Some(name));
        let expected = || Error::config(path, format!("`{POOLING}`: expected \"cls\" or \"mean\", found {pooling}"));
        return Ok(Kind::Classifier(known.ok_or_else(expected)?.0));
    }
    let architecture = value.pointer("/architectures/0").and_then(Value::as_str).unwrap_or("none");
    if architecture.ends_with("ForTokenClassification") {
        return Ok(Kind::Tagger);
    }
    if architecture.ends_with("ForSequenceClassification") {
        return Ok(Kind::Classifier(Pooling::Family));
    }
    let message = format!(
        "`architectures`: expected a *ForTokenClassification or *ForSequenceClassification, or `{POOLING}`; found \
         {architecture}: is the model fine-tuned?"
    );
    Err(Error::config(path, message))
}

/// Writes a folder that [`fine_tuned`] reads, and transformers too unless a classifier pools as none of its own do.
pub(crate) fn save(
    config: &EncoderConfig,
    classes: &[String],
    kind: Kind,
    variables: &Variables,
    tokenizer: &Path,
    folder: &Path,
) -> Result<()> {
    let model = config.family.class_prefix();
    let config_json = match kind {
        Kind::Tagger => config.to_json(&format!("{model}ForTokenClassification"), classes),
        Kind::Classifier(pooling) => match Pooling::NAMED.into_iter().find(|(named, _)| *named == pooling) {
            Some((_, name)) => {
                let mut value = config.to_json(&format!("{model}Model"), classes);
                value[POOLING] = json!(name);
                value
            }
            None => config.to_json(&format!("{model}ForSequenceClassification"), classes),
        },
    };
    write(config.family, &config_json, variables, tokenizer, folder)
}

/// Writes config.json, the variables and the tokenizer's files into `folder`, which appears whole or not at all.
pub(crate) fn write(
    family: Family,
    config_json: &Value,
    variables: &Variables,
    tokenizer: &Path,
    folder: &Path,
) -> Result<()> {
    let prefix = family.prefix();
    let prefixed = |name: String| if is_head(&name) { name } else { format!("{prefix}.{name}") };
    let tensors: BTreeMap<String, Tensor> =
        variables.tensors().into_iter().map(|(name, tensor)| (prefixed(name), tensor)).collect();
    let mut files = vec![
        ("config.json", format!("{config_json:#}\n").into_bytes()),
        ("model.safetensors", encode(&tensors, &folder.join("model.safetensors"))?),
    ];
    let of_tokenizer = tokenizer_files(tokenizer);
    for path in &of_tokenizer {
        let bytes = std::fs::read(path).map_err(|source| Error::io(path, &source))?;
        files.push((name_in_folder(path, path == tokenizer), bytes));
    }
    write_folder(folder, &files)
}

/// The name that a file of a tokenizer is looked for by: the tokenizer itself is a vocabulary, or a `tokenizer.json` whatever
/// it was called.
fn name_in_folder(path: &Path, is_tokenizer: bool) -> &str {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) if !is_tokenizer || ["vocab.txt", "vocab.json"].contains(&name) => name,
        _ => "tokenizer.json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_keeps_the_names_of_its_files() {
        let folder = Path::new("folder");
        let check = |name: &str, is_tokenizer, expected: &str| {
            assert_eq!(name_in_folder(&folder.join(name), is_tokenizer), expected, "{name}");
        };
        check("tokenizer.json", true, "tokenizer.json");
        check("other.json", true, "tokenizer.json");
        check("vocab.txt", true, "vocab.txt");
        check("vocab.json", true, "vocab.json");
        check("merges.txt", false, "merges.txt");
        check("tokenizer_config.json", false, "tokenizer_config.json");
    }
}
