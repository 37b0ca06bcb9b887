//! The numbers of an example as bytes: logits, then hidden states, then attentions, all little-endian.

use candle_core::{DType, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::about::{About, FloatType};

/// Bytes of the rest's log-sum-exp and of a class id in a row of top-k.
const U32: usize = 4;

/// Where the parts of an example lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) logits: u64,
    pub(super) hidden: u64,
    pub(super) attention: u64,
}

impl Layout {
    /// Of an example of that many rows and tokens; sizes that no file can have saturate.
    pub(super) fn new(about: &About, rows: u32, tokens: u32) -> Self {
        let product = |factors: &[usize]| factors.iter().fold(1u64, |a, &b| a.saturating_mul(b as u64));
        let (rows, tokens) = (rows as usize, tokens as usize);
        let stored = &about.stored;
        let hidden = stored
            .hidden
            .as_ref()
            .map_or(0, |hidden| product(&[hidden.layers.len(), tokens, hidden.width, hidden.dtype.bytes()]));
        let attention = stored.attention.as_ref().map_or(0, |attention| {
            product(&[attention.layers.len(), attention.heads, tokens, tokens, attention.dtype.bytes()])
        });
        Self { logits: product(&[rows, row_bytes(about)]), hidden, attention }
    }

    /// Of all parts.
    pub(super) fn bytes(self) -> u64 {
        self.logits.saturating_add(self.hidden).saturating_add(self.attention)
    }
}

fn row_bytes(about: &About) -> usize {
    let size = about.stored.logits.bytes();
    match about.stored.top_k {
        None => about.classes.len() * size,
        Some(k) => k * (U32 + size) + U32,
    }
}

/// A tensor's values in f32, on the host.
pub(super) fn values(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Appends `values`; the first one that is not finite in `dtype` is the error.
pub(super) fn push(dtype: FloatType, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), f32> {
    let check = |values: &[f32]| values.iter().find(|value| !value.is_finite()).map_or(Ok(()), |&value| Err(value));
    match dtype {
        FloatType::F32 => {
            check(values)?;
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        FloatType::F16 => {
            let mut short = vec![f16::ZERO; values.len()];
            short.convert_from_f32_slice(values);
            if let Some(idx) = short.iter().position(|value| !value.is_finite()) {
                return Err(values[idx]);
            }
            bytes.extend(short.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    Ok(())
}

/// The values of `bytes`, appended to `values`.
pub(super) fn pull(dtype: FloatType, bytes: &[u8], values: &mut Vec<f32>) {
    match dtype {
        FloatType::F32 => values.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
        FloatType::F16 => {
            let short: Vec<f16> = bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
            let start = values.len();
            values.resize(start + short.len(), 0.0);
            short.convert_to_f32_slice(&mut values[start..]);
        }
    }
}

/// Appends rows of logits, `(rows, classes)`.
pub(super) fn push_logits(about: &About, logits: &[f32], bytes: &mut Vec<u8>) -> Result<(), f32> {
    let dtype = about.stored.logits;
    let Some(k) = about.stored.top_k else { return push(dtype, logits, bytes) };
    let classes = about.classes.len();
    for row in logits.chunks_exact(classes) {
        if let Some(&value) = row.iter().find(|value| !value.is_finite()) {
            return Err(value);
        }
        let mut order: Vec<u32> = (0..classes as u32).collect();
        let largest = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        if k < classes {
            order.select_nth_unstable_by(k - 1, largest);
        }
        let (top, others) = order.split_at_mut(k);
        top.sort_unstable_by(largest);
        others.sort_unstable(); // so that the sum's order is the columns'
        bytes.extend(top.iter().flat_map(|class| class.to_le_bytes()));
        let top: Vec<f32> = top.iter().map(|&class| row[class as usize]).collect();
        push(dtype, &top, bytes)?;
        bytes.extend((log_sum_exp(others.iter().map(|&class| row[class as usize])) as f32).to_le_bytes());
    }
    Ok(())
}

/// Minus infinity of nothing.
fn log_sum_exp(values: impl Iterator<Item = f32> + Clone) -> f64 {
    let most = values.clone().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    f64::from(most) + values.map(|value| f64::from(value - most).exp()).sum::<f64>().ln()
}

/// Rows of logits, `(rows, classes)`, appended to `logits`.
pub(super) fn pull_logits(about: &About, bytes: &[u8], logits: &mut Vec<f32>) {
    let dtype = about.stored.logits;
    let Some(k) = about.stored.top_k else { return pull(dtype, bytes, logits) };
    let classes = about.classes.len();
    let mut top = Vec::with_capacity(k);
    for row in bytes.chunks_exact(row_bytes(about)) {
        let (ids, rest) = row.split_at(k * U32);
        let (values, rest) = rest.split_at(k * dtype.bytes());
        top.clear();
        pull(dtype, values, &mut top);
        // Evenly: n classes of this logit have the log-sum-exp that the others had.
        let others = rest.first_chunk().map_or(f32::NEG_INFINITY, |rest| f32::from_le_bytes(*rest));
        let start = logits.len();
        logits.resize(start + classes, others - (classes.saturating_sub(k).max(1) as f32).ln());
        for (id, &value) in ids.as_chunks::<U32>().0.iter().zip(&top) {
            // An id that is no class can only come from a file made by something else; its value has no place.
            if let Some(place) = logits[start..].get_mut(u32::from_le_bytes(*id) as usize) {
                *place = value;
            }
        }
    }
}
