//! The gradient of an embedding table in the same bytes every time.
//!
//! Candle's own adds with one thread for each column, which goes through all positions in turn.

use candle_core::{Result, Tensor};

use super::attach::attach1;
use super::launch::{Geometry, Launch};
use super::output::{Output, device_of};

/// The rows of `table` that `ids` name; an id that is no row gives NaN.
pub(crate) fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (table, ids) = (table.contiguous()?, ids.contiguous()?);
    let (_, width) = table.dims2()?;
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    let mut y = Output::new(shape, table.dtype(), device_of(&table)?)?;
    let count = ids.elem_count();
    let launch = Launch::new(device_of(&table)?, "embedding", table.dtype())?.tensor(&ids)?.tensor(&table)?;
    let launch = launch.output(&mut y)?.long(count * width).int(width)?.int(table.dim(0)?)?;
    launch.run(Geometry::of_values(count * width))?;
    attach1("embedding", &table, y, move |table, _, dy| {
        let (rows, width) = table.dims2()?;
        let mut gradient = Output::zeros((rows, width), table.dtype(), device_of(table)?)?;
        let launch = Launch::new(device_of(table)?, "embedding_backward", table.dtype())?.tensor(&ids)?.tensor(dy)?;
        let launch = launch.output(&mut gradient)?.int(ids.elem_count())?.int(width)?.int(rows)?;
        launch.run(Geometry {
            grid: (ids.elem_count().div_ceil(4) as u32, width.div_ceil(256) as u32),
            block: (32, 4),
        })?;
        Ok(Some(gradient.into_tensor()))
    })
}
