//! Which positions of padded sequences are tokens: the mask that losses between positions need, because queries and
//! keys of padding lie between those of tokens.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// 1 on tokens and 0 on padding, with the shapes that losses between positions lay it over.
pub(super) struct TokenMask {
    /// 1 on tokens, `(batch, len)` u8.
    mask: Tensor,
    batch: usize,
    len: usize,
    dtype: DType,
}

impl TokenMask {
    pub(super) fn new(loss: &str, mask: &Tensor, batch: usize, len: usize, dtype: DType) -> Result<Self> {
        if mask.dims() != [batch, len] || mask.dtype() != DType::U8 {
            bail!("{loss}: expected a u8 mask [{batch}, {len}], found {:?} {:?}", mask.dtype(), mask.dims());
        }
        Ok(Self { mask: mask.ne(0u8)?, batch, len, dtype })
    }

    /// Number of tokens of each example, `(batch,)`; 1 for an example without any, so that it divides.
    pub(super) fn counts(&self) -> Result<Tensor> {
        self.mask.to_dtype(self.dtype)?.sum(1)?.maximum(1.0)
    }

    /// Keeps the values of tokens' rows of `x`, `(batch, len, width)`, and sets the others to 0.
    pub(super) fn keep_rows(&self, x: &Tensor) -> Result<Tensor> {
        self.keep((self.batch, self.len, 1), x, 0.0)
    }

    /// Sets the columns of keys of padding of `x`, `(batch, heads, len, len)`, to `value`.
    pub(super) fn keep_keys(&self, x: &Tensor, value: f64) -> Result<Tensor> {
        self.keep((self.batch, 1, 1, self.len), x, value)
    }

    /// Sets the rows of queries of padding of `x`, `(batch, heads, len, len)` or `(batch, heads, len, 1)`, to `value`.
    pub(super) fn keep_queries(&self, x: &Tensor, value: f64) -> Result<Tensor> {
        self.keep((self.batch, 1, self.len, 1), x, value)
    }

    fn keep(&self, shape: impl Into<Shape>, x: &Tensor, value: f64) -> Result<Tensor> {
        let mask = self.mask.reshape(shape)?.broadcast_as(x.shape())?.contiguous()?;
        let other = constant(value, x.dtype(), x.device())?.broadcast_as(x.shape())?.contiguous()?;
        mask.where_cond(&x.contiguous()?, &other)
    }
}

fn constant(value: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::new(value, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn masks_replace_what_is_not_a_token() {
        let mask = Tensor::new(&[[1u8, 0], [0, 0]], &Device::Cpu).unwrap();
        let tokens = TokenMask::new("x", &mask, 2, 2, DType::F64).unwrap();
        assert_eq!(tokens.counts().unwrap().to_vec1::<f64>().unwrap(), [1., 1.]);
        let x =
            Tensor::new(&[[[[1f64, f64::NAN], [3., 4.]]], [[[5., 6.], [7., f64::INFINITY]]]], &Device::Cpu).unwrap();
        let kept = tokens.keep_queries(&tokens.keep_keys(&x, 0.0).unwrap(), 0.0).unwrap();
        assert_close(
            &kept.flatten_all().unwrap(),
            &Tensor::new(&[1f64, 0., 0., 0., 0., 0., 0., 0.], &Device::Cpu).unwrap(),
            0.,
            0.,
        )
        .unwrap();
        let message = TokenMask::new("x", &mask, 2, 3, DType::F64).err().unwrap().to_string();
        assert!(message.contains("expected a u8 mask [2, 3], found U8 [2, 2]"), "{message}");
    }
}
