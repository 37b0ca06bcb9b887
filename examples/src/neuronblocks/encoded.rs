//! Examples as tensors: the ids of every column of every branch, and the targets.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use kd_core::batch::{Batch, Rows, Sequence, Tokens};
use kd_data::encode::Encode;
use kd_data::features::{CHARACTERS, Features, Symbols, Values};

use super::dictionaries::Dictionaries;

/// A column of a branch: symbols of the file to ids of the network.
#[derive(Debug)]
enum Column {
    /// `word`, or another cluster; by the file's symbol. The first stands in `ids`, the others in `features`.
    Ids { column: usize, ids: Vec<u32> },
    /// `char`; by the file's word.
    Spellings { column: usize, spellings: Vec<Vec<u32>> },
}

/// What should come out of an example.
#[derive(Debug)]
enum Target {
    /// A class of each row.
    Classes(Vec<Vec<u32>>),
    /// A number.
    Numbers(Vec<f32>),
    /// A place in the passage.
    Places(Vec<u32>),
    /// Nothing that a loss reads.
    Nothing,
}

/// A branch.
#[derive(Debug)]
struct Branch {
    columns: Vec<Column>,
    /// Tokens of every sequence with its padding; the longest of the batch if there is none.
    length: Option<usize>,
    /// The branch in the pieces of a pretrained encoder, in place of its columns.
    pieces: Option<Pieces>,
}

/// Texts in word pieces.
struct Pieces(Box<dyn Encode>);

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pieces").field(&self.0.lengths().len()).finish()
    }
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// An example.
    Example,
    /// A token of the first branch; with boundaries but its first and last.
    Token {
        /// Whether the first and the last token are no rows.
        boundaries: bool,
    },
}

/// The examples of a file, ready to be made batches of.
#[derive(Debug)]
pub struct Encoded {
    features: Features,
    branches: Vec<Branch>,
    targets: Vec<Target>,
    row: RowKind,
    lengths: Vec<usize>,
    rows: Vec<usize>,
    device: Device,
}

impl Encoded {
    /// `features` with the ids of `dictionaries`. `branches` are names and fixed lengths, in the network's order; `targets`
    /// columns of labels, none in prediction.
    ///
    /// # Errors
    /// If a column has no cluster in the dictionaries, or a label no class; the message names file and line.
    pub fn new(
        features: Features,
        dictionaries: &Dictionaries,
        branches: &[(String, Option<usize>)],
        targets: &[String],
        row: RowKind,
        device: &Device,
    ) -> Result<Self> {
        let column = |(idx, column): (usize, &kd_data::features::Column)| match &column.symbols {
            Symbols::Spelling(of) if column.cluster == CHARACTERS => {
                Column::Spellings { column: *of, spellings: dictionaries.spellings(features.sequences(*of).symbols()) }
            }
            _ => Column::Ids { column: idx, ids: dictionaries.ids(&column.cluster, features.sequences(idx).symbols()) },
        };
        let of_branch = |(name, length): &(String, Option<usize>)| {
            let columns = features.columns.iter().enumerate().filter(|(_, column)| column.branch == *name);
            Branch { columns: columns.map(column).collect(), length: *length, pieces: None }
        };
        let branches: Vec<Branch> = branches.iter().map(of_branch).collect();
        let targets = targets
            .iter()
            .map(|name| target(&features, dictionaries, name))
            .collect::<Result<Vec<_>>>()
            .with_context(|| features.path.display().to_string())?;
        let tokens = |example| branches.iter().map(|branch| length(&features, branch, example)).sum();
        let lengths = (0..features.len()).map(tokens).collect();
        let rows = |example| match row {
            RowKind::Example => 1,
            RowKind::Token { boundaries } => {
                let tokens = branches.first().map_or(0, |branch| length(&features, branch, example));
                if boundaries { tokens.saturating_sub(2) } else { tokens }
            }
        };
        let rows = (0..features.len()).map(rows).collect();
        Ok(Self { branches, targets, row, lengths, rows, device: device.clone(), features })
    }

    /// Reads branch `branch_idx` in word pieces, one sequence for each example.
    pub fn read_pieces(&mut self, branch_idx: usize, pieces: Box<dyn Encode>) {
        self.branches[branch_idx].pieces = Some(Pieces(pieces));
        let tokens = |example| self.branches.iter().map(|branch| length(&self.features, branch, example)).sum();
        self.lengths = (0..self.features.len()).map(tokens).collect();
    }

    /// What was read.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes of the rows of an example, by target; none where it has no classes.
    pub fn classes(&self, target: usize, example: usize) -> Option<&[u32]> {
        match self.targets.get(target)? {
            Target::Classes(classes) => classes.get(example).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The number of an example, by target; none where it is no number.
    pub fn number(&self, target: usize, example: usize) -> Option<f32> {
        match self.targets.get(target)? {
            Target::Numbers(numbers) => numbers.get(example).copied(),
            _ => None,
        }
    }

    /// A padded batch of these examples with what should come out of them: the first target of classes as labels, and all targets in their order.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn batch(&self, examples: Vec<usize>) -> candle_core::Result<Batch> {
        let targets = self.targets.iter().map(|target| self.target(target, &examples));
        let targets: Vec<Tensor> = targets.collect::<candle_core::Result<_>>()?;
        let is_classes = |target: &Target| matches!(target, Target::Classes(_));
        let labels = self.targets.iter().position(is_classes).map(|idx| targets[idx].clone());
        let tokens = self.collate(&examples)?;
        Ok(Batch { tokens, labels, targets, teachers: vec![], weights: None, task: 0, examples })
    }

    fn target(&self, target: &Target, examples: &[usize]) -> candle_core::Result<Tensor> {
        match target {
            Target::Classes(classes) => kd_data::batches::collate_labels(classes, examples, &self.device),
            Target::Numbers(all) => {
                Tensor::new(examples.iter().map(|&example| all[example]).collect::<Vec<f32>>(), &self.device)
            }
            Target::Places(all) => {
                Tensor::new(examples.iter().map(|&example| all[example]).collect::<Vec<u32>>(), &self.device)
            }
            Target::Nothing => Tensor::zeros(examples.len(), candle_core::DType::U32, &self.device),
        }
    }

    fn sequence(&self, branch: &Branch, examples: &[usize]) -> candle_core::Result<Sequence> {
        if let Some(Pieces(pieces)) = &branch.pieces {
            return Ok(pieces.collate(examples)?.first);
        }
        let lengths: Vec<usize> = examples.iter().map(|&example| length(&self.features, branch, example)).collect();
        let len = branch.length.unwrap_or_else(|| lengths.iter().copied().max().unwrap_or(0));
        let (batch, device) = (examples.len(), &self.device);
        let mut mask = vec![0u8; batch * len];
        for (nth, &tokens) in lengths.iter().enumerate() {
            mask[nth * len..][..tokens.min(len)].fill(1);
        }
        let (mut words, mut chars, mut features) = (None, None, Vec::new());
        for column in &branch.columns {
            match column {
                Column::Ids { column, ids } => {
                    let mut padded = vec![0u32; batch * len];
                    for (nth, &example) in examples.iter().enumerate() {
                        let symbols = self.features.sequences(*column).ids(example);
                        for (place, &symbol) in padded[nth * len..][..len].iter_mut().zip(symbols) {
                            *place = ids[symbol as usize];
                        }
                    }
                    let ids = Tensor::from_vec(padded, (batch, len), device)?;
                    if words.is_none() { words = Some(ids) } else { features.push(ids) }
                }
                Column::Spellings { column, spellings } => {
                    chars = Some(self.characters(*column, spellings, examples, len)?);
                }
            }
        }
        let ids = match words {
            Some(ids) => ids,
            None => Tensor::zeros((batch, len), candle_core::DType::U32, device)?,
        };
        let mask = Tensor::from_vec(mask, (batch, len), device)?;
        Ok(Sequence { ids, mask, segments: None, chars, features })
    }

    fn characters(
        &self,
        column: usize,
        spellings: &[Vec<u32>],
        examples: &[usize],
        len: usize,
    ) -> candle_core::Result<Tensor> {
        let sequences = self.features.sequences(column);
        let words = || examples.iter().map(|&example| &sequences.ids(example)[..sequences.ids(example).len().min(len)]);
        let longest = words().flatten().map(|&word| spellings[word as usize].len()).max().unwrap_or(1);
        let mut padded = vec![0u32; examples.len() * len * longest];
        for (nth, words) in words().enumerate() {
            for (place, &word) in words.iter().enumerate() {
                let spelling = &spellings[word as usize];
                padded[(nth * len + place) * longest..][..spelling.len()].copy_from_slice(spelling);
            }
        }
        Tensor::from_vec(padded, (examples.len(), len, longest), &self.device)
    }
}

impl Encode for Encoded {
    fn collate(&self, examples: &[usize]) -> candle_core::Result<Tokens> {
        if let Some(example) = examples.iter().find(|&&example| example >= self.len()) {
            candle_core::bail!("collate: expected example ids below {}, found {example}", self.len());
        }
        let mut sequences = self.branches.iter().map(|branch| self.sequence(branch, examples));
        let Some(first) = sequences.next().transpose()? else { candle_core::bail!("expected a branch, found none") };
        let second = sequences.next().transpose()?;
        let more = sequences.collect::<candle_core::Result<_>>()?;
        let rows = match self.row {
            RowKind::Example => Rows::Examples,
            RowKind::Token { boundaries } => {
                let len = first.ids.dim(1)?;
                let per_example: Vec<usize> = examples.iter().map(|&example| self.rows[example]).collect();
                let start = usize::from(boundaries);
                let index = per_example.iter().enumerate();
                let index = index.flat_map(|(nth, &rows)| (0..rows).map(move |row| (nth * len + start + row) as u32));
                Rows::Words { index: Tensor::new(index.collect::<Vec<u32>>(), &self.device)?, per_example }
            }
        };
        Ok(Tokens { first, second, more, rows })
    }

    /// Tokens of each example, all branches together.
    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn rows(&self) -> &[usize] {
        &self.rows
    }
}

/// Tokens of a branch of an example.
fn length(features: &Features, branch: &Branch, example: usize) -> usize {
    if let Some(Pieces(pieces)) = &branch.pieces {
        return pieces.lengths()[example];
    }
    let tokens = match branch.columns.first() {
        Some(Column::Ids { column, .. } | Column::Spellings { column, .. }) => {
            features.sequences(*column).ids(example).len()
        }
        None => 0,
    };
    tokens.min(branch.length.unwrap_or(usize::MAX))
}

fn target(features: &Features, dictionaries: &Dictionaries, name: &str) -> Result<Target> {
    Ok(match features.labels(name)? {
        Values::Names(_) => match dictionaries.classes_of(name) {
            Some(classes) => Target::Classes(features.class_rows(name, classes)?),
            None => bail!("target `{name}`: expected classes in the dictionaries, found none"),
        },
        Values::Numbers(numbers) => Target::Numbers(numbers.iter().map(|&number| number as f32).collect()),
        Values::Places(places) => Target::Places(places.clone()),
        Values::Texts(_) => Target::Nothing,
    })
}
