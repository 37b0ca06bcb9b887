//! Which of a model's files are wanted, in a folder or in the hub's list of them.

use std::path::{Path, PathBuf};

use crate::error::{Error, NotFound, Result};

pub(super) const CONFIG: &str = "config.json";

/// What may stand in a tokenizer's place, best first; the parser is chosen by the name.
const TOKENIZERS: [&[&str]; 3] = [&[TOKENIZER], &["vocab.txt"], &["vocab.json", "merges.txt"]];
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// Says how a vocabulary is read (casing, special tokens, the longest input); not every model has it.
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Small files beside the tokenizer that are fetched with it if they are there.
pub(super) const COMPANIONS: [&str; 3] = [TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"];

/// Weights, and the index of weights in several files; safetensors first.
const SAFETENSORS_OR_INDEX: [&str; 2] = [SAFETENSORS, "model.safetensors.index.json"];
pub(super) const SAFETENSORS: &str = "model.safetensors";
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The files that a model is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The name of the weights, or of the index of their shards.
    pub(super) weights: &'static str,
    pub(super) sharded: bool,
    pub(super) pickle: bool,
    /// The tokenizer's own file first.
    pub(super) tokenizer: &'static [&'static str],
}

/// What a model lacks.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) file: String,
    /// What to do, if what is there says more than that it is missing.
    pub(super) advice: Option<String>,
    /// Weights that are there and not allowed.
    pub(super) pickled: Option<&'static str>,
}

impl Missing {
    pub(super) fn file(name: impl Into<String>) -> Self {
        Self { file: name.into(), advice: None, pickled: None }
    }

    pub(super) fn shard(name: &str, layout: &Layout) -> Self {
        Self::file(format!("{name}, a shard of {},", layout.weights))
    }
}

impl Layout {
    /// Chooses among the files that are there.
    pub(super) fn choose(has: &dyn Fn(&str) -> bool, pickle: bool) -> Result<Self, Missing> {
        if !has(CONFIG) {
            return Err(Missing::file(CONFIG));
        }
        let weights = |names: [&'static str; 2]| [false, true].into_iter().zip(names).find(|(_, name)| has(name));
        let (pickle, (sharded, weights)) = match (weights(SAFETENSORS_OR_INDEX), weights(PICKLES)) {
            (Some(found), _) => (false, found),
            (None, Some(found)) if pickle => (true, found),
            (None, found) => {
                let others = ["tf_model.h5", "flax_model.msgpack"];
                let advice = others.into_iter().find(|other| has(other));
                return Err(Missing {
                    advice: advice.map(|other| format!("there is a {other}, convert it to safetensors")),
                    pickled: found.map(|(_, name)| name),
                    ..Missing::file(SAFETENSORS)
                });
            }
        };
        let Some(tokenizer) = TOKENIZERS.into_iter().find(|files| files.iter().all(|file| has(file))) else {
            let advice = ["spiece.model", "sentencepiece.bpe.model", "spm.model"].into_iter().find(|other| has(other));
            return Err(Missing {
                advice: advice.map(|other| {
                    format!("there is a {other}: AutoTokenizer of transformers saves it as tokenizer.json")
                }),
                ..Missing::file("tokenizer.json, vocab.txt, or vocab.json with merges.txt,")
            });
        };
        Ok(Self { weights, sharded, pickle, tokenizer })
    }
}

/// Whether a tokenizer's own file says all of how it works.
pub(super) fn is_complete(tokenizer: &Path) -> bool {
    tokenizer.file_name().is_some_and(|name| name == TOKENIZER)
}

/// The files of a tokenizer, its own first: what a copy of it must have.
///
/// Of a `tokenizer.json` that file and, of another one, `merges.txt` beside a `vocab.json`; then those of
/// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` that lie in the same folder.
pub fn tokenizer_files(tokenizer: &Path) -> Vec<PathBuf> {
    let name = tokenizer.file_name().unwrap_or_default();
    let parts = TOKENIZERS.into_iter().find(|files| name == files[0]).map_or(&[][..], |files| &files[1..]);
    let beside = parts.iter().chain(&COMPANIONS).map(|file| tokenizer.with_file_name(file));
    std::iter::once(tokenizer.to_path_buf()).chain(beside.filter(|file| file.is_file())).collect()
}

/// Where files are looked for, for messages.
pub(super) struct Place<'a> {
    pub(super) id: &'a str,
    pub(super) revision: &'a str,
    pub(super) folder: &'a Path,
    pub(super) advice: &'a str,
}

impl Place<'_> {
    pub(super) fn missing(&self, missing: Missing) -> Error {
        let not_found = |advice: String| NotFound {
            id: self.id.to_string(),
            revision: self.revision.to_string(),
            file: missing.file,
            folder: self.folder.to_path_buf(),
            advice,
        };
        match missing.pickled {
            Some(name) => {
                let found = not_found(format!("there are only pickled weights, {name}")).to_string();
                Error::Pickled { found }
            }
            None => {
                let advice = missing.advice.unwrap_or_else(|| self.advice.to_string());
                Error::NotFound(Box::new(not_found(advice)))
            }
        }
    }
}
