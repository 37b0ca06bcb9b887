//! Tags or classifies text with a saved student: JSON lines out.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kd_core::ops::packed::Precision;
use kd_students::bundle::{Bundle, StudentConfig};
use kd_students::predict::entities;
use kd_students::split_words;
use serde_json::json;

use crate::device::DeviceChoice;
use crate::neuronblocks::model;

/// Texts read before they are answered together.
const CHUNK: usize = 256;

/// Tag or classify text with a saved student.
#[derive(Debug, clap::Args)]
pub struct PredictArgs {
    /// Folder of the student
    #[arg(long)]
    pub model: PathBuf,
    /// File with one text a line; standard input if it is - or not given
    #[arg(long)]
    pub input: Option<PathBuf>,
    /// The text is split into words already, by blanks
    #[arg(long)]
    pub words: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// How the student's LSTM computes on the CPU: f32, bf16 or int8
    #[arg(long, default_value = "f32", value_parser = precision)]
    pub precision: Precision,
}

fn precision(name: &str) -> Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        "int8" => Ok(Precision::Int8),
        _ => Err(format!("expected f32, bf16 or int8, found `{name}`")),
    }
}

/// Reads texts line by line and prints one JSON object for each: `words`, `tags` and `entities`, or `class` and
/// `probability`. An empty line gives an empty answer.
pub fn run(args: &PredictArgs) -> Result<()> {
    if model::is_there(&args.model) {
        let folder = args.model.display();
        bail!(
            "{folder}: expected a student's folder, found that of a network from a file: neuronblocks predict --conf_path \
             {folder}/{} --previous_model_path {folder} asks it",
            model::CONFIGURATION
        );
    }
    let bundle = Bundle::load_in(&args.model, &args.device.open()?, args.precision)?;
    let (name, input): (String, Box<dyn Read>) = match &args.input {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            (path.display().to_string(), Box::new(file))
        }
        _ => ("standard input".to_string(), Box::new(std::io::stdin())),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut texts, mut line) = (Vec::new(), Vec::new());
    let mut reader = BufReader::new(input);
    for number in 1.. {
        line.clear();
        let is_end = reader.read_until(b'\n', &mut line).with_context(|| name.clone())? == 0;
        if !is_end {
            match std::str::from_utf8(&line) {
                Ok(text) => texts.push(text.trim_end_matches(['\r', '\n']).trim_start_matches('\u{feff}').to_string()),
                Err(error) => bail!("{name}:{number}: expected UTF-8, found another byte at {}", error.valid_up_to()),
            }
        }
        if texts.len() == CHUNK || (is_end && !texts.is_empty()) {
            answer(&bundle, &texts, args.words, &mut out)?;
            texts.clear();
        }
        if is_end {
            break;
        }
    }
    Ok(out.flush()?)
}

fn answer(bundle: &Bundle, texts: &[String], are_split: bool, out: &mut dyn Write) -> Result<()> {
    let split = |text: &String| -> Vec<String> {
        let words = if are_split { text.split_whitespace().collect() } else { split_words(text) };
        words.into_iter().map(String::from).collect()
    };
    let words: Vec<Vec<String>> = texts.iter().map(split).collect();
    match bundle.description().student {
        StudentConfig::Tagger(_) => {
            for (text, tagged) in texts.iter().zip(bundle.tag(&words)?) {
                let object = json!({
                    "text": text,
                    "words": tagged.iter().map(|tagged| &tagged.word).collect::<Vec<_>>(),
                    "tags": tagged.iter().map(|tagged| &tagged.tag).collect::<Vec<_>>(),
                    "entities": entities(&tagged)?,
                });
                writeln!(out, "{object}")?;
            }
        }
        StudentConfig::Classifier(_) => {
            for (text, classified) in texts.iter().zip(bundle.classify(&words)?) {
                let (class, probability) = classified.map(|answer| (answer.class, answer.probability)).unzip();
                writeln!(out, "{}", json!({ "text": text, "class": class, "probability": probability }))?;
            }
        }
    }
    Ok(())
}
