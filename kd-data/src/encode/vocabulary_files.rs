//! Tokenizers that come as vocabulary files instead of a `tokenizer.json`.
//!
//! | files                        | tokenizer                                                                       |
//! |------------------------------|---------------------------------------------------------------------------------|
//! | `vocab.txt`                  | BERT's word pieces (Devlin et al. 2019), one a line; MPNet's frame for its class |
//! | `vocab.json` + `merges.txt`  | RoBERTa's byte-level BPE (Liu et al. 2019, §4.4)                                |
//! | `*.model`                    | an error that says how to convert it                                            |
//!
//! Each is put into the form of a `tokenizer.json`, as transformers makes it of the same files. `tokenizer_config.json`
//! beside them may set `do_lower_case` (default: true), `strip_accents` (default: as `do_lower_case`) and
//! `tokenize_chinese_chars` (default: true) of word pieces, `add_prefix_space` (default: false) of BPE,
//! `tokenizer_class`, and the names of the special tokens.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result, read_text};

/// The `tokenizer.json` of a tokenizer's file: its bytes, or what the vocabulary files stand for.
pub(super) fn tokenizer_json(path: &Path) -> Result<Vec<u8>> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.ends_with(".txt") && !name.ends_with("merges.txt") {
        return word_pieces(path);
    }
    if name.ends_with("vocab.json") || name.ends_with("merges.txt") {
        let beside = |from: &str, to: &str| path.with_file_name(name.replace(from, to));
        return byte_pairs(&beside("merges.txt", "vocab.json"), &beside("vocab.json", "merges.txt"));
    }
    if name.ends_with(".model") {
        let advice = "a SentencePiece model; convert it with Python: \
                      transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
        return Err(Error::file(path, "a `tokenizer.json`", advice));
    }
    std::fs::read(path).map_err(Error::io(path))
}

fn word_pieces(path: &Path) -> Result<Vec<u8>> {
    let config = Config::beside(path)?;
    let mut vocab = Map::new();
    for (id, piece) in read_text(path)?.lines().enumerate() {
        vocab.insert(piece.trim_end().to_string(), json!(id));
    }
    let mpnet = config.text("tokenizer_class").is_some_and(|class| class.starts_with("MPNet"));
    let (cls, sep) = if mpnet { ("<s>", "</s>") } else { ("[CLS]", "[SEP]") };
    let (cls, sep) = (config.token("cls_token", cls, &vocab, path)?, config.token("sep_token", sep, &vocab, path)?);
    let unknown = config.token("unk_token", "[UNK]", &vocab, path)?;
    let kind = if mpnet { "RobertaProcessing" } else { "BertProcessing" };
    document(
        json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": config.flag("strip_accents")?,
            "lowercase": config.flag("do_lower_case")?.unwrap_or(true),
        }),
        json!({ "type": "BertPreTokenizer" }),
        frame(kind, &cls, &sep),
        json!({
            "type": "WordPiece",
            "unk_token": unknown.0,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }),
        path,
    )
}

fn byte_pairs(vocab_path: &Path, merges_path: &Path) -> Result<Vec<u8>> {
    let config = Config::beside(vocab_path)?;
    let vocab = object(vocab_path)?;
    let mut merges = Vec::new();
    for (idx, line) in read_text(merges_path)?.lines().enumerate() {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => merges.push(json!([left, right])),
            _ => return Err(Error::line(merges_path, idx + 1, "two pieces with a blank between", format!("{line:?}"))),
        }
    }
    let cls = config.token("cls_token", "<s>", &vocab, vocab_path)?;
    let sep = config.token("sep_token", "</s>", &vocab, vocab_path)?;
    let add_prefix_space = config.flag("add_prefix_space")?.unwrap_or(false);
    document(
        Value::Null,
        json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true }),
        frame("RobertaProcessing", &cls, &sep),
        json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "vocab": vocab,
            "merges": merges,
        }),
        vocab_path,
    )
}

fn frame(kind: &str, cls: &(String, Value), sep: &(String, Value)) -> Value {
    let mut frame = json!({ "type": kind, "sep": [sep.0, sep.1], "cls": [cls.0, cls.1] });
    if kind == "RobertaProcessing" {
        frame["trim_offsets"] = json!(true);
        frame["add_prefix_space"] = json!(false);
    }
    frame
}

fn document(normalizer: Value, pre_tokenizer: Value, frame: Value, model: Value, path: &Path) -> Result<Vec<u8>> {
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": frame,
        "decoder": null,
        "model": model,
    });
    serde_json::to_vec(&document).map_err(|cause| Error::file(path, "a vocabulary", cause.to_string()))
}

/// The `tokenizer_config.json` beside a vocabulary; empty if there is none.
struct Config {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Config {
    fn beside(vocabulary: &Path) -> Result<Self> {
        let path = vocabulary.with_file_name("tokenizer_config.json");
        let object = if path.exists() { object(&path)? } else { Map::new() };
        Ok(Self { path, object })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(Error::file(&self.path, format!("`{key}`, true or false"), other.to_string())),
        }
    }

    /// A text, or the `content` of a token that is written as an object.
    fn text(&self, key: &str) -> Option<&str> {
        let value = self.object.get(key)?;
        value.as_str().or_else(|| value["content"].as_str())
    }

    /// The name and the id of a special token.
    fn token(&self, key: &str, default: &str, vocab: &Map<String, Value>, path: &Path) -> Result<(String, Value)> {
        let name = self.text(key).unwrap_or(default);
        match vocab.get(name) {
            Some(id) => Ok((name.to_string(), id.clone())),
            None => Err(Error::file(path, format!("a piece `{name}`"), format!("none among {}", vocab.len()))),
        }
    }
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::file(path, "a JSON object", "another value")),
        Err(cause) => Err(Error::file(path, "a JSON object", cause.to_string())),
    }
}
