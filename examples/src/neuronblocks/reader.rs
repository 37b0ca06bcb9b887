//! From features to what a network reads: the ids of its dictionaries, and word pieces where a pretrained encoder reads.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_data::encode::{EncodedTexts, WordPieces};
use kd_data::features::Features;
use kd_data::table::Table;
use kd_students::blocks::embedding::Place;
use kd_students::plan::{Branch, Embedded};
use kd_teachers::config::EncoderConfig;

use super::blueprint::Blueprint;
use super::configuration::{Configuration, Problem};
use super::dictionaries::{Dictionaries, UNKNOWN};
use super::encoded::{Encoded, RowKind};
use super::encoder_block;

/// Characters of a word that is only timed.
const TIMED_CHARACTERS: usize = 6;

/// What a network reads with.
#[derive(Debug)]
pub struct Reader {
    /// What it knows.
    pub dictionaries: Dictionaries,
    branches: Vec<Branch>,
    embedded: Vec<Embedded>,
    row: RowKind,
    /// Of the branches that a pretrained encoder reads.
    pieces: BTreeMap<String, Pieces>,
}

/// How a pretrained encoder reads.
#[derive(Debug)]
struct Pieces {
    tokenizer: WordPieces,
    max_len: usize,
    vocabulary: usize,
}

impl Reader {
    /// The reader of a configured network.
    ///
    /// # Errors
    /// If a pretrained encoder's files cannot be read, or several read the same branch.
    pub fn new(configuration: &Configuration, blueprint: &Blueprint, dictionaries: Dictionaries) -> Result<Self> {
        let row = match configuration.inputs.problem {
            Problem::SequenceTagging => RowKind::Token { boundaries: configuration.inputs.add_start_end_for_seq },
            _ => RowKind::Example,
        };
        Ok(Self {
            dictionaries,
            branches: blueprint.inputs.branches.clone(),
            embedded: blueprint.plan.branches().to_vec(),
            row,
            pieces: pieces(configuration, blueprint)?,
        })
    }

    /// Whether a branch is cut into word pieces, which needs the lines of the file.
    pub fn reads_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Examples as the network reads them. `table` has the lines that they are from, of these `columns`, for branches of word
    /// pieces; `targets` are columns of labels.
    ///
    /// # Errors
    /// If a label is unknown, or a text cannot be cut.
    pub fn encode(
        &self,
        features: Features,
        table: Option<&Table>,
        targets: &[String],
        columns: &[String],
        device: &Device,
    ) -> Result<Encoded> {
        let branches: Vec<_> = self.branches.iter().map(|branch| (branch.name.clone(), branch.length)).collect();
        let lines = features.lines.clone();
        let mut encoded = Encoded::new(features, &self.dictionaries, &branches, targets, self.row, device)?;
        for (idx, branch) in self.branches.iter().enumerate() {
            let Some(Pieces { tokenizer, max_len, .. }) = self.pieces.get(&branch.name) else { continue };
            let table = table.context("expected the lines of the texts that an encoder reads, found none")?;
            let texts = texts(table, &lines, columns, &branch.columns)?;
            let cut = match (texts.first(), texts.get(1)) {
                (Some(first), None) => {
                    EncodedTexts::new(tokenizer, first.iter().map(String::as_str), *max_len, device)?
                }
                (Some(first), Some(second)) => {
                    let pairs = first.iter().zip(second).map(|(a, b)| (a.as_str(), b.as_str()));
                    EncodedTexts::pairs(tokenizer, pairs, *max_len, device)?
                }
                _ => bail!("branch `{}`: expected a column of text, found none", branch.name),
            };
            encoded.read_pieces(idx, Box::new(cut));
        }
        Ok(encoded)
    }

    /// A batch of examples of `len` tokens together, or as many as the network reads, of no meaning: to be timed. Of several
    /// texts the first has a fifth of them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn some_tokens(&self, batch: usize, len: usize, device: &Device) -> candle_core::Result<Tokens> {
        let others = self.branches.len() - 1;
        let of_branch = |(idx, (branch, embedded)): (usize, (&Branch, &Embedded))| {
            let share = match (idx, others) {
                (_, 0) => len,
                (0, _) => len / 5,
                _ => (len - len / 5) / others,
            };
            self.some_sequence(branch, embedded, batch, share.max(1), device)
        };
        let mut all = self.branches.iter().zip(&self.embedded).enumerate().map(of_branch);
        let Some(first) = all.next().transpose()? else { candle_core::bail!("expected a branch, found none") };
        let second = all.next().transpose()?;
        Ok(Tokens { first, second, more: all.collect::<candle_core::Result<_>>()?, rows: Rows::Examples })
    }

    fn some_sequence(
        &self,
        branch: &Branch,
        embedded: &Embedded,
        batch: usize,
        tokens: usize,
        device: &Device,
    ) -> candle_core::Result<Sequence> {
        let pieces = self.pieces.get(&branch.name);
        let most = pieces.map_or(branch.length, |pieces| Some(pieces.max_len)).unwrap_or(usize::MAX);
        let tokens = tokens.min(most);
        let len = branch.length.filter(|_| pieces.is_none()).unwrap_or(tokens);
        // Of `rows` symbols, none of them padding.
        let ids = |rows: usize, shape: &[usize]| {
            let id = |place: usize| (UNKNOWN as usize + (place * 7919) % (rows - 1).max(1)) as u32;
            Tensor::from_vec((0..shape.iter().product()).map(id).collect(), shape, device)
        };
        let rows = self.dictionaries.rows();
        let (mut words, mut chars, mut features) = (None, None, Vec::new());
        for column in &embedded.columns {
            let known = match (&column.cluster, pieces) {
                (Some(cluster), _) => rows.get(cluster).copied().unwrap_or(1),
                (None, pieces) => pieces.map_or(1, |pieces| pieces.vocabulary),
            };
            match column.place {
                Place::Characters => chars = Some(ids(known, &[batch, len, TIMED_CHARACTERS])?),
                _ if words.is_none() => words = Some(ids(known, &[batch, len])?),
                _ => features.push(ids(known, &[batch, len])?),
            }
        }
        let ids = match words {
            Some(words) => words,
            None => Tensor::zeros((batch, len), DType::U32, device)?,
        };
        let mask: Vec<u8> = (0..batch * len).map(|place| u8::from(place % len < tokens)).collect();
        let mask = Tensor::from_vec(mask, (batch, len), device)?;
        Ok(Sequence { ids, mask, segments: None, chars, features })
    }
}

/// The texts of the `wanted` ones of these columns at these lines, a list for each.
///
/// # Errors
/// If there is no such column.
pub fn texts(table: &Table, lines: &[usize], columns: &[String], wanted: &[String]) -> Result<Vec<Vec<String>>> {
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
fn pieces(configuration: &Configuration, blueprint: &Blueprint) -> Result<BTreeMap<String, Pieces>> {
    let mut pieces = BTreeMap::new();
    for (id, block) in encoder_block::blocks(configuration.architecture())? {
        let files = block.files(configuration.model_folder.as_deref()).map_err(anyhow::Error::msg)?;
        let readers = blueprint.plan.layers().iter().filter(|layer| layer.owner == id);
        for branch in readers.flat_map(|layer| &layer.inputs) {
            if pieces.contains_key(branch) {
                bail!("branch `{branch}`: expected one encoder that reads it, found several");
            }
            let tokenizer = WordPieces::from_file(&files.tokenizer)?;
            let vocabulary = EncoderConfig::read(&files.config)?.vocabulary;
            pieces.insert(branch.clone(), Pieces { tokenizer, max_len: block.max_len, vocabulary });
        }
    }
    Ok(pieces)
}
