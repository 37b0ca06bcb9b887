//! A network with what it knows, and the folder that it is kept in.
//!
//! | file                 | holds                                                     |
//! |----------------------|-----------------------------------------------------------|
//! | `configuration.json` | the configuration that it was trained by                  |
//! | `dictionaries.json`  | symbols of the clusters, names of the classes             |
//! | `model.safetensors`  | all variables, the statistics of batch norms too          |

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use kd_core::checkpoint;
use kd_core::variables::{Variables, mix};
use kd_data::encode::{EncodedTexts, WordPieces};
use kd_data::features::{Features, WORDS};
use kd_data::table::Table;
use kd_data::vectors;
use kd_students::blocks::embedding::Table as Rows;
use kd_students::plan::Network;

use super::blueprint::Blueprint;
use super::configuration::{Configuration, Problem, VectorCoding, VectorType};
use super::dictionaries::{Dictionaries, SPECIAL};
use super::encoded::{Encoded, RowKind};
use super::encoder_block::{EncoderBlock, NAME};
use crate::report;

/// File of the configuration.
pub const CONFIGURATION: &str = "configuration.json";
/// File of the dictionaries.
pub const DICTIONARIES: &str = "dictionaries.json";
/// File of the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// A network, its variables and its dictionaries.
#[derive(Debug)]
pub struct Model {
    /// What it was made by.
    pub blueprint: Blueprint,
    /// What it knows.
    pub dictionaries: Dictionaries,
    /// The student.
    pub network: Network,
    /// What is trained of it.
    pub variables: Variables,
    /// Where it computes.
    pub device: Device,
    /// Tokenizers of the branches that a pretrained encoder reads, and most of their pieces.
    pieces: BTreeMap<String, (WordPieces, usize)>,
}

impl Model {
    /// A network with fresh weights.
    ///
    /// # Errors
    /// If the configuration is wrong, or a checkpoint that it starts from cannot be read.
    pub fn new(configuration: &Configuration, dictionaries: Dictionaries, device: &Device) -> Result<Self> {
        let blueprint = Blueprint::of(configuration, Some(&dictionaries))?;
        let variables = Variables::new(configuration.training.seed, DType::F32, device);
        let rows: BTreeMap<String, usize> = dictionaries.rows().into_iter().collect();
        let network = blueprint.plan.build(&rows, variables.builder())?;
        let pieces = pieces(configuration, &blueprint)?;
        Ok(Self { blueprint, dictionaries, network, variables, device: device.clone(), pieces })
    }

    /// The network of a folder; `configuration` is the file that is given beside it.
    ///
    /// # Errors
    /// If a file is missing or damaged, or `configuration` describes another network than the folder's.
    pub fn load(folder: &Path, configuration: &Configuration, device: &Device) -> Result<Self> {
        let named = |file: &str| folder.join(file).display().to_string();
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).with_context(|| named(file));
        let kept: serde_json::Value =
            serde_json::from_str(&read(CONFIGURATION)?).with_context(|| named(CONFIGURATION))?;
        let differences = checkpoint::differences(&kept["architecture"], &configuration.value["architecture"]);
        if !differences.is_empty() {
            bail!(
                "{}: expected the model's own architecture, found another in {} ({})",
                folder.display(),
                configuration.path.display(),
                differences.join("; ")
            );
        }
        let dictionaries = serde_json::from_str(&read(DICTIONARIES)?).with_context(|| named(DICTIONARIES))?;
        let model = Self::new(configuration, dictionaries, device)?;
        let (tensors, ()) = checkpoint::load(&folder.join(WEIGHTS))?;
        let tensors: HashMap<_, _> = tensors.into_iter().collect();
        model.variables.set(&tensors).with_context(|| named(WEIGHTS))?;
        Ok(model)
    }

    /// Writes the folder; the weights last, so that a folder that has them is whole.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path, configuration: &Configuration) -> Result<()> {
        report::save(&folder.join(CONFIGURATION), &configuration.value)?;
        report::save(&folder.join(DICTIONARIES), &self.dictionaries)?;
        checkpoint::save(&folder.join(WEIGHTS), &self.variables.tensors(), &())?;
        Ok(())
    }

    /// Puts pretrained vectors into the table of words; words without one are drawn evenly from ±√(3 / width), as the
    /// original does. A word is looked up as it is written, then in lower case.
    ///
    /// # Errors
    /// If the vectors are of another width than the table, or their file is wrong.
    pub fn start_from_vectors(&self, found: &vectors::Vectors, seed: u64) -> Result<usize> {
        let place: HashMap<&str, usize> = found.words.iter().map(String::as_str).zip(0..).collect();
        let (width, bound) = (found.width, (3.0 / found.width as f64).sqrt());
        let drawn = |row: usize| {
            let unit = |at: usize| mix(mix(seed, row as u64), at as u64) as f64 / u64::MAX as f64;
            (0..width).map(|at| ((2.0 * unit(at) - 1.0) * bound) as f32).collect::<Vec<f32>>()
        };
        let (mut rows, mut known) = (vec![(SPECIAL - 1, drawn(SPECIAL - 1))], 0);
        for (row, word) in (SPECIAL..).zip(self.dictionaries.symbols_of(WORDS)) {
            let vector = place.get(word.as_str()).or_else(|| place.get(word.to_lowercase().as_str()));
            known += usize::from(vector.is_some());
            rows.push((
                row,
                match vector {
                    Some(&idx) => found.values[idx * width..][..width].to_vec(),
                    None => drawn(row),
                },
            ));
        }
        self.network.set_vectors(WORDS, &rows)?;
        Ok(known)
    }

    /// Examples as this network reads them. `table` has the lines that they are from, for branches of word pieces.
    ///
    /// # Errors
    /// If a label is unknown, or a text cannot be cut.
    pub fn encode(
        &self,
        configuration: &Configuration,
        features: Features,
        table: Option<&Table>,
        targets: &[String],
        columns: &[String],
    ) -> Result<Encoded> {
        let inputs = &self.blueprint.inputs;
        let branches: Vec<_> = inputs.branches.iter().map(|branch| (branch.name.clone(), branch.length)).collect();
        let row = match configuration.inputs.problem {
            Problem::SequenceTagging => RowKind::Token { boundaries: configuration.inputs.add_start_end_for_seq },
            _ => RowKind::Example,
        };
        let lines = features.lines.clone();
        let mut encoded = Encoded::new(features, &self.dictionaries, &branches, targets, row, &self.device)?;
        for (idx, branch) in inputs.branches.iter().enumerate() {
            let Some((pieces, max_len)) = self.pieces.get(&branch.name) else { continue };
            let table = table.context("expected the lines of the texts that an encoder reads, found none")?;
            let texts = texts(table, &lines, columns, &branch.columns)?;
            let (first, second) = (texts.first(), texts.get(1));
            let of = |texts: &Vec<String>, at: usize| texts[at].clone();
            let all: Vec<usize> = (0..lines.len()).collect();
            let cut = match (first, second) {
                (Some(first), None) => {
                    EncodedTexts::new(pieces, first.iter().map(String::as_str), *max_len, &self.device)?
                }
                (Some(first), Some(second)) => {
                    let pairs: Vec<(String, String)> = all.iter().map(|&at| (of(first, at), of(second, at))).collect();
                    let pairs = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str()));
                    EncodedTexts::pairs(pieces, pairs, *max_len, &self.device)?
                }
                _ => bail!("branch `{}`: expected a column of text, found none", branch.name),
            };
            encoded.read_pieces(idx, Box::new(cut));
        }
        Ok(encoded)
    }

    /// Whether a branch is cut into word pieces, which needs the lines of the file.
    pub fn reads_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }
}

/// The texts of these columns at these lines, a list for each column.
fn texts(table: &Table, lines: &[usize], columns: &[String], wanted: &[String]) -> Result<Vec<Vec<String>>> {
    let by_number: HashMap<usize, &Vec<String>> = table.lines.iter().map(|line| (line.number, &line.columns)).collect();
    let of_column = |name: &String| {
        let place = columns.iter().position(|column| column == name);
        let place = place.with_context(|| format!("expected a column `{name}` in the file, found none"))?;
        let text = |number| by_number.get(number).and_then(|columns| columns.get(place)).cloned().unwrap_or_default();
        Ok(lines.iter().map(text).collect())
    };
    wanted.iter().map(of_column).collect()
}

/// The tokenizer of each branch that an encoder block reads.
fn pieces(configuration: &Configuration, blueprint: &Blueprint) -> Result<BTreeMap<String, (WordPieces, usize)>> {
    let mut pieces = BTreeMap::new();
    let items = configuration.architecture().as_array().map(Vec::as_slice).unwrap_or_default();
    for item in items.iter().filter(|item| item["layer"] == NAME) {
        let block: EncoderBlock = serde_json::from_value(item["conf"].clone())?;
        let files = block.files().map_err(anyhow::Error::msg)?;
        let id = item["layer_id"].as_str().unwrap_or_default();
        let readers = blueprint.plan.layers().iter().filter(|layer| layer.owner == id);
        for branch in readers.flat_map(|layer| &layer.inputs) {
            if pieces.contains_key(branch) {
                bail!("branch `{branch}`: expected one encoder that reads it, found several");
            }
            pieces.insert(branch.clone(), (WordPieces::from_file(&files.tokenizer)?, block.max_len));
        }
    }
    Ok(pieces)
}

/// The vectors of the words of a dictionary, or of all words of the file, which the dictionary then has too.
///
/// # Errors
/// If there is no table of words, or the file is wrong.
pub fn read_vectors(
    configuration: &Configuration,
    blueprint: &Blueprint,
    dictionaries: &mut Dictionaries,
    path: &Path,
) -> Result<Option<vectors::Vectors>> {
    let inputs = &configuration.inputs;
    let Some(width) = blueprint.plan.clusters().iter().find_map(|cluster| match cluster.table {
        Rows::Rows { dim, .. } if cluster.name == WORDS => Some(dim),
        _ => None,
    }) else {
        return Ok(None);
    };
    let format = match inputs.vector_type {
        VectorType::Glove => vectors::Format::Glove,
        VectorType::Word2vec => vectors::Format::Word2vec,
        VectorType::Fasttext => vectors::Format::Fasttext,
    };
    let storage = match inputs.vector_coding {
        VectorCoding::Text => vectors::Storage::Text,
        VectorCoding::Binary => vectors::Storage::Binary,
    };
    let mut wanted: std::collections::HashSet<String> = dictionaries.symbols_of(WORDS).iter().cloned().collect();
    let exact = wanted.clone();
    wanted.extend(exact.iter().map(|word| word.to_lowercase()));
    let all = inputs.involve_all_words_in_pretrained_emb;
    let found = vectors::read(path, format, storage, width, |word| all || wanted.contains(word))?;
    if all && let Some((_, words)) = dictionaries.clusters.iter_mut().find(|(name, _)| name == WORDS) {
        words.extend(found.words.iter().filter(|word| !exact.contains(*word)).cloned());
    }
    Ok(Some(found))
}
