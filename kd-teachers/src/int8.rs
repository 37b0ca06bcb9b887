//! Small checkpoints: matrices as bytes with one scale per row.
//!
//! A matrix `NAME` of shape `(rows, columns)` is stored as two tensors of a safetensors file,
//!
//! ```text
//! NAME         I8   (rows, columns)     q
//! NAME.scale   F32  (rows,)             s        (F16 and BF16 are read too)
//! value[r][c] = s[r] · q[r][c],   s[r] = max_c |value[r][c]| / 127
//! ```
//!
//! so a value is off by at most half its row's scale. Everything that is not a matrix stays f32. [`crate::checkpoint`]
//! reads such files like any other; a quarter of the bytes, the same variables.
//!
//! ```
//! use kd_teachers::int8::{dequantize_rows, quantize_rows};
//! let (quantized, scales) = quantize_rows(&[1.0, -2.0, 0.0, 0.0], 2);
//! assert_eq!((quantized, scales.len()), (vec![64, -127, 0, 0], 2)); // 63.5 rounds away from zero
//! assert_eq!(dequantize_rows(&[127, 1], &[0.5, 3.0], 1), [63.5, 3.0]);
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kd_core::checkpoint::replace_file_with;
pub use kd_core::ops::packed::quantize_rows;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};

/// What the name of a matrix's scales ends in.
pub const SCALE: &str = ".scale";

/// The values of a matrix from the multiples and the scales of its rows.
pub fn dequantize_rows(quantized: &[i8], scales: &[f32], columns: usize) -> Vec<f32> {
    let rows = quantized.chunks_exact(columns.max(1)).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |&multiple| scale * f32::from(multiple))).collect()
}

/// Writes `tensors` to a safetensors file, matrices as bytes with scales and the rest as f32; written beside and renamed.
///
/// # Errors
/// If a tensor holds a value that is not finite, or the file cannot be written.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let wrong = |message: String| Error::Checkpoint { files: path.display().to_string(), message };
    let mut stored = Vec::new();
    for (name, tensor) in tensors {
        let values = f32_values(tensor)?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(wrong(format!("`{name}`: expected finite values, found {value}")));
        }
        if let &[rows, columns] = tensor.dims() {
            let (quantized, scales) = quantize_rows(&values, columns);
            let bytes = quantized.iter().map(|multiple| multiple.cast_unsigned()).collect();
            stored.push((name.clone(), Dtype::I8, vec![rows, columns], bytes));
            stored.push((format!("{name}{SCALE}"), Dtype::F32, vec![rows], f32_bytes(&scales)));
        } else {
            stored.push((name.clone(), Dtype::F32, tensor.dims().to_vec(), f32_bytes(&values)));
        }
    }
    Ok(replace_file_with(path, &serialize(&stored).map_err(wrong)?)?)
}

pub(crate) fn f32_values(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}

pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The bytes of a safetensors file; it says `format: pt`, without which transformers refuses it.
pub(crate) fn serialize(stored: &[(String, Dtype, Vec<usize>, Vec<u8>)]) -> std::result::Result<Vec<u8>, String> {
    let mut views = Vec::with_capacity(stored.len());
    for (name, dtype, shape, bytes) in stored {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|source| format!("`{name}`: {source}"))?;
        views.push((name.as_str(), view));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(|source| source.to_string())
}
