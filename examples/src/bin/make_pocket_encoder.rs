//! Makes a pocket encoder: the first layers of a BERT, its vocabulary cut to the pieces some text needs, in int8.
//!
//! What it writes, given a folder or an id of the hub with `config.json`, `tokenizer.json` and `model.safetensors`:
//!
//! | file                | content                                                                                |
//! |---------------------|----------------------------------------------------------------------------------------|
//! | `config.json`       | the original's, with `num_hidden_layers`, `vocab_size` and `pad_token_id` brought up to date |
//! | `tokenizer.json`    | the original's, re-indexed to the pieces kept, without truncation and padding             |
//! | `model.safetensors` | embeddings and the first layers; no pooler, no heads                                       |
//!
//! Matrices are stored as bytes with one scale a row, see [`kd_teachers::int8`]; vectors stay f32.
//!
//! The pieces kept are those that the text uses, the special tokens, and every piece of a single character: other
//! text still tokenises, into shorter pieces. The order of the original is kept, so the same input gives the same bytes.
//!
//! ```text
//! cargo run --release --bin make_pocket_encoder -- --model sentence-transformers/all-MiniLM-L6-v2 --layers 6 \
//!     --text examples/data/snips/{train,valid,test}/seq.in --out examples/models/pocket-encoder
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Parser;
use kd_teachers::checkpoint::Checkpoint;
use kd_teachers::config::Family;
use kd_teachers::hub::{HubEnvironment, ModelFiles};
use kd_teachers::int8;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

/// Cut a BERT encoder to its first layers and to the word pieces of some text, and store it in int8.
#[derive(Parser)]
struct Arguments {
    /// BERT encoder: an id of the hub, or a folder with config.json, tokenizer.json and model.safetensors
    #[arg(long)]
    model: String,
    /// Branch, tag or commit of the hub; not used with a folder
    #[arg(long, default_value = "main")]
    revision: String,
    /// Text files whose word pieces are kept; one sentence a line
    #[arg(long, required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// How many of the encoder's layers to keep, from the embeddings up
    #[arg(long, default_value_t = 6)]
    layers: usize,
    /// Folder to write to; made if it is not there
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let files = ModelFiles::find(&arguments.model, &arguments.revision, &HubEnvironment::from_env()?)?;
    let mut config = read_json(&files.config)?;
    let mut tokenizer = read_json(&files.tokenizer)?;
    let lines = read_lines(&arguments.text)?;

    tokenizer["truncation"] = Value::Null;
    tokenizer["padding"] = Value::Null;
    let original = tokenizer_of(&tokenizer)?;
    let kept = pieces_to_keep(&tokenizer, &used_ids(&original, &lines)?)?;
    cut_tokenizer(&mut tokenizer, &kept)?;
    cut_config(&mut config, arguments.layers, &kept)?;
    same_pieces(&original, &tokenizer_of(&tokenizer)?, &lines)?;

    let weights = cut_weights(&Checkpoint::read(&files.weights, Family::Bert)?, arguments.layers, &kept)
        .with_context(|| files.id.clone())?;

    fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let path = |name| arguments.out.join(name);
    write(&path("config.json"), &config)?;
    write(&path("tokenizer.json"), &tokenizer)?;
    int8::write(&path("model.safetensors"), &weights)?;
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        println!("{}", checksum(&path(name))?);
    }
    let (bytes, pieces) = (fs::metadata(path("model.safetensors"))?.len(), original.get_vocab_size(true));
    eprintln!("{} layers, {} word pieces of {pieces}, {bytes} bytes of weights", arguments.layers, kept.len());
    Ok(())
}

/// The tensor with a row for each word piece.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// Old ids of the pieces kept, in their old order: the new id of `kept[i]` is `i`.
type Kept = Vec<u32>;

fn used_ids(tokenizer: &Tokenizer, lines: &[String]) -> Result<BTreeSet<u32>> {
    let encodings = tokenizer.encode_batch(lines.to_vec(), true).map_err(anyhow::Error::msg)?;
    Ok(encodings.iter().flat_map(|encoding| encoding.get_ids().iter().copied()).collect())
}

fn pieces_to_keep(tokenizer: &Value, used: &BTreeSet<u32>) -> Result<Kept> {
    let mut kept = used.clone();
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        kept.insert(id_of(&token["id"])?);
    }
    let prefix = tokenizer["model"]["continuing_subword_prefix"].as_str().unwrap_or("##");
    for (piece, id) in vocabulary(tokenizer)? {
        if piece.strip_prefix(prefix).unwrap_or(piece).chars().count() <= 1 {
            kept.insert(id_of(id)?);
        }
    }
    Ok(kept.into_iter().collect())
}

fn cut_tokenizer(tokenizer: &mut Value, kept: &Kept) -> Result<()> {
    let by_id: BTreeMap<u32, String> =
        vocabulary(tokenizer)?.iter().map(|(piece, id)| Ok((id_of(id)?, piece.clone()))).collect::<Result<_>>()?;
    let mut pieces = Map::new();
    for (new, old) in kept.iter().enumerate() {
        let piece = by_id.get(old).with_context(|| format!("tokenizer.json: id {old} is not in the vocabulary"))?;
        pieces.insert(piece.clone(), new.into());
    }
    tokenizer["model"]["vocab"] = Value::Object(pieces);

    for token in tokenizer["added_tokens"].as_array_mut().into_iter().flatten() {
        renumber(&mut token["id"], kept)?;
    }
    let processor = &mut tokenizer["post_processor"];
    match processor["type"].as_str() {
        Some("TemplateProcessing") => {
            for token in processor["special_tokens"].as_object_mut().into_iter().flat_map(|tokens| tokens.values_mut())
            {
                for id in token["ids"].as_array_mut().into_iter().flatten() {
                    renumber(id, kept)?;
                }
            }
        }
        Some("BertProcessing") => {
            renumber(&mut processor["sep"][1], kept)?;
            renumber(&mut processor["cls"][1], kept)?;
        }
        other => bail!("tokenizer.json: expected post_processor TemplateProcessing or BertProcessing, found {other:?}"),
    }
    Ok(())
}

fn cut_config(config: &mut Value, layers: usize, kept: &Kept) -> Result<()> {
    ensure!(
        config["model_type"] == "bert",
        "config.json: expected model_type \"bert\", found {}",
        config["model_type"]
    );
    let available = config["num_hidden_layers"].as_u64().context("config.json: no num_hidden_layers")?;
    ensure!(layers >= 1 && layers as u64 <= available, "--layers: expected 1 to {available}, found {layers}");
    config["num_hidden_layers"] = layers.into();
    config["vocab_size"] = kept.len().into();
    if !config["pad_token_id"].is_null() {
        renumber(&mut config["pad_token_id"], kept)?;
    }
    Ok(())
}

/// The cut must not show in the text it was made for: same pieces, in the same order.
fn same_pieces(original: &Tokenizer, cut: &Tokenizer, lines: &[String]) -> Result<()> {
    for line in lines {
        let before = original.encode(line.as_str(), true).map_err(anyhow::Error::msg)?;
        let after = cut.encode(line.as_str(), true).map_err(anyhow::Error::msg)?;
        let (expected, found) = (before.get_tokens(), after.get_tokens());
        ensure!(expected == found, "`{line}`: expected pieces {expected:?}, found {found:?}");
    }
    Ok(())
}

fn cut_weights(checkpoint: &Checkpoint, layers: usize, kept: &Kept) -> Result<BTreeMap<String, Tensor>> {
    let mut weights = BTreeMap::new();
    for (name, weight) in checkpoint.tensors().filter(|(name, _)| belongs(name, layers)) {
        let mut weight = weight.clone();
        if name == WORDS {
            let (rows, last) = (weight.dim(0)?, kept.last().copied().unwrap_or(0));
            ensure!((last as usize) < rows, "{name}: expected more than {last} rows, found {rows}");
            weight = weight.index_select(&Tensor::new(kept.as_slice(), &Device::Cpu)?, 0)?;
        }
        weights.insert(name.to_string(), weight);
    }
    let last = format!("encoder.layer.{}.output.dense.weight", layers - 1);
    for name in [WORDS, &last] {
        ensure!(weights.contains_key(name), "expected a tensor `{name}`, found none");
    }
    Ok(weights)
}

fn belongs(name: &str, layers: usize) -> bool {
    if let Some(rest) = name.strip_prefix("encoder.layer.") {
        return rest.split('.').next().and_then(|layer| layer.parse().ok()).is_some_and(|layer: usize| layer < layers);
    }
    name.starts_with("embeddings.")
}

fn renumber(id: &mut Value, kept: &Kept) -> Result<()> {
    let old = id_of(id)?;
    let new = kept.binary_search(&old).map_err(|_| anyhow::anyhow!("tokenizer.json: id {old} has no piece"))?;
    *id = new.into();
    Ok(())
}

fn id_of(value: &Value) -> Result<u32> {
    let id = value.as_u64().with_context(|| format!("tokenizer.json: expected an id, found {value}"))?;
    Ok(u32::try_from(id)?)
}

fn vocabulary(tokenizer: &Value) -> Result<&Map<String, Value>> {
    let kind = &tokenizer["model"]["type"];
    ensure!(kind == "WordPiece", "tokenizer.json: expected a model of type WordPiece, found {kind}");
    tokenizer["model"]["vocab"].as_object().context("tokenizer.json: no model.vocab")
}

fn tokenizer_of(json: &Value) -> Result<Tokenizer> {
    json.to_string().parse().map_err(anyhow::Error::msg).context("tokenizer.json")
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn read_lines(paths: &[PathBuf]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        lines.extend(text.lines().map(str::to_string));
    }
    ensure!(!lines.is_empty(), "--text: expected at least one line, found none");
    Ok(lines)
}

fn write(path: &Path, json: &Value) -> Result<()> {
    fs::write(path, format!("{json:#}\n")).with_context(|| path.display().to_string())
}

/// A file's line for `sha256sum --check`.
fn checksum(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{digest}  {}", path.file_name().unwrap_or_default().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::DType;
    use serde_json::json;

    use super::*;

    fn small_tokenizer() -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [
                {"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 3, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 4, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 5, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
            ],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    "[CLS]": {"id": "[CLS]", "ids": [4], "tokens": ["[CLS]"]},
                    "[SEP]": {"id": "[SEP]", "ids": [5], "tokens": ["[SEP]"]}
                }
            },
            "decoder": null,
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {
                    "[PAD]": 0, "play": 1, "stop": 2, "[UNK]": 3, "[CLS]": 4, "[SEP]": 5, "##ing": 6,
                    "s": 7, "##t": 8, "##o": 9, "##p": 10
                }
            }
        })
    }

    #[test]
    fn text_keeps_its_pieces_and_other_text_falls_apart_into_letters() {
        let mut json = small_tokenizer();
        let original = tokenizer_of(&json).unwrap();
        let lines = vec!["Playing".to_string()];
        let kept = pieces_to_keep(&json, &used_ids(&original, &lines).unwrap()).unwrap();
        assert_eq!(kept, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]);
        cut_tokenizer(&mut json, &kept).unwrap();
        let cut = tokenizer_of(&json).unwrap();
        same_pieces(&original, &cut, &lines).unwrap();
        assert_eq!(cut.encode("playing", true).unwrap().get_ids(), [3, 1, 5, 4]);
        assert_eq!(cut.encode("stop", false).unwrap().get_tokens(), ["s", "##t", "##o", "##p"]);
        assert!(same_pieces(&original, &cut, &["stop".to_string()]).is_err());
    }

    #[test]
    fn only_embeddings_and_the_first_layers_are_kept() {
        let kept = [
            ("embeddings.LayerNorm.weight", true),
            ("encoder.layer.1.output.dense.weight", true),
            ("encoder.layer.2.output.dense.weight", false),
            ("encoder.layer.10.output.dense.weight", false),
            ("classifier.weight", false),
        ];
        for (name, expected) in kept {
            assert_eq!(belongs(name, 2), expected, "{name}");
        }
    }

    #[test]
    fn config_says_what_is_left() {
        let mut config = json!({"model_type": "bert", "num_hidden_layers": 3, "vocab_size": 11, "pad_token_id": 7});
        cut_config(&mut config, 2, &vec![1, 7, 9]).unwrap();
        assert_eq!(config, json!({"model_type": "bert", "num_hidden_layers": 2, "vocab_size": 3, "pad_token_id": 1}));
        let message = cut_config(&mut config, 4, &vec![1, 7, 9]).unwrap_err().to_string();
        assert_eq!(message, "--layers: expected 1 to 2, found 4");
    }

    #[test]
    fn weights_come_out_cut_and_readable() {
        let matrix =
            |rows: usize| Tensor::arange(0f32, 4. * rows as f32, &Device::Cpu).unwrap().reshape((rows, 4)).unwrap();
        let weights = HashMap::from([
            ("bert.embeddings.word_embeddings.weight", matrix(5)),
            ("bert.encoder.layer.0.output.dense.weight", matrix(4)),
            ("bert.encoder.layer.0.output.dense.bias", Tensor::ones(4, DType::F16, &Device::Cpu).unwrap()),
            ("bert.encoder.layer.1.output.dense.weight", matrix(4)),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let (whole, cut) = (folder.path().join("whole.safetensors"), folder.path().join("cut.safetensors"));
        candle_core::safetensors::save(&weights, &whole).unwrap();
        let whole = Checkpoint::read(&[whole], Family::Bert).unwrap();
        int8::write(&cut, &cut_weights(&whole, 1, &vec![1, 4]).unwrap()).unwrap();

        let cut = Checkpoint::read(&[cut], Family::Bert).unwrap();
        let names: Vec<&str> = cut.tensors().map(|(name, _)| name).collect();
        let expected = [WORDS, "encoder.layer.0.output.dense.bias", "encoder.layer.0.output.dense.weight"];
        assert_eq!(names, expected);
        let words = cut.tensors().next().unwrap().1.to_vec2::<f32>().unwrap();
        for (row, expected) in words.iter().zip([[4f32, 5., 6., 7.], [16., 17., 18., 19.]]) {
            for (found, expected) in row.iter().zip(expected) {
                // Half a step of the row: its largest value over 254.
                assert!((found - expected).abs() <= expected.max(row[3]) / 254. + 1e-6, "{words:?}");
            }
        }
        assert!(cut_weights(&whole, 1, &vec![1, 5]).unwrap_err().to_string().contains("found 5"));
    }
}
