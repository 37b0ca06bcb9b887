//! How many variables a network has, before it has any.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use kd_core::variables::is_statistic;

use super::{EMBEDDING, Layer, Plan};
use crate::blocks::Site;
use crate::blocks::embedding::Embedding;
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
pub(super) fn of_layer(layer: &Layer, site: &Site) -> Result<BTreeMap<String, Vec<usize>>> {
    let shapes = Shapes::default();
    layer.config.build(&layer.shapes, site, shapes.builder())?;
    Ok(shapes.take())
}

fn trained(shapes: &BTreeMap<String, Vec<usize>>) -> usize {
    let trained = shapes.iter().filter(|(name, _)| !is_statistic(name));
    trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

pub(super) fn count(plan: &Plan, rows: &BTreeMap<String, usize>) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for cluster in plan.clusters.iter().filter(|cluster| rows.contains_key(&cluster.name)) {
        let shapes = Shapes::default();
        Embedding::new(std::slice::from_ref(cluster), rows, shapes.builder())?;
        counts.insert(format!("{EMBEDDING}.{}", cluster.name), trained(&shapes.take()));
    }
    for layer in &plan.layers {
        let own = if layer.owner == layer.id { trained(&of_layer(layer, &plan.site)?) } else { 0 };
        counts.insert(layer.id.clone(), own);
    }
    Ok(counts)
}
