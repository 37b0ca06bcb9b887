//! `Embedding`: the ids of a branch's columns as vectors.
//!
//! The first item of an architecture. Its `conf` has a table for each *cluster* of columns, which share it:
//!
//! ```json
//! {"layer": "Embedding", "conf": {
//!   "word": {"cols": ["question_text", "answer_text"], "dim": 300, "fix_weight": true},
//!   "postag": {"cols": ["question_postag", "answer_postag"], "dim": 20},
//!   "char": {"cols": ["question_char", "answer_char"], "type": "CNNCharEmbedding", "dim": 30, "window_size": 5}}}
//! ```
//!
//! A branch is its columns' vectors side by side, in the order of its columns, and 0 on padding. A branch none of whose columns is
//! in a cluster stays what it is, ids for a block that embeds by itself.
//!
//! | variable | shape | start |
//! |---|---|---|
//! | `CLUSTER.weight` | `(rows, dim)` | normal with deviation 1, row 0 (padding) zero |
//! | `CLUSTER.*` of characters | | see [`CnnCharConfig`] and [`LstmCharConfig`] |

mod char_cnn;
mod char_lstm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use kd_core::batch::Sequence;
use kd_core::model::Mode;
use kd_core::ops;
use serde::Deserialize;
use serde_json::Value as Json;

use self::char_cnn::CnnChar;
use self::char_lstm::LstmChar;
use super::{parse_conf, replace_padding};

pub use self::char_cnn::CnnCharConfig;
pub use self::char_lstm::LstmCharConfig;

/// How the ids of a cluster become vectors.
#[derive(Debug, Clone, PartialEq)]
pub enum Table {
    /// A row for each id.
    Rows {
        /// Width of a row, ≥ 1.
        dim: usize,
        /// Whether the rows stay as they are.
        fix_weight: bool,
    },
    /// A convolution over the characters of each word.
    Cnn(CnnCharConfig),
    /// An LSTM over the characters of each word.
    Lstm(LstmCharConfig),
}

/// Columns that share a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its key in the `conf`.
    pub name: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The table.
    pub table: Table,
}

impl Cluster {
    /// Width of what a column of the cluster becomes.
    pub fn width(&self) -> usize {
        match &self.table {
            Table::Rows { dim, .. } => *dim,
            Table::Cnn(config) => config.width(),
            Table::Lstm(config) => config.dim,
        }
    }

    /// Whether its columns hold characters.
    pub fn is_characters(&self) -> bool {
        !matches!(self.table, Table::Rows { .. })
    }

    /// Whether the table is not trained.
    pub fn is_fixed(&self) -> bool {
        matches!(self.table, Table::Rows { fix_weight: true, .. })
    }

    /// The cluster `name` of `conf`, and those of its keys that have no effect; an error begins with the key it is about.
    pub(crate) fn parse(name: &str, conf: &Json) -> std::result::Result<(Self, Vec<String>), String> {
        let Json::Object(conf) = conf else { return Err(format!("expected an object, found {conf}")) };
        let mut rest = conf.clone();
        let Some(columns) = rest.remove("cols") else { return Err("expected a key `cols`, found none".to_string()) };
        let columns: Vec<String> = parse_conf(columns).map_err(|message| format!("cols: {message}"))?;
        let kind = rest.remove("type");
        let mut unread = Vec::new();
        if kind.as_ref().and_then(Json::as_str) == Some("CNNCharEmbedding") {
            unread =
                CnnCharConfig::IGNORED.iter().filter_map(|&key| rest.remove(key).map(|_| key.to_string())).collect();
        }
        if let Some(merges) = rest.get("bpe_path") {
            // The published code cuts a word of one letter into five pieces, and neither merges nor a file with them is published.
            return Err(format!(
                "bpe_path: expected none, for words are not cut by merges here (a column that has the pieces, apart by \
                 blanks, may stand in a cluster of any name but `word`; a pretrained encoder as a block cuts by itself), \
                 found {merges}"
            ));
        }
        let rest = Json::Object(rest);
        let table = match kind {
            None => {
                let Rows { dim, fix_weight } = parse_conf(rest)?;
                if dim == 0 {
                    return Err("dim: expected at least 1, found 0".to_string());
                }
                Table::Rows { dim, fix_weight }
            }
            Some(Json::String(kind)) if kind == "CNNCharEmbedding" => Table::Cnn(CnnCharConfig::parse(rest)?),
            Some(Json::String(kind)) if kind == "LSTMCharEmbedding" => Table::Lstm(LstmCharConfig::parse(rest)?),
            Some(kind) => {
                return Err(format!("type: expected \"CNNCharEmbedding\" or \"LSTMCharEmbedding\", found {kind}"));
            }
        };
        Ok((Self { name: name.to_string(), columns, table }, unread))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    dim: usize,
    #[serde(default)]
    fix_weight: bool,
}

/// Where the ids of a column stand in a branch's [`Sequence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In `ids`: the branch's first column that is not of characters.
    Ids,
    /// In `features`, under this number: the columns after it.
    Feature(usize),
    /// In `chars`: the branch's column of characters, of which there is one at most.
    Characters,
}

/// A column of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The cluster whose table its ids are rows of; `None` in a branch that is not embedded.
    pub cluster: Option<String>,
    /// Where its ids stand.
    pub place: Place,
}

/// The tables of all clusters.
#[derive(Debug)]
pub struct Embedding {
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug)]
enum Layer {
    Rows { table: Tensor, is_fixed: bool },
    Cnn(CnnChar),
    Lstm(LstmChar),
}

impl Embedding {
    /// The tables with the numbers of ids that `rows` has for each cluster, padding included.
    ///
    /// # Errors
    /// If a cluster is not in `rows` or has less than one, or `vb` cannot give a variable.
    pub fn new(clusters: &[Cluster], rows: &BTreeMap<String, usize>, vb: VarBuilder<'_>) -> Result<Self> {
        let layer = |cluster: &Cluster| {
            let rows = match rows.get(&cluster.name) {
                Some(&rows) if rows > 0 => rows,
                found => bail!("expected the number of ids of cluster `{}`, found {found:?}", cluster.name),
            };
            let vb = vb.pp(&cluster.name);
            let layer = match &cluster.table {
                Table::Rows { dim, fix_weight } => {
                    let init = Init::Randn { mean: 0.0, stdev: 1.0 };
                    Layer::Rows { table: table((rows, *dim), init, &vb)?, is_fixed: *fix_weight }
                }
                Table::Cnn(config) => Layer::Cnn(CnnChar::new(config, rows, vb)?),
                Table::Lstm(config) => Layer::Lstm(LstmChar::new(config, rows, vb)?),
            };
            Ok((cluster.name.clone(), layer))
        };
        Ok(Self { layers: clusters.iter().map(layer).collect::<Result<_>>()? })
    }

    /// The columns' vectors side by side, `(batch, len, width)`, 0 on padding; all `columns` are in a cluster.
    ///
    /// # Errors
    /// If the sequence lacks a column, or an id is no row of its table.
    pub fn forward(&self, sequence: &Sequence, columns: &[Column], mode: Mode) -> Result<Tensor> {
        let mut parts = Vec::with_capacity(columns.len());
        for (column, site) in columns.iter().zip(0..) {
            let ids = ids(sequence, column)?;
            let layer = column.cluster.as_ref().and_then(|cluster| self.layers.get(cluster));
            parts.push(match layer {
                Some(Layer::Rows { table, is_fixed: false }) => ops::embedding(table, ids)?,
                Some(Layer::Rows { table, is_fixed: true }) => ops::embedding(&table.detach(), ids)?,
                Some(Layer::Cnn(layer)) => layer.forward(ids)?,
                Some(Layer::Lstm(layer)) => layer.forward(ids, mode.site(site))?,
                None => bail!("column `{}` is in no cluster", column.name),
            });
        }
        let all = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 2)? };
        replace_padding(&all, &sequence.mask, 1, 0.0)
    }

    /// The table of a cluster that has a row for each id, `(rows, dim)`.
    pub fn table(&self, cluster: &str) -> Option<&Tensor> {
        match self.layers.get(cluster) {
            Some(Layer::Rows { table, .. }) => Some(table),
            _ => None,
        }
    }
}

/// The ids of `column`.
fn ids<'a>(sequence: &'a Sequence, column: &Column) -> Result<&'a Tensor> {
    let found = match column.place {
        Place::Ids => Some(&sequence.ids),
        Place::Feature(idx) => sequence.features.get(idx),
        Place::Characters => sequence.chars.as_ref(),
    };
    match found {
        Some(ids) => Ok(ids),
        None => bail!("the sequence has no column `{}`, expected in {:?}", column.name, column.place),
    }
}

/// A table `weight` whose row 0 starts at zero, if `vb` has none yet.
fn table(shape: (usize, usize), init: Init, vb: &VarBuilder<'_>) -> Result<Tensor> {
    let is_new = !vb.contains_tensor("weight");
    let table = vb.get_with_hints(shape, "weight", init)?;
    if is_new {
        table.slice_set(&Tensor::zeros((1, shape.1), table.dtype(), table.device())?, 0, 0)?;
    }
    Ok(table)
}
