//! Rows of a table, by index.
//!
//! `y[.., :] = table[ids[..], :]`; the gradient of the table is zero but for the sum of the gradients at each id's
//! positions, added in the order of the positions.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! let table = Tensor::new(&[[0f32, 1.], [2., 3.]], &Device::Cpu)?;
//! let ids = Tensor::new(&[1u32, 1, 0], &Device::Cpu)?;
//! assert_eq!(kd_core::ops::embedding(&table, &ids)?.to_vec2::<f32>()?, [[2., 3.], [2., 3.], [0., 1.]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::cpu::{self, Float, for_float};

/// The rows of `table` that `ids` name.
///
/// # Shapes
/// - `table`: `(rows, width)`, `ids`: any shape, u32
/// - returns the shape of `ids` with `width` added, differentiable in `table`
///
/// # Errors
/// If an id is not below `rows` (on the CPU the message names it), or `ids` is not u32.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (_, width) = table.dims2()?;
    if ids.dtype() != DType::U32 {
        bail!("embedding: expected ids of u32, found {:?}", ids.dtype());
    }
    if cpu::has_kernel(table) {
        table.contiguous()?.apply_op2(&ids.contiguous()?, Embedding)
    } else {
        let mut shape = ids.dims().to_vec();
        shape.push(width);
        table.index_select(&ids.flatten_all()?.contiguous()?, 0)?.reshape(shape)
    }
}

struct Embedding;

fn forward<T: Float>(table: &[T], rows: usize, width: usize, ids: &[u32]) -> Result<Vec<T>> {
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        bail!("embedding: id {id} is outside a table of {rows} rows");
    }
    // SAFETY: the loop writes every row.
    let mut y = unsafe { cpu::uninit::<T>(ids.len() * width) };
    cpu::par_rows(&mut y, width, |first_row, y| {
        for (row, &id) in y.chunks_exact_mut(width).zip(&ids[first_row..]) {
            row.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
    Ok(y)
}

fn backward<T: Float>(rows: usize, width: usize, ids: &[u32], dy: &[T]) -> Vec<T> {
    let mut gradient = vec![T::zero(); rows * width];
    for (&id, dy) in ids.iter().zip(dy.chunks_exact(width.max(1))) {
        for (sum, &dy) in gradient[id as usize * width..][..width].iter_mut().zip(dy) {
            *sum += dy;
        }
    }
    gradient
}

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = l1.shape().dims2()?;
        let ids = match (s2, l2.contiguous_offsets()) {
            (CpuStorage::U32(ids), Some((start, end))) => &ids[start..end],
            _ => bail!("embedding: expected contiguous ids of u32, found {:?}", s2.dtype()),
        };
        let mut shape = l2.dims().to_vec();
        shape.push(width);
        for_float!(s1.dtype(), T => {
            let y = forward(cpu::slice::<T>(s1, l1)?, rows, width, ids)?;
            Ok((cpu::storage(y), Shape::from(shape)))
        })
    }

    fn bwd(&self, table: &Tensor, ids: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, width) = table.dims2()?;
        let (grad, ids) = (grad.contiguous()?, ids.flatten_all()?.to_vec1::<u32>()?);
        for_float!(table.dtype(), T => {
            let gradient = backward::<T>(rows, width, &ids, &cpu::values(&grad)?);
            Ok((Some(cpu::tensor(gradient, (rows, width))?), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use candle_core::{Device, Var};

    #[test]
    fn ids_of_any_shape_are_looked_up() {
        let table = random(1, (5, 3)).unwrap();
        for shape in [vec![], vec![4], vec![2, 2], vec![2, 0]] {
            let count = shape.iter().product::<usize>();
            let ids = Tensor::from_vec((0..count as u32).collect::<Vec<_>>(), shape.clone(), &Device::Cpu).unwrap();
            let found = embedding(&table, &ids).unwrap();
            let mut expected = shape;
            expected.push(3);
            assert_eq!(found.dims(), expected);
            let first: Vec<f64> = found.flatten_all().unwrap().to_vec1().unwrap();
            let rows: Vec<f64> = table.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(first, rows[..count * 3]);
        }
    }

    #[test]
    fn an_id_twice_adds_its_gradients() {
        let table = Var::from_vec(vec![0f64; 6], (3, 2), &Device::Cpu).unwrap();
        let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu).unwrap();
        let weights = Tensor::new(&[[1f64, 2.], [3., 4.], [50., 60.]], &Device::Cpu).unwrap();
        let loss = (embedding(&table, &ids).unwrap() * weights).unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().get(&table).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(gradient, [[3., 4.], [0., 0.], [51., 62.]]);
    }

    #[test]
    fn an_id_outside_the_table_is_named() {
        let ids = Tensor::new(&[1u32, 9], &Device::Cpu).unwrap();
        let message = embedding(&random(1, (5, 3)).unwrap(), &ids).unwrap_err().to_string();
        assert!(message.contains("id 9") && message.contains("5 rows"), "{message}");
    }
}
