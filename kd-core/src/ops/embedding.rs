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
//!
//! That gradient is as large as the table, and an optimiser that takes it reads and writes the whole table, though a
//! batch names few of its rows. [`embedding_sparse`] gives the gradient of the rows that were read instead, and
//! [`Optimizer::step_sparse`](crate::optim::Optimizer::step_sparse) takes it.

use candle_core::backend::BackendStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, Var, bail};

use super::backward::hand_over;
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

/// [`embedding()`] with a gradient of the rows that were read only.
///
/// The distinct rows are copied into a variable of their own and looked up there, so the graph ends at that variable:
/// `table` itself gets no gradient from the result, and [`TableRows::gradient`] has it. For a table that also
/// gets a gradient on another way (as the output layer's weights, say) use [`embedding()`].
///
/// # Errors
/// As [`embedding()`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// let table = Tensor::new(&[[0f32, 1.], [2., 3.], [4., 5.]], &Device::Cpu)?;
/// let ids = Tensor::new(&[2u32, 0, 2], &Device::Cpu)?;
/// let (found, rows) = kd_core::ops::embedding::embedding_sparse(&table, &ids)?;
/// let gradient = rows.gradient(&found.sum_all()?.backward()?).expect("the loss depends on the rows");
/// assert_eq!(gradient.ids(), [0, 2]);
/// assert_eq!(gradient.values().to_vec2::<f32>()?, [[1., 1.], [2., 2.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn embedding_sparse(table: &Tensor, ids: &Tensor) -> Result<(Tensor, TableRows)> {
    let (rows, width) = table.dims2()?;
    if ids.dtype() != DType::U32 {
        bail!("embedding: expected ids of u32, found {:?}", ids.dtype());
    }
    let mut places = ids.flatten_all()?.to_vec1::<u32>()?;
    check(&places, rows)?;
    let mut distinct = places.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let mut place_of = vec![0; rows];
    distinct.iter().enumerate().for_each(|(place, &id)| place_of[id as usize] = place as u32);
    places.iter_mut().for_each(|id| *id = place_of[*id as usize]);
    let read = embedding(&table.detach(), &Tensor::new(distinct.as_slice(), table.device())?)?;
    let read = TableRows { rows: Var::from_tensor(&read)?, ids: distinct, dims: [rows, width] };
    let found = embedding(&read.rows, &Tensor::from_vec(places, ids.shape(), table.device())?)?;
    Ok((found, read))
}

/// The rows of a table that one [`embedding_sparse`] has read.
#[derive(Debug)]
pub struct TableRows {
    /// `(distinct, width)`, a leaf of the graph.
    rows: Var,
    ids: Vec<u32>,
    /// Shape of the table.
    dims: [usize; 2],
}

impl TableRows {
    /// The table's gradient, if the loss depends on what was read.
    pub fn gradient(&self, gradients: &GradStore) -> Option<SparseGradient> {
        let values = gradients.get(self.rows.as_tensor())?.clone();
        Some(SparseGradient { ids: self.ids.clone(), values, dims: self.dims })
    }
}

/// A gradient of some rows of a table; the others' is zero.
#[derive(Debug, Clone)]
pub struct SparseGradient {
    ids: Vec<u32>,
    values: Tensor,
    dims: [usize; 2],
}

impl SparseGradient {
    /// Rows `values`, `(ids, width)`, of a table of `rows`.
    ///
    /// # Errors
    /// If `ids` are not ascending, distinct and below `rows`, or `values` has another number of rows.
    pub fn new(ids: Vec<u32>, values: Tensor, rows: usize) -> Result<Self> {
        check(&ids, rows)?;
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
            bail!("a sparse gradient: expected ascending, distinct ids, found {} before {}", pair[0], pair[1]);
        }
        let (found, width) = values.dims2()?;
        if found != ids.len() {
            bail!("a sparse gradient: expected {} rows of values, found {found}", ids.len());
        }
        Ok(Self { ids, values, dims: [rows, width] })
    }

    /// The rows that have a gradient, ascending and distinct.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Their gradients, `(ids, width)`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// Shape of the table, `[rows, width]`.
    pub fn dims(&self) -> [usize; 2] {
        self.dims
    }

    /// Euclidean norm; with the norm of other gradients `a`, theirs together is `√(a² + norm²)`.
    pub fn norm(&self) -> Result<f64> {
        Ok(crate::optim::sum_of_squares(&self.values)?.sqrt())
    }

    /// The same as a tensor of the table's shape.
    pub fn to_dense(&self) -> Result<Tensor> {
        let zeros = Tensor::zeros(self.dims.as_slice(), self.values.dtype(), self.values.device())?;
        if self.ids.is_empty() { Ok(zeros) } else { zeros.scatter(&self.places()?, &self.values, 0) }
    }

    /// The same rows with other values, which have their shape.
    pub(crate) fn with_values(&self, values: Tensor) -> Self {
        Self { ids: self.ids.clone(), values, dims: self.dims }
    }

    /// The sum of gradients of one table, in the order in which they come; a row of the sum is one that any has.
    ///
    /// # Errors
    /// If there are none, or their tables or dtypes differ.
    pub(crate) fn sum(all: &[Self]) -> Result<Self> {
        let Some(first) = all.first() else { bail!("a sum of no sparse gradients, expected at least 1") };
        let mut ids: Vec<u32> = all.iter().flat_map(|gradient| gradient.ids.iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        let device = first.values.device();
        let mut values = Tensor::zeros((ids.len(), first.dims[1]), first.values.dtype(), device)?;
        for gradient in all.iter().filter(|gradient| !gradient.ids.is_empty()) {
            if gradient.dims != first.dims {
                bail!("a sum of sparse gradients: expected a table of {:?}, found {:?}", first.dims, gradient.dims);
            }
            let places = gradient.ids.iter().map(|id| ids.partition_point(|other| other < id) as u32);
            let places = Tensor::from_iter(places, device)?;
            values = values.index_add(&places, &gradient.values, 0)?;
        }
        Ok(Self { ids, values, dims: first.dims })
    }

    /// The row of every value, `(ids, width)`, as `gather` and `scatter` want it.
    pub(crate) fn places(&self) -> Result<Tensor> {
        let ids = Tensor::new(self.ids.as_slice(), self.values.device())?;
        ids.unsqueeze(1)?.broadcast_as(self.values.shape())?.contiguous()
    }
}

fn check(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => bail!("embedding: id {id} is outside a table of {rows} rows"),
        None => Ok(()),
    }
}

struct Embedding;

fn forward<T: Float>(table: &[T], rows: usize, width: usize, ids: &[u32]) -> Result<Vec<T>> {
    check(ids, rows)?;
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
    // Positions by id and then in order, so that every task finds those of its rows.
    let mut order: Vec<(u32, u32)> = ids.iter().zip(0..).map(|(&id, position)| (id, position)).collect();
    order.sort_unstable();
    // SAFETY: the loop writes every row.
    let mut gradient = unsafe { cpu::uninit::<T>(rows * width) };
    cpu::par_rows(
        &mut gradient,
        width,
        #[inline(always)]
        |first_row, rows| {
            rows.fill(T::zero());
            let last_row = first_row + rows.len() / width;
            let start = order.partition_point(|&(id, _)| (id as usize) < first_row);
            for &(id, position) in order[start..].iter().take_while(|&&(id, _)| (id as usize) < last_row) {
                let row = &mut rows[(id as usize - first_row) * width..][..width];
                for (sum, &dy) in row.iter_mut().zip(&dy[position as usize * width..][..width]) {
                    *sum += dy;
                }
            }
        },
    );
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
            Ok((hand_over(table, cpu::tensor(gradient, (rows, width))?), None))
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
    fn sparse_and_dense_gradients_are_equal() {
        for (dtype, shape) in [(DType::F32, vec![40]), (DType::F64, vec![3, 4]), (DType::BF16, vec![6])] {
            let table = Var::from_tensor(&random(1, (9, 5)).unwrap().to_dtype(dtype).unwrap()).unwrap();
            let count: usize = shape.iter().product();
            let ids = (0..count as u32).map(|i| i * i % 7).collect(); // 0, 1, 2 and 4, some of them often
            let ids = Tensor::from_vec(ids, shape, &Device::Cpu).unwrap();
            let weights = random(2, (count, 5)).unwrap().to_dtype(dtype).unwrap();
            let loss = |found: &Tensor| (found.reshape((count, 5)).unwrap() * &weights).unwrap().sum_all().unwrap();
            let expected = embedding(&table, &ids).unwrap();
            let (found, rows) = embedding_sparse(&table, &ids).unwrap();
            let values = |tensor: &Tensor| {
                let tensor = tensor.to_dtype(DType::F64).unwrap();
                (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap())
            };
            assert_eq!(values(&found), values(&expected));
            let gradients = loss(&found).backward().unwrap();
            assert!(gradients.get(&table).is_none());
            let sparse = rows.gradient(&gradients).unwrap();
            assert_eq!((sparse.ids(), sparse.dims()), (&[0, 1, 2, 4][..], [9, 5]));
            let dense = loss(&expected).backward().unwrap().get(&table).unwrap().clone();
            assert_eq!(values(&sparse.to_dense().unwrap()), values(&dense));
            let norm = values(&dense).1.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((sparse.norm().unwrap() - norm).abs() < 1e-6 * norm);
            assert!(rows.gradient(&loss(&expected).backward().unwrap()).is_none());
        }
    }

    #[test]
    fn no_ids_have_a_gradient_of_no_rows() {
        let table = random(1, (5, 3)).unwrap();
        let (found, rows) =
            embedding_sparse(&table, &Tensor::zeros((2, 0), DType::U32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(found.dims(), [2, 0, 3]);
        let sparse = rows.gradient(&found.sum_all().unwrap().backward().unwrap()).unwrap();
        assert_eq!((sparse.ids().len(), sparse.values().dims()), (0, &[0, 3][..]));
        assert_eq!(sparse.to_dense().unwrap().to_vec2::<f64>().unwrap(), [[0.0; 3]; 5]);
        assert_eq!(sparse.norm().unwrap(), 0.0);
    }

    #[test]
    fn sparse_rows_that_do_not_fit_are_named() {
        let values = |rows: usize| Tensor::zeros((rows, 3), DType::F32, &Device::Cpu).unwrap();
        let message = |ids: &[u32], rows| SparseGradient::new(ids.to_vec(), values(rows), 4).unwrap_err().to_string();
        assert!(message(&[1, 1], 2).contains("found 1 before 1"));
        assert!(message(&[1, 4], 2).contains("id 4"));
        assert!(message(&[1, 2], 3).contains("expected 2 rows of values, found 3"));
    }

    #[test]
    fn a_table_of_many_tasks_gets_the_gradient_of_every_position() {
        // Row r is named by the positions p with p² mod 997 = r, and position p sends p.
        let (rows, width, count) = (1000, 50, 3000u64);
        let ids: Vec<u32> = (0..count).map(|p| (p * p % 997) as u32).collect();
        let mut expected = vec![0.0; rows];
        ids.iter().zip(0u32..).for_each(|(&id, p)| expected[id as usize] += f64::from(p));
        let dy: Vec<f64> = (0..count).flat_map(|p| vec![p as f64; width]).collect();
        let gradient = backward(rows, width, &ids, &dy);
        assert!(gradient.chunks_exact(width).zip(&expected).all(|(row, sum)| row.iter().all(|x| x == sum)));
    }

    #[test]
    fn an_id_outside_the_table_is_named() {
        let ids = Tensor::new(&[1u32, 9], &Device::Cpu).unwrap();
        let table = random(1, (5, 3)).unwrap();
        for message in [embedding(&table, &ids).unwrap_err(), embedding_sparse(&table, &ids).unwrap_err()] {
            let message = message.to_string();
            assert!(message.contains("id 9") && message.contains("5 rows"), "{message}");
        }
    }
}
