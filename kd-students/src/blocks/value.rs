//! What flows from block to block: a tensor, and which of its positions are padding.

use candle_core::{DType, Result, Tensor, bail};
use kd_core::batch::Sequence;
use kd_core::ops::cpu;

use super::maps::{Tokens, kept};

/// A tensor between two blocks.
#[derive(Debug, Clone)]
pub struct Value {
    /// Batch first. What stands on padding means nothing, unless a block says otherwise.
    pub tensor: Tensor,
    /// 1 on tokens and 0 on padding of axis 1, `(batch, len)` u8, padding at the end; `None` if there is no padding.
    pub mask: Option<Tensor>,
    /// The same of axis 2, `(batch, len2)` u8, in a matrix of two texts.
    pub second_mask: Option<Tensor>,
    /// What was read, of a branch that has no embedding: its `ids` are `tensor`. For blocks that embed by themselves, such as
    /// a pretrained encoder.
    pub sequence: Option<Sequence>,
    /// Scores of a CRF over the classes of `tensor`, `(classes + 2, classes)`; see [`kd_core::ops::crf`].
    pub transitions: Option<Tensor>,
}

impl Value {
    /// A tensor without padding.
    pub fn new(tensor: Tensor) -> Self {
        Self { tensor, mask: None, second_mask: None, sequence: None, transitions: None }
    }

    /// A tensor whose axis 1 has padding where `mask`, `(batch, len)` u8, is 0.
    pub fn masked(tensor: Tensor, mask: Option<Tensor>) -> Self {
        Self { mask, ..Self::new(tensor) }
    }

    /// Another tensor with the same axes and padding.
    #[must_use]
    pub fn with(&self, tensor: Tensor) -> Self {
        Self { second_mask: self.second_mask.clone(), ..Self::masked(tensor, self.mask.clone()) }
    }

    /// Another tensor whose last axis is a new one: the padding of the others stays, that of the last is gone.
    #[must_use]
    pub fn with_last(&self, tensor: Tensor) -> Self {
        let kept = |axis: usize, mask: &Option<Tensor>| mask.clone().filter(|_| axis + 1 != self.tensor.rank());
        Self { second_mask: kept(2, &self.second_mask), ..Self::masked(tensor, kept(1, &self.mask)) }
    }

    /// The tensor with zeros on padding of its last axis, for blocks that read a position as a vector: only matrices of two
    /// texts and what was pooled from them have some.
    ///
    /// # Errors
    /// If a mask does not fit the tensor.
    pub fn vectors(&self) -> Result<Tensor> {
        match (self.tensor.rank(), &self.mask, &self.second_mask) {
            (2, Some(mask), _) => replace_padding(&self.tensor, mask, 1, 0.0),
            (3, _, Some(mask)) => replace_padding(&self.tensor, mask, 2, 0.0),
            _ => Ok(self.tensor.clone()),
        }
    }

    /// Number of tokens of each sequence: the whole axis 1 without a mask. Reads the mask from its device.
    ///
    /// # Errors
    /// If the tensor has no axis 1, or the mask cannot be read.
    pub fn lengths(&self) -> Result<Vec<usize>> {
        match &self.mask {
            None => Ok(vec![self.tensor.dim(1)?; self.tensor.dim(0)?]),
            Some(mask) => {
                let rows: Vec<Vec<u8>> = mask.to_vec2()?;
                Ok(rows.iter().map(|row| row.iter().filter(|&&m| m != 0).count()).collect())
            }
        }
    }

    /// The tensor with zeros on padding of axes 1 and 2.
    ///
    /// # Errors
    /// If a mask does not fit the tensor.
    pub fn zeroed(&self) -> Result<Tensor> {
        if (self.mask.is_some() || self.second_mask.is_some()) && cpu::has_kernel(&self.tensor) {
            return kept(&self.tensor, Tokens::of(self)?);
        }
        let mut tensor = self.tensor.clone();
        for (axis, mask) in [(1, &self.mask), (2, &self.second_mask)] {
            if let Some(mask) = mask {
                tensor = replace_padding(&tensor, mask, axis, 0.0)?;
            }
        }
        Ok(tensor)
    }
}

/// `tensor` with `with` wherever `mask`, `(batch, len)` u8, is 0 on `axis`; no gradient flows to what is replaced.
///
/// # Errors
/// If `mask` is not `(batch, len)` of the tensor's axes 0 and `axis`.
pub fn replace_padding(tensor: &Tensor, mask: &Tensor, axis: usize, with: f64) -> Result<Tensor> {
    let dims = tensor.dims();
    if axis == 0 || axis >= dims.len() || mask.dims() != [dims[0], dims[axis]] {
        bail!("expected a mask of axes 0 and {axis} of {dims:?}, found {:?}", mask.dims());
    }
    let mut shape = vec![1; dims.len()];
    (shape[0], shape[axis]) = (dims[0], dims[axis]);
    let mask = mask.ne(0u8)?.reshape(shape)?.broadcast_as(dims)?;
    let with = Tensor::new(with, tensor.device())?.to_dtype(tensor.dtype())?.broadcast_as(dims)?;
    mask.where_cond(&tensor.contiguous()?, &with)
}

/// `mask`, or one that says that nothing is padding: `(batch, len)` u8.
///
/// # Errors
/// If the device has no memory.
pub fn mask_or_ones(mask: Option<&Tensor>, batch: usize, len: usize, like: &Tensor) -> Result<Tensor> {
    match mask {
        Some(mask) => Ok(mask.clone()),
        None => Tensor::ones((batch, len), DType::U8, like.device()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use kd_core::testing::{check_gradient, random};

    #[test]
    fn padding_is_replaced_on_either_axis_and_takes_no_gradient() {
        let mask = Tensor::new(&[[1u8, 1, 0], [1, 0, 0]], &Device::Cpu).unwrap();
        let values = Tensor::arange(1f64, 13., &Device::Cpu).unwrap().reshape((2, 3, 2)).unwrap();
        let value = Value::masked(values, Some(mask.clone()));
        let expected = [[[1., 2.], [3., 4.], [0., 0.]], [[7., 8.], [0., 0.], [0., 0.]]];
        assert_eq!(value.zeroed().unwrap().to_vec3::<f64>().unwrap(), expected);
        assert_eq!(value.lengths().unwrap(), [2, 1]);
        let matrix = random(1, (2, 2, 3)).unwrap();
        let replaced = replace_padding(&matrix, &mask, 2, -5.).unwrap().to_vec3::<f64>().unwrap();
        assert_eq!((replaced[0][1][2], replaced[1][0][1], replaced[1][1][2]), (-5., -5., -5.));
        assert_eq!(replaced[0][0][1], matrix.to_vec3::<f64>().unwrap()[0][0][1]);
        check_gradient(|x| replace_padding(x, &mask, 1, 3.0), &random(2, (2, 3, 2)).unwrap(), 1e-8).unwrap();
        let message = replace_padding(&matrix, &mask, 1, 0.).unwrap_err().to_string();
        assert!(message.contains("expected a mask of axes 0 and 1 of [2, 2, 3], found [2, 3]"), "{message}");
    }

    #[test]
    fn a_new_last_axis_has_no_padding() {
        let mask = |len: usize| Some(Tensor::ones((2, len), DType::U8, &Device::Cpu).unwrap());
        let tensor = |dims: &[usize]| random(1, dims.to_vec()).unwrap();
        let masks = |value: Value| [value.mask.is_some(), value.second_mask.is_some()];
        let of = |dims: &[usize]| {
            let value = Value { second_mask: mask(4), ..Value::masked(tensor(dims), mask(3)) };
            masks(value.with_last(tensor(dims)))
        };
        assert_eq!(of(&[2, 3, 4, 5]), [true, true]);
        assert_eq!(of(&[2, 3, 4]), [true, false]);
        assert_eq!(masks(Value::masked(tensor(&[2, 3]), mask(3)).with_last(tensor(&[2, 5]))), [false, false]);
        let ids = Tensor::new(&[[1u8, 0, 0], [1, 1, 1]], &Device::Cpu).unwrap();
        let pooled = Value::masked(Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap(), Some(ids.clone()));
        assert_eq!(pooled.vectors().unwrap().to_vec2::<f64>().unwrap(), [[1., 0., 0.], [1., 1., 1.]]);
        let text = Value::masked(tensor(&[2, 3, 4]), Some(ids));
        assert_eq!(text.vectors().unwrap().id(), text.tensor.id());
    }
}
