//! A student of a table and a layer, and batches of three rows for it.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of this")]

use candle_core::{DType, Result, Tensor};
use candle_nn::Init;
use kd_core::batch::{Batch, Rows, Tokens, pad};
use kd_core::losses;
use kd_core::model::{Mode, Output, Student};
use kd_core::nn::{Embedding, Linear};
use kd_core::objective::Loss;
use kd_core::ops;
use kd_core::testing::device;
use kd_core::variables::Variables;

pub struct Tiny {
    table: Embedding,
    layer: Linear,
    dropout: f64,
}

impl Tiny {
    pub fn new(variables: &Variables, dropout: f64) -> Self {
        let vb = variables.builder();
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let table = Embedding::new(7, 4, init, vb.pp("table")).unwrap();
        Self { table, layer: Linear::new(4, 3, vb.pp("layer")).unwrap(), dropout }
    }
}

impl Student for Tiny {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        let hidden = self.table.forward(&tokens.first.ids)?.mean(1)?;
        Ok(Output::from_logits(self.layer.forward(&ops::dropout(&hidden, self.dropout, mode)?)?))
    }
}

pub fn variables() -> Variables {
    Variables::new(3, DType::F32, device())
}

/// Rows of two tokens and a label each, of these numbers.
pub fn rows(numbers: &[usize]) -> Batch {
    let ids: Vec<Vec<u32>> = numbers.iter().map(|n| vec![(n % 7) as u32, (n * 3 % 7) as u32]).collect();
    let labels: Vec<u32> = numbers.iter().map(|n| (n * n % 3) as u32).collect();
    Batch {
        tokens: Tokens { first: pad(&ids, device()).unwrap(), second: None, more: Vec::new(), rows: Rows::Examples },
        labels: Some(Tensor::new(labels, device()).unwrap()),
        targets: vec![],
        teachers: vec![],
        weights: None,
        task: 0,
        examples: numbers.to_vec(),
    }
}

/// Three rows of step `step`.
pub fn batch(step: usize) -> Result<Batch> {
    Ok(rows(&[3 * step, 3 * step + 1, 3 * step + 2]))
}

pub fn cross_entropy(output: &Output, batch: &Batch, _: usize) -> Result<Loss> {
    let loss = losses::cross_entropy(output.logits()?, batch.labels()?)?;
    Ok(Loss::of(loss.clone()).with_part("hard", loss))
}

/// All weights, bit by bit.
pub fn bits(variables: &Variables) -> Vec<u32> {
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    variables.tensors().into_values().flat_map(values).map(f32::to_bits).collect()
}
