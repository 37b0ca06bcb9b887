//! Whether published tokenizers give here the ids and segments that they give in transformers: a check that is run by hand.
//!
//! ```sh
//! python kd-teachers/tests/reference/real.py DIR     # what transformers says of 20 texts; needs the checkpoints
//! cargo run --release -p kd-data --example pieces -- DIR
//! ```
//!
//! Compares the tokenizer.json of each model, and its vocabulary files where there are any.

use std::path::{Path, PathBuf};

use kd_data::encode::WordPieces;
use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("expected DIR, the folder that real.py wrote")?;
    let mut documents: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Outcome<Vec<_>>>()?;
    documents.retain(|path| path.extension().is_some_and(|end| end == "json"));
    documents.sort();
    for path in documents {
        let document: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let folder = document["folder"].as_str().ok_or("no `folder`")?;
        for file in ["tokenizer.json", "vocab.txt", "vocab.json"].map(|name| Path::new(folder).join(name)) {
            if file.is_file() {
                compare(&document, &file)?;
            }
        }
    }
    Ok(())
}

fn compare(document: &Value, file: &Path) -> Outcome<()> {
    let pieces = WordPieces::from_file(file)?;
    let texts: Vec<(String, Option<String>)> = serde_json::from_value(document["texts"].clone())?;
    let ids: Vec<Vec<u32>> = serde_json::from_value(document["ids"].clone())?;
    let segments: Vec<Vec<u32>> = serde_json::from_value(document["segments"].clone())?;
    let max_len = document["max_len"].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("no `max_len`")?;
    for (((first, second), ids), segments) in texts.iter().zip(&ids).zip(&segments) {
        let found = match second {
            Some(second) => pieces.encode_pair(first, second, max_len)?,
            None => pieces.encode_text(first, max_len)?,
        };
        if found.ids != *ids || found.segments != *segments {
            return Err(
                format!("{}: {first:?}, {second:?}: expected {ids:?}, found {:?}", file.display(), found.ids).into()
            );
        }
    }
    println!("{}: {} texts have the ids and segments of transformers", file.display(), texts.len());
    Ok(())
}
