//! Convolutions and pooling of maps on the CPU, one example at a time and only where there are tokens.
//!
//! A map of two texts padded to 200 words each has 40,000 places, of which a question of 10 words and a passage of 40 fill
//! 400. What a [`Value`] has on padding means nothing, so the kernels here neither read nor compute it: their results are 0
//! there, and no gradient flows. Of composed operations every window would be copied, several times, for every place.
//!
//! | function | is |
//! |---|---|
//! | [`convolution`] | a product for some rows of an example, its windows made anew in the backward |
//! | [`pooling`] | the largest value or the mean of each window; of equal values the first gets the gradient |
//! | [`kept`] | a copy with zeros on padding |
//!
//! Examples and rows of the output are computed in parallel. Sums over examples are made in their order, so the bytes are those
//! of any number of threads.

mod convolution;
mod kept;
mod pooling;

use candle_core::{Result, Tensor};

pub(super) use self::convolution::convolution;
pub(super) use self::kept::kept;
pub(super) use self::pooling::pooling;
use super::Value;

/// Runs `$body` with `$T` as the Rust type of `$dtype`, which has kernels.
macro_rules! for_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("expected f32 or f64, found {other:?}"),
        }
    };
}
use for_float;

/// The tokens of each example on axes 1 and 2: the first so many positions of each axis count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens(Vec<[usize; 2]>);

impl Tokens {
    /// Those of the masks of a value of rank 2 or more; every position where there is no mask, or no axis 2.
    ///
    /// # Errors
    /// If a mask is not `(batch, len)` of its axis, or has padding in front of a token.
    pub(super) fn of(value: &Value) -> Result<Self> {
        let mut tokens = Self::all(&value.tensor)?;
        for (axis, mask) in [(1, &value.mask), (2, &value.second_mask)] {
            let Some(mask) = mask else { continue };
            let dims = value.tensor.dims();
            if axis >= dims.len() || mask.dims() != [dims[0], dims[axis]] {
                candle_core::bail!("expected a mask of axes 0 and {axis} of {dims:?}, found {:?}", mask.dims());
            }
            for (tokens, row) in tokens.0.iter_mut().zip(mask.to_vec2::<u8>()?) {
                tokens[axis - 1] = row.iter().take_while(|&&token| token != 0).count();
                if row[tokens[axis - 1]..].iter().any(|&token| token != 0) {
                    candle_core::bail!(
                        "expected a mask of axis {axis} with padding behind the tokens only, found {row:?}"
                    );
                }
            }
        }
        Ok(tokens)
    }

    /// Every position.
    pub(super) fn all(tensor: &Tensor) -> Result<Self> {
        let (batch, len) = (tensor.dim(0)?, tensor.dim(1)?);
        Ok(Self(vec![[len, tensor.dims().get(2).copied().unwrap_or(1)]; batch]))
    }
}

#[cfg(test)]
mod tests;
