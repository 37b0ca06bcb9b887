//! Plans: networks wired of [blocks](crate::blocks) by a JSON file.
//!
//! An architecture is a list of items. The first may be an [`Embedding`](crate::blocks::embedding), which turns the ids of
//! branches into vectors; every other one is a layer: a block with a name, a configuration and inputs, which are branches or
//! other layers.
//!
//! ```json
//! [{"layer": "Embedding", "conf": {"word": {"cols": ["question", "answer"], "dim": 300}}},
//!  {"layer_id": "q", "layer": "BiLSTMLast", "conf": {"hidden_dim": 64}, "inputs": ["question"]},
//!  {"layer_id": "a", "layer": "q", "inputs": ["answer"]},
//!  {"layer_id": "pair", "layer": "Combination", "conf": {"operations": ["origin", "difference"]}, "inputs": ["q", "a"]},
//!  {"layer_id": "out", "layer": "Linear", "conf": {"hidden_dim": -1}, "inputs": ["pair"], "output_layer_flag": true}]
//! ```
//!
//! A layer that names another in place of a block, without a `conf`, shares its variables (`a` above).
//!
//! [`Plan::parse`] finds all that is wrong before there is a tensor, and says where; [`Plan::build`] makes the [`Network`], a
//! [`Student`](kd_core::model::Student). The format is that of Gong et al. 2019, §2, version 1.1.
//!
//! ```
//! use candle_core::{DType, Device};
//! use kd_core::{batch::{Rows, Tokens, pad}, model::{Mode, Student}, variables::Variables};
//! use kd_students::plan::{Branch, Inputs, Plan, Target};
//! let architecture = serde_json::json!([
//!     {"layer": "Embedding", "conf": {"word": {"cols": ["text"], "dim": 6}}},
//!     {"layer_id": "states", "layer": "BiLSTMLast", "conf": {"hidden_dim": 4}, "inputs": ["sentence"]},
//!     {"layer_id": "out", "layer": "Linear", "conf": {"hidden_dim": -1}, "inputs": ["states"], "output_layer_flag": true},
//! ]);
//! let inputs = Inputs {
//!     branches: vec![Branch { name: "sentence".into(), columns: vec!["text".into()], length: None }],
//!     targets: vec![Target { name: "label".into(), classes: Some(3) }],
//!     ..Inputs::default()
//! };
//! let plan = Plan::parse(&architecture, &inputs, &[])?;
//! assert_eq!(plan.layers()[0].shape.to_string(), "(batch, 8)");
//! let rows = [("word".to_string(), 100)].into();
//! let variables = Variables::new(1, DType::F32, &Device::Cpu);
//! let network = plan.build(&rows, variables.builder())?;
//! assert_eq!(plan.parameters(&rows)?.values().sum::<usize>(), variables.parameter_count());
//!
//! let first = pad(&[vec![5, 7, 9], vec![8]], &Device::Cpu)?;
//! let tokens = Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples };
//! assert_eq!(network.forward(&tokens, Mode::Eval)?.logits()?.dims(), [2, 3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod columns;
mod inputs;
mod item;
mod loss;
mod network;
mod parameters;
mod parse;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_nn::VarBuilder;
use kd_core::optim::Group;
use serde_json::Value as Json;

use crate::blocks::embedding::{Cluster, Column};
use crate::blocks::{BlockConfig, Kind, Shape, Site};
use crate::error::Result;

pub use inputs::{Branch, Inputs, Target};
pub use loss::LossPlan;
pub use network::Network;

/// Name of the variables of the embedding, which no layer may have.
const EMBEDDING: &str = "embedding";

/// Something that has no effect, or other than meant; a network is built all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The place: `architecture[2].conf.window_size`.
    pub path: String,
    /// What is there.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A layer of a [`Plan`].
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its name.
    pub id: String,
    /// Its place in the file: `architecture[2]`.
    pub path: String,
    /// The block that it is, as `layer` spells it; of a layer that shares, that of the other.
    pub block: String,
    /// The layer whose variables it has; itself, if it shares none.
    pub owner: String,
    /// The branches and layers that it reads.
    pub inputs: Vec<String>,
    /// Shape of what it gives.
    pub shape: Shape,
    /// Whether it is one of the network's outputs.
    pub is_output: bool,
    config: Arc<dyn BlockConfig>,
    shapes: Vec<Shape>,
}

/// A branch of a [`Plan`], as the layers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// Its name.
    pub name: String,
    /// Its columns, and where each stands in the branch's [`Sequence`](kd_core::batch::Sequence).
    pub columns: Vec<Column>,
    /// Shape of its vectors: `(batch, len, width)`, or `(batch, len)` of a branch that is not embedded.
    pub shape: Shape,
    /// Whether padding is to leak: of a fixed length, under `legacy_padding`.
    is_whole: bool,
}

impl Embedded {
    fn is_embedded(&self) -> bool {
        self.columns.iter().all(|column| column.cluster.is_some())
    }
}

/// A network that can be built: every name is known, every shape fits.
#[derive(Debug, Clone)]
pub struct Plan {
    site: Site,
    branches: Vec<Embedded>,
    clusters: Vec<Cluster>,
    /// Each after those that it reads.
    layers: Vec<Layer>,
    outputs: Vec<String>,
    warnings: Vec<Warning>,
}

impl Plan {
    /// The plan of `architecture`, a list of items, on what `inputs` says; `further` has blocks from outside this crate,
    /// which come before those of the same name.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan), with the place: an unknown key or block, a value out of its range, a name that
    /// stands twice or for nothing, a wrong number of inputs or a shape that does not fit, a cycle, a layer that feeds no
    /// output, or no output at all.
    pub fn parse(architecture: &Json, inputs: &Inputs, further: &[Kind]) -> Result<Self> {
        parse::plan(architecture, inputs, further)
    }

    /// The network without its output layers: the one layer that all of them read is the output, a vector of each example for
    /// other heads. The [`Network`] of it is a [`Represent`](kd_core::model::Represent), whose variables have the names that
    /// they have in the whole.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan), with the place: an output that does not read one layer, the same as the others, or
    /// whose variables another layer shares; a layer below them that is no `(batch, width)`.
    pub fn body(&self) -> Result<Self> {
        body::of(self)
    }

    /// The branches in the order of [`Inputs::branches`], which is that of the sequences of a batch.
    pub fn branches(&self) -> &[Embedded] {
        &self.branches
    }

    /// The clusters of the embedding; none without one.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// The layers, each after those that it reads.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Names of the output layers in the order of the file, which is that of the heads of the network's
    /// [`Output`](kd_core::model::Output).
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// What has no effect.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Groups that freeze the tables that `fix_weight` keeps as they are, and those of branches that no layer reads, for
    /// [`TrainerConfig::groups`](kd_core::trainer::TrainerConfig::groups).
    pub fn frozen(&self) -> Vec<Group> {
        let fixed = self.clusters.iter().filter(|cluster| cluster.is_fixed() || !self.reads(cluster, |_| true));
        fixed.map(|cluster| Group::frozen(format!("{EMBEDDING}.{}.*", cluster.name))).collect()
    }

    /// Names of layers with variables, and `embedding.CLUSTER` of clusters that learn, that have no part in the outputs
    /// `learned`: with losses between these only, they would stay as they are.
    ///
    /// # Errors
    /// If a block cannot be built.
    pub fn untrained(&self, learned: &[&str]) -> Result<Vec<String>> {
        parameters::untrained(self, learned)
    }

    /// Whether a layer reads a branch that is looked up in `cluster`, of those that `is_asked`.
    fn reads(&self, cluster: &Cluster, is_asked: impl Fn(&str) -> bool) -> bool {
        let of_cluster = |branch: &&Embedded| {
            branch.columns.iter().any(|column| column.cluster.as_ref() == Some(&cluster.name)) && is_asked(&branch.name)
        };
        let mut branches = self.branches.iter().filter(of_cluster);
        branches.any(|branch| self.layers.iter().any(|layer| layer.inputs.contains(&branch.name)))
    }

    /// The site with what a layer reads.
    fn site_of(&self, layer: &Layer) -> Site {
        let first = layer.inputs.first().and_then(|input| self.layers.iter().find(|other| other.id == *input));
        Site { after_conv: first.is_some_and(|first| first.block == "Conv"), ..self.site }
    }

    /// Number of values in the variables of each layer, and of each cluster of the embedding as `embedding.CLUSTER`, without
    /// making them; `rows` has the number of ids of each cluster, padding included.
    ///
    /// A cluster that `rows` lacks is left out, for its number is not known; layers that share another's variables have 0.
    /// What a [`BatchNorm`](kd_core::nn::BatchNorm) observes is not counted.
    ///
    /// # Errors
    /// If a block cannot be built.
    pub fn parameters(&self, rows: &BTreeMap<String, usize>) -> Result<BTreeMap<String, usize>> {
        parameters::count(self, rows)
    }

    /// The network, with variables `embedding.CLUSTER.*` and `LAYER_ID.*` of `vb`; `rows` has the number of ids of each
    /// cluster, padding included.
    ///
    /// # Errors
    /// If a cluster is not in `rows`, or `vb` cannot give a variable.
    pub fn build(&self, rows: &BTreeMap<String, usize>, vb: VarBuilder<'_>) -> Result<Network> {
        Network::new(self, rows, vb)
    }
}
