//! A plan with variables.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Output, Represent, Student};

use super::{EMBEDDING, Embedded, Plan};
use crate::blocks::embedding::Embedding;
use crate::blocks::{Block, Value, replace_padding};
use crate::encoder::words::set_vectors;

/// What a pointer says of padding: the probability of it is 0 in f32 beside any logit of usual size, and the difference of
/// two such values is 0 and not NaN.
const NOWHERE: f64 = -1e4;

/// The student that a [`Plan`] describes.
///
/// [`Output::heads`] has the output layers in their order:
///
/// | shape of the layer | rows of the tokens | head |
/// |---|---|---|
/// | `(batch, classes)` | any | itself: in tagging, of the whole text |
/// | `(batch, len, classes)` | words | its rows, `(rows, classes)` |
/// | `(batch, len, 1)` or `(batch, len)` | examples | a pointer into the text, `(batch, len)`: -10⁴ on padding |
///
/// A CRF is the first head's: its scores are in [`Output::transitions`].
#[derive(Debug)]
pub struct Network {
    branches: Vec<Embedded>,
    embedding: Embedding,
    layers: Vec<Step>,
    outputs: Vec<usize>,
    width: usize,
}

/// A layer, and the values that it reads: those of branches first, then those of layers in their order.
#[derive(Debug)]
struct Step {
    id: String,
    block: Box<dyn Block>,
    inputs: Vec<usize>,
}

impl Network {
    pub(super) fn new(plan: &Plan, rows: &BTreeMap<String, usize>, vb: VarBuilder<'_>) -> crate::Result<Self> {
        let names = plan.branches.iter().map(|branch| &branch.name).chain(plan.layers.iter().map(|layer| &layer.id));
        let place: BTreeMap<&String, usize> = names.enumerate().map(|(idx, name)| (name, idx)).collect();
        let of = |names: &[String]| names.iter().filter_map(|name| place.get(name).copied()).collect::<Vec<_>>();
        let mut layers = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            let block = layer.config.build(&layer.shapes, &plan.site_of(layer), vb.pp(&layer.owner))?;
            layers.push(Step { id: layer.id.clone(), block, inputs: of(&layer.inputs) });
        }
        let first = plan.layers.iter().find(|layer| plan.outputs.first() == Some(&layer.id));
        let width = first.and_then(|layer| layer.shape.width().ok()).unwrap_or_default();
        let embedding = Embedding::new(&plan.clusters, rows, vb.pp(EMBEDDING))?;
        Ok(Self { branches: plan.branches.clone(), embedding, layers, outputs: of(&plan.outputs), width })
    }

    /// Puts `vectors` into the given rows of a cluster's table; the other rows stay. Meant for pretrained vectors before
    /// training; the table is written in place, and so are the variables.
    ///
    /// # Errors
    /// If no cluster of that name has a row for each id, a row does not exist or is the padding row, a vector has another
    /// width than the table, or holds a value that is not finite. Nothing is changed then.
    pub fn set_vectors(&self, cluster: &str, vectors: &[(usize, Vec<f32>)]) -> Result<()> {
        match self.embedding.table(cluster) {
            Some(table) => set_vectors(table, vectors),
            None => bail!("expected a cluster with a row for each id, found `{cluster}`"),
        }
    }

    /// What a layer sees of a branch.
    fn read(&self, branch: &Embedded, sequence: &Sequence, mode: Mode) -> Result<Value> {
        let mask = (!branch.is_whole).then(|| sequence.mask.clone());
        if branch.is_embedded() {
            return Ok(Value::masked(self.embedding.forward(sequence, &branch.columns, mode)?, mask));
        }
        Ok(Value { sequence: Some(sequence.clone()), ..Value::masked(sequence.ids.clone(), mask) })
    }

    /// The values of the output layers in their order.
    ///
    /// # Errors
    /// If the tokens have another number of texts than the network has branches, or a layer fails; the message names it.
    pub fn values(&self, tokens: &Tokens, mode: Mode) -> Result<Vec<Value>> {
        let sequences: Vec<&Sequence> = tokens.sequences().collect();
        if sequences.len() != self.branches.len() {
            let names: Vec<&str> = self.branches.iter().map(|branch| branch.name.as_str()).collect();
            bail!("expected {} texts ({}), found {}", names.len(), names.join(", "), sequences.len());
        }
        let mut values: Vec<Value> = Vec::with_capacity(self.branches.len() + self.layers.len());
        for ((branch, sequence), site) in self.branches.iter().zip(sequences).zip(0..) {
            values.push(self.read(branch, sequence, mode.site(site))?);
        }
        for Step { id, block, inputs } in &self.layers {
            let read: Vec<Value> = inputs.iter().map(|&idx| values[idx].clone()).collect();
            let site = mode.site(values.len() as u64);
            values.push(block.forward(&read, site).map_err(|error| error.context(format!("layer `{id}`")))?);
        }
        Ok(self.outputs.iter().map(|&idx| values[idx].clone()).collect())
    }
}

/// The head of an output.
fn head(value: &Value, tokens: &Tokens) -> Result<Tensor> {
    let (rank, width) = (value.tensor.rank(), value.tensor.dim(value.tensor.rank() - 1)?);
    match &tokens.rows {
        Rows::Words { .. } if rank == 3 => {
            // Rows are counted in the first text.
            let (words, found) = (tokens.first.ids.dim(1)?, value.tensor.dims());
            if found[1] != words {
                bail!("expected {words} words, as the first text has, found {} in {found:?}", found[1]);
            }
            tokens.rows.select(&value.tensor)
        }
        _ if rank == 2 && value.mask.is_none() => Ok(value.tensor.clone()),
        Rows::Examples if rank == 2 || (rank == 3 && width == 1) => {
            let pointer = if rank == 3 { value.tensor.squeeze(2)? } else { value.tensor.clone() };
            value.mask.as_ref().map_or(Ok(pointer.clone()), |mask| replace_padding(&pointer, mask, 1, NOWHERE))
        }
        Rows::Words { .. } => bail!("expected (batch, len, classes) of rows of words, found {:?}", value.tensor.dims()),
        Rows::Examples => bail!("expected (batch, classes) of rows of examples, found {:?}", value.tensor.dims()),
    }
}

impl Student for Network {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        let values = self.values(tokens, mode)?;
        if let Some(idx) = values.iter().skip(1).position(|value| value.transitions.is_some()) {
            bail!("expected a crf as the first output, found one as output {}", idx + 2);
        }
        let transitions = values.first().and_then(|value| value.transitions.clone());
        let heads = values.iter().zip(&self.outputs).map(|(value, &idx)| {
            let id = &self.layers[idx - self.branches.len()].id;
            head(value, tokens).map_err(|error| error.context(format!("output `{id}`")))
        });
        let heads = heads.collect::<Result<_>>()?;
        Ok(Output { heads, transitions, ..Output::default() })
    }
}

/// The first output as a representation: `(rows, width)`, for heads on top of it; see [`Plan::body`].
impl Represent for Network {
    fn width(&self) -> usize {
        self.width
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> Result<Tensor> {
        match self.values(tokens, mode)?.first() {
            // What a linear layer reads of a vector with padding.
            Some(value) if value.tensor.rank() == 2 => value.zeroed(),
            Some(value) => head(value, tokens),
            None => bail!("the network has no output"),
        }
    }
}
