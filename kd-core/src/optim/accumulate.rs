//! Gradients of a large batch from those of small ones.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var, bail};

use crate::ops::embedding::SparseGradient;

/// Adds the gradients of micro-batches, so that they become that of all their rows together.
///
/// A loss that is a mean over `nᵢ` rows has gradient `gᵢ`; the mean over all rows has `Σ nᵢ gᵢ / Σ nᵢ`. So
/// micro-batches may have different numbers of rows. A variable without a gradient in one of them counts as 0 there.
/// Sums are f32, or f64 where gradients are.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// let weight = Var::new(&[0f32], &Device::Cpu)?;
/// let loss = |targets: &[f32]| (Tensor::new(targets, &Device::Cpu)? * weight.broadcast_as(targets.len())?)?.mean_all();
/// let mut accumulator = kd_core::optim::Accumulator::new([("weight", &weight)]);
/// accumulator.add(&loss(&[1., 2., 6.])?.backward()?, &[], 3)?; // mean 3
/// accumulator.add(&loss(&[7.])?.backward()?, &[], 1)?;
/// let gradient = accumulator.finish()?.dense.get(&weight).map(|gradient| gradient.to_vec1::<f32>()).transpose()?;
/// assert_eq!(gradient, Some(vec![4.]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Accumulator {
    named: Vec<(String, Var)>,
    /// `Σ nᵢ gᵢ` of every variable that had a gradient.
    dense: BTreeMap<String, Tensor>,
    /// `nᵢ gᵢ` of every micro-batch that had one.
    sparse: BTreeMap<String, Vec<SparseGradient>>,
    rows: usize,
}

/// The gradients of all rows together.
#[derive(Debug)]
pub struct Accumulated {
    /// Of variables, for [`Optimizer::step_sparse`](super::Optimizer::step_sparse).
    pub dense: GradStore,
    /// Of rows of tables, by the table's name.
    pub sparse: Vec<(String, SparseGradient)>,
    /// Rows of all micro-batches.
    pub rows: usize,
}

impl Accumulated {
    /// The sparse ones as an optimiser takes them.
    pub fn sparse(&self) -> Vec<(&str, &SparseGradient)> {
        self.sparse.iter().map(|(name, rows)| (name.as_str(), rows)).collect()
    }
}

impl Accumulator {
    /// No gradients yet of these variables, which are an optimiser's [`named`](super::Optimizer::named) ones, say.
    pub fn new<'a>(named: impl IntoIterator<Item = (&'a str, &'a Var)>) -> Self {
        let named = named.into_iter().map(|(name, var)| (name.to_string(), var.clone())).collect();
        Self { named, dense: BTreeMap::new(), sparse: BTreeMap::new(), rows: 0 }
    }

    /// Rows added since the last [`Accumulator::finish`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the gradients of a mean over `rows` rows.
    ///
    /// # Errors
    /// If `rows` is 0, or a table's shape differs from that of an earlier micro-batch.
    pub fn add(&mut self, gradients: &GradStore, sparse: &[(&str, &SparseGradient)], rows: usize) -> Result<()> {
        if rows == 0 {
            bail!("gradients of a mean over 0 rows, expected at least 1");
        }
        let weigh = |tensor: &Tensor| {
            let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            tensor.to_dtype(dtype)? * rows as f64
        };
        for (name, rows) in sparse {
            let found = self.sparse.get(*name).and_then(|all| all.first()).map_or(rows.dims(), SparseGradient::dims);
            if found != rows.dims() {
                bail!("`{name}` had a gradient for {found:?}, found one for {:?}", rows.dims());
            }
        }
        for (name, var) in &self.named {
            let Some(gradient) = gradients.get(var.as_tensor()) else { continue };
            let sum = match self.dense.get(name) {
                Some(sum) => (sum + weigh(gradient)?)?,
                None => weigh(gradient)?,
            };
            self.dense.insert(name.clone(), sum.detach());
        }
        for (name, gradient) in sparse {
            let weighed = gradient.with_values(weigh(gradient.values())?.detach());
            self.sparse.entry(name.to_string()).or_default().push(weighed);
        }
        self.rows += rows;
        Ok(())
    }

    /// The gradients of all rows together; then there are none any more.
    ///
    /// # Errors
    /// If none were added.
    pub fn finish(&mut self) -> Result<Accumulated> {
        if self.rows == 0 {
            bail!("no gradients were added, expected those of at least 1 row");
        }
        let rows = std::mem::take(&mut self.rows);
        let share = 1.0 / rows as f64;
        let mut dense = GradStore::default();
        for (name, var) in &self.named {
            if let Some(sum) = self.dense.remove(name) {
                dense.insert(var.as_tensor(), (sum * share)?.detach());
            }
        }
        let sparse = std::mem::take(&mut self.sparse).into_iter();
        let sparse = sparse.map(|(name, all)| {
            let sum = SparseGradient::sum(&all)?;
            let values = (sum.values() * share)?.detach();
            Ok((name, sum.with_values(values)))
        });
        Ok(Accumulated { dense, sparse: sparse.collect::<Result<_>>()?, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::ops::embedding::embedding_sparse;
    use crate::optim::{AdamW, AdamWConfig, Optimizer};
    use crate::testing::{assert_close, random};
    use candle_core::Device;

    const ROWS: usize = 11;

    struct Model {
        table: Var,
        weight: Var,
        /// Only in the loss of rows from 5 on.
        late: Var,
    }

    impl Model {
        fn new(dtype: DType) -> Self {
            let var = |seed, shape: (usize, usize)| {
                Var::from_tensor(&random(seed, shape).unwrap().to_dtype(dtype).unwrap()).unwrap()
            };
            Self { table: var(1, (20, 4)), weight: var(2, (3, 4)), late: var(3, (1, 3)) }
        }

        fn named(&self) -> Vec<(String, Var)> {
            [("table", &self.table), ("weight", &self.weight), ("late", &self.late)]
                .map(|(name, var)| (name.to_string(), var.clone()))
                .into()
        }

        /// Of the mean loss over rows `start..end`.
        fn gradients(&self, start: usize, end: usize) -> (GradStore, SparseGradient) {
            let ids: Vec<u32> = (start..end).map(|row| (row * row % 17) as u32).collect();
            let (x, rows) = embedding_sparse(&self.table, &Tensor::new(ids, &Device::Cpu).unwrap()).unwrap();
            let mut y = ops::linear(&x, &self.weight, None).unwrap(); // (rows, 3)
            if end > 5 {
                let is_late = (start..end).map(|row| if row >= 5 { 1f32 } else { 0.0 });
                let is_late = Tensor::from_iter(is_late, &Device::Cpu).unwrap().to_dtype(x.dtype()).unwrap();
                y = (y + is_late.unsqueeze(1).unwrap().matmul(&self.late).unwrap()).unwrap();
            }
            let loss = y.sqr().unwrap().sum(1).unwrap().mean_all().unwrap();
            let gradients = ops::backward(&loss).unwrap();
            let rows = rows.gradient(&gradients).unwrap();
            (gradients, rows)
        }
    }

    #[test]
    fn micro_batches_of_any_size_are_the_large_batch() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-12)] {
            let model = Model::new(dtype);
            let named = model.named();
            let mut accumulator = Accumulator::new(named.iter().map(|(name, var)| (name.as_str(), var)));
            let (expected, table) = model.gradients(0, ROWS);
            for cuts in [vec![0, 5, 11], vec![0, 1, 5, 7, 11], (0..=11).collect()] {
                for cut in cuts.windows(2) {
                    let (gradients, rows) = model.gradients(cut[0], cut[1]);
                    accumulator.add(&gradients, &[("table", &rows)], cut[1] - cut[0]).unwrap();
                }
                let sum = accumulator.finish().unwrap();
                assert_eq!((sum.rows, accumulator.rows()), (ROWS, 0));
                for var in [&model.weight, &model.late] {
                    assert_close(sum.dense.get(var).unwrap(), expected.get(var).unwrap(), tolerance, tolerance)
                        .unwrap();
                }
                assert_eq!(sum.sparse.len(), 1);
                let found = sum.sparse[0].1.to_dense().unwrap();
                assert_close(&found, &table.to_dense().unwrap(), tolerance, tolerance).unwrap();
                // No gradient but those of the variables: the rows that were read are leaves of their own in every
                // micro-batch.
                assert_eq!(sum.dense.get_ids().count(), 2);
            }
        }
    }

    #[test]
    fn an_update_with_them_is_that_of_the_large_batch() {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-12)] {
            let run = |cuts: &[usize]| {
                let model = Model::new(dtype);
                let mut adamw = AdamW::new(model.named(), AdamWConfig::with_lr(0.01)).unwrap();
                for _ in 0..3 {
                    let mut accumulator = Accumulator::new(adamw.named());
                    for cut in cuts.windows(2) {
                        let (gradients, rows) = model.gradients(cut[0], cut[1]);
                        accumulator.add(&gradients, &[("table", &rows)], cut[1] - cut[0]).unwrap();
                    }
                    let sum = accumulator.finish().unwrap();
                    adamw.step_sparse(&sum.dense, &sum.sparse(), 1.0, 1.0).unwrap();
                }
                [model.table, model.weight, model.late]
            };
            let plain = || {
                let model = Model::new(dtype);
                let mut adamw = AdamW::new(model.named(), AdamWConfig::with_lr(0.01)).unwrap();
                for _ in 0..3 {
                    let (gradients, rows) = model.gradients(0, ROWS);
                    adamw.step_sparse(&gradients, &[("table", &rows)], 1.0, 1.0).unwrap();
                }
                [model.table, model.weight, model.late]
            };
            for (found, expected) in run(&[0, 6, 9, ROWS]).iter().zip(&plain()) {
                // Three steps of at most 0.01 each, in which small gradients count as much as large ones.
                assert_close(found, expected, 10.0 * tolerance, tolerance).unwrap();
            }
        }
    }

    #[test]
    fn half_precision_is_added_in_f32() {
        // 256 gradients of 1 and then one of 1: a bf16 sum of 256 + 1 would stay 256.
        let weight = Var::ones(1, DType::BF16, &Device::Cpu).unwrap();
        let mut accumulator = Accumulator::new([("weight", &weight)]);
        let gradients = weight.sum_all().unwrap().backward().unwrap();
        accumulator.add(&gradients, &[], 256).unwrap();
        accumulator.add(&gradients, &[], 1).unwrap();
        let sum = accumulator.finish().unwrap().dense.get(&weight).unwrap().clone();
        assert_close(&sum, &Tensor::ones(1, DType::F32, &Device::Cpu).unwrap(), 1e-7, 0.0).unwrap();
    }

    #[test]
    fn nothing_and_other_shapes_are_refused() {
        let weight = Var::ones(1, DType::F32, &Device::Cpu).unwrap();
        let mut accumulator = Accumulator::new([("weight", &weight)]);
        let gradients = weight.sum_all().unwrap().backward().unwrap();
        let rows = |count| {
            SparseGradient::new(vec![], Tensor::zeros((0, 2), DType::F32, &Device::Cpu).unwrap(), count).unwrap()
        };
        assert!(accumulator.finish().unwrap_err().to_string().contains("no gradients were added"));
        assert!(accumulator.add(&gradients, &[], 0).unwrap_err().to_string().contains("0 rows"));
        accumulator.add(&gradients, &[("table", &rows(3))], 2).unwrap();
        let error = accumulator.add(&gradients, &[("table", &rows(4))], 2).unwrap_err().to_string();
        assert!(error.contains("`table` had a gradient for [3, 2], found one for [4, 2]"), "{error}");
        assert_eq!(accumulator.rows(), 2);
    }
}
