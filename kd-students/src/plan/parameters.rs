//! How many variables a network has, before it has any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use kd_core::variables::is_statistic;

use super::{EMBEDDING, Layer, Plan};
use crate::blocks::embedding::{Cluster, Embedding};
use crate::error::Result;

/// Gives tensors of one number, whatever shape they are asked for in, and remembers the shapes.
#[derive(Clone, Default)]
struct Shapes(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl Shapes {
    fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    fn take(&self) -> BTreeMap<String, Vec<usize>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SimpleBackend for Shapes {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), shape.dims().to_vec());
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("the shape of `{name}` is not known before it is asked for")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true // so that nobody writes into a tensor without memory
    }
}

/// Names and shapes of the variables of a layer, statistics included.
pub(super) fn of_layer(plan: &Plan, layer: &Layer) -> Result<BTreeMap<String, Vec<usize>>> {
    let shapes = Shapes::default();
    layer.config.build(&layer.shapes, &plan.site_of(layer), shapes.builder())?;
    Ok(shapes.take())
}

fn trained(shapes: &BTreeMap<String, Vec<usize>>) -> usize {
    let trained = shapes.iter().filter(|(name, _)| !is_statistic(name));
    trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Layers with variables, and clusters that learn, of which no output in `learned` is made.
pub(super) fn untrained(plan: &Plan, learned: &[&str]) -> Result<Vec<String>> {
    let mut used: BTreeSet<&str> = learned.iter().copied().collect();
    let mut owners: BTreeSet<&str> = BTreeSet::new();
    // Each layer stands after those that it reads.
    for layer in plan.layers.iter().rev() {
        if used.contains(layer.id.as_str()) {
            owners.insert(&layer.owner);
            used.extend(layer.inputs.iter().map(String::as_str));
        }
    }
    let mut found = Vec::new();
    for layer in plan.layers.iter().filter(|layer| layer.owner == layer.id && !owners.contains(layer.id.as_str())) {
        if trained(&of_layer(plan, layer)?) > 0 {
            found.push(layer.id.clone());
        }
    }
    let learns = |cluster: &&Cluster| !cluster.is_fixed() && plan.reads(cluster, |_| true);
    let clusters = plan.clusters.iter().filter(learns);
    let clusters = clusters.filter(|cluster| !plan.reads(cluster, |branch| used.contains(branch)));
    found.extend(clusters.map(|cluster| format!("{EMBEDDING}.{}", cluster.name)));
    Ok(found)
}

pub(super) fn count(plan: &Plan, rows: &BTreeMap<String, usize>) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for cluster in plan.clusters.iter().filter(|cluster| rows.contains_key(&cluster.name)) {
        let shapes = Shapes::default();
        Embedding::new(std::slice::from_ref(cluster), rows, shapes.builder())?;
        counts.insert(format!("{EMBEDDING}.{}", cluster.name), trained(&shapes.take()));
    }
    for layer in &plan.layers {
        let own = if layer.owner == layer.id { trained(&of_layer(plan, layer)?) } else { 0 };
        counts.insert(layer.id.clone(), own);
    }
    Ok(counts)
}
