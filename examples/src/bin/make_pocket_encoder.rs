//! Makes a pocket encoder: the first layers of a BERT, its vocabulary cut to the pieces some text needs, in int8.
//!
//! What it writes, given a folder with `config.json`, `tokenizer.json` and `model.safetensors`:
//!
//! | file                | content                                                                                |
//! |---------------------|----------------------------------------------------------------------------------------|
//! | `config.json`       | the original's, with `num_hidden_layers`, `vocab_size` and `pad_token_id` brought up to date |
//! | `tokenizer.json`    | the original's, re-indexed to the pieces kept, without truncation and padding             |
//! | `model.safetensors` | embeddings and the first layers; no pooler, no heads                                       |
//!
//! Every matrix `NAME` is stored as `NAME` (I8, `(rows, columns)`) and `NAME.scale` (F32, `(rows,)`), so that
//! `weight[r][c] = NAME[r][c] · NAME.scale[r]` with `NAME.scale[r] = max_c |weight[r][c]| / 127`. Vectors stay F32.
//!
//! The pieces kept are those that the text uses, the special tokens, and every piece of a single character: other
//! text still tokenises, into shorter pieces. The order of the original is kept, so the same input gives the same bytes.
//!
//! ```text
//! cargo run --release --bin make_pocket_encoder -- --model FOLDER --layers 6 \
//!     --text examples/data/snips/{train,valid,test}/seq.in --out examples/models/pocket-encoder
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

/// Cut a BERT encoder to its first layers and to the word pieces of some text, and store it in int8.
#[derive(Parser)]
struct Arguments {
    /// Folder with config.json, tokenizer.json and model.safetensors of a BERT encoder
    #[arg(long)]
    model: PathBuf,
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
    let mut config = read_json(&arguments.model.join("config.json"))?;
    let mut tokenizer = read_json(&arguments.model.join("tokenizer.json"))?;
    let lines = read_lines(&arguments.text)?;

    tokenizer["truncation"] = Value::Null;
    tokenizer["padding"] = Value::Null;
    let original = tokenizer_of(&tokenizer)?;
    let kept = pieces_to_keep(&tokenizer, &used_ids(&original, &lines)?)?;
    cut_tokenizer(&mut tokenizer, &kept)?;
    cut_config(&mut config, arguments.layers, &kept)?;
    same_pieces(&original, &tokenizer_of(&tokenizer)?, &lines)?;

    let path = arguments.model.join("model.safetensors");
    let weights = candle_core::safetensors::load(&path, &Device::Cpu).with_context(|| path.display().to_string())?;
    let stored = cut_weights(weights, arguments.layers, &kept).with_context(|| path.display().to_string())?;

    fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    write(&arguments.out.join("config.json"), format!("{config:#}\n").as_bytes())?;
    write(&arguments.out.join("tokenizer.json"), format!("{tokenizer:#}\n").as_bytes())?;
    write(&arguments.out.join("model.safetensors"), &serialize(&stored)?)?;
    println!("{} layers, {} word pieces of {}", arguments.layers, kept.len(), original.get_vocab_size(true));
    Ok(())
}

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
            for token in processor["special_tokens"].as_object_mut().into_iter().flat_map(|tokens| tokens.values_mut()) {
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
    ensure!(config["model_type"] == "bert", "config.json: expected model_type \"bert\", found {}", config["model_type"]);
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

/// A tensor as it is stored: its kind, its shape, its bytes in little-endian order.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn cut_weights(weights: HashMap<String, Tensor>, layers: usize, kept: &Kept) -> Result<BTreeMap<String, Stored>> {
    let mut stored = BTreeMap::new();
    for (name, weight) in &weights {
        let name = name.strip_prefix("bert.").unwrap_or(name);
        if !belongs(name, layers) {
            continue;
        }
        let mut weight = weight.to_dtype(DType::F32)?;
        if name == "embeddings.word_embeddings.weight" {
            let (rows, last) = (weight.dim(0)?, kept.last().copied().unwrap_or(0));
            ensure!((last as usize) < rows, "{name}: expected more than {last} rows, found {rows}");
            weight = weight.index_select(&Tensor::new(kept.as_slice(), &Device::Cpu)?, 0)?;
        }
        match weight.dims() {
            [length] => {
                stored.insert(name.to_string(), float(vec![*length], &weight.to_vec1::<f32>()?));
            }
            [rows, columns] => {
                let (values, scales) = quantise(&weight.to_vec2::<f32>()?);
                let matrix = Stored { dtype: Dtype::I8, shape: vec![*rows, *columns], bytes: values };
                stored.insert(name.to_string(), matrix);
                stored.insert(format!("{name}.scale"), float(vec![*rows], &scales));
            }
            shape => bail!("{name}: expected a vector or a matrix, found shape {shape:?}"),
        }
    }
    ensure!(stored.contains_key("embeddings.word_embeddings.weight"), "no embeddings.word_embeddings.weight");
    ensure!(
        stored.contains_key(&format!("encoder.layer.{}.output.dense.weight", layers - 1)),
        "no weights of layer {} of {layers}",
        layers - 1
    );
    Ok(stored)
}

fn belongs(name: &str, layers: usize) -> bool {
    if let Some(rest) = name.strip_prefix("encoder.layer.") {
        return rest.split('.').next().and_then(|layer| layer.parse().ok()).is_some_and(|layer: usize| layer < layers);
    }
    // `position_ids` is 0, 1, 2, …: some checkpoints store it, none needs it.
    name.starts_with("embeddings.") && !name.ends_with("position_ids")
}

/// Symmetric int8, a scale a row. A row of zeros gets the scale 1.
fn quantise(rows: &[Vec<f32>]) -> (Vec<u8>, Vec<f32>) {
    let mut values = Vec::with_capacity(rows.iter().map(Vec::len).sum());
    let mut scales = Vec::with_capacity(rows.len());
    for row in rows {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0. { largest / 127. } else { 1. };
        values.extend(row.iter().map(|value| ((value / scale).round().clamp(-127., 127.) as i8) as u8));
        scales.push(scale);
    }
    (values, scales)
}

fn float(shape: Vec<usize>, values: &[f32]) -> Stored {
    Stored { dtype: Dtype::F32, shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
}

fn serialize(stored: &BTreeMap<String, Stored>) -> Result<Vec<u8>> {
    let views = stored
        .iter()
        .map(|(name, tensor)| Ok((name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    // One entry only: the order of several would differ from run to run.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
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

/// Writes a file and prints its line for `sha256sum --check`.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{digest}  {} ({} bytes)", path.file_name().unwrap_or_default().to_string_lossy(), bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
    fn rows_are_rounded_to_within_half_a_step() {
        let rows = [vec![0.5, -1.27, 0.004], vec![0., 0., 0.]];
        let (values, scales) = quantise(&rows);
        // Steps of 0.01: 50, -127 and 0.4, which rounds to 0.
        assert_eq!(values.iter().map(|&byte| byte as i8).collect::<Vec<_>>(), [50, -127, 0, 0, 0, 0]);
        assert!((scales[0] - 0.01).abs() < 1e-7 && scales[1] == 1.);
    }

    #[test]
    fn only_embeddings_and_the_first_layers_are_kept() {
        let kept = [
            ("embeddings.LayerNorm.weight", true),
            ("embeddings.position_ids", false),
            ("encoder.layer.1.output.dense.weight", true),
            ("encoder.layer.2.output.dense.weight", false),
            ("encoder.layer.10.output.dense.weight", false),
            ("pooler.dense.weight", false),
            ("cls.predictions.bias", false),
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
        let matrix = |rows: usize| Tensor::arange(0f32, 4. * rows as f32, &Device::Cpu).unwrap().reshape((rows, 4)).unwrap();
        let weights = HashMap::from([
            ("bert.embeddings.word_embeddings.weight".to_string(), matrix(5)),
            ("bert.encoder.layer.0.output.dense.weight".to_string(), matrix(4)),
            ("bert.encoder.layer.0.output.dense.bias".to_string(), Tensor::ones(4, DType::F16, &Device::Cpu).unwrap()),
            ("bert.encoder.layer.1.output.dense.weight".to_string(), matrix(4)),
        ]);
        let bytes = serialize(&cut_weights(weights, 1, &vec![1, 4]).unwrap()).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names = file.names();
        names.sort();
        assert_eq!(
            names,
            [
                "embeddings.word_embeddings.weight",
                "embeddings.word_embeddings.weight.scale",
                "encoder.layer.0.output.dense.bias",
                "encoder.layer.0.output.dense.weight",
                "encoder.layer.0.output.dense.weight.scale",
            ]
        );
        let words = file.tensor("embeddings.word_embeddings.weight").unwrap();
        assert_eq!((words.dtype(), words.shape()), (Dtype::I8, &[2, 4][..]));
        // Row 4 of the original, 16 17 18 19, is row 1 here; its last value is the largest, so 127.
        assert_eq!(words.data()[7] as i8, 127);
        assert_eq!(file.tensor("encoder.layer.0.output.dense.bias").unwrap().data()[..4], 1f32.to_le_bytes());
    }
}
