//! The noise-contrastive estimate of one direction.

use candle_core::{Result, Tensor, bail};

use crate::losses::mean;
use crate::losses::preconditions::wide;
use crate::losses::vectors::wide_pair;
use crate::ops;

/// Noise-contrastive estimate of an anchor against its own candidate and `K` others, mean over rows; in nats.
///
/// `-ln h_0 - Σ_k ln(1 - h_k)` with `h = P / (P + K/N)` and `P = exp(candidate · anchor / temperature) / Z` (Wu et al. 2018,
/// eq. 6 and 7; Tian et al. 2020, §3). The others count as drawn uniformly from `N` examples. All of it is computed in
/// logarithms, so no similarity overflows.
///
/// # Shapes
/// - `anchors`: `(rows, width)` float, of length 1 where the papers' are
/// - `candidates`: `(rows, 1 + K, width)` float, the anchor's own first; detached
/// - `log_normaliser`: `ln Z`, a scalar; detached
/// - returns a scalar of the dtype of `anchors`; half precision is computed in `f32`
///
/// # Errors
/// If shapes do not fit, there is no other candidate, or `temperature` is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let anchors = Tensor::new(&[[1f64, 0.]], &Device::Cpu)?;
/// let candidates = Tensor::new(&[[[2f64.ln(), 0.], [0., 5.]]], &Device::Cpu)?; // exponentials 2 and 1
/// let log_normaliser = Tensor::new(4f64.ln(), &Device::Cpu)?; // P 1/2 and 1/4
/// let loss = kd_core::losses::noise_contrast(&anchors, &candidates, 1., &log_normaliser, 4)?.to_scalar::<f64>()?;
/// assert!((loss - ((3f64 / 2.).ln() + 2f64.ln())).abs() < 1e-12); // K/N = 1/4: h 2/3 and 1/2
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn noise_contrast(
    anchors: &Tensor,
    candidates: &Tensor,
    temperature: f64,
    log_normaliser: &Tensor,
    examples: usize,
) -> Result<Tensor> {
    mean(&noise_contrast_rows(anchors, candidates, temperature, log_normaliser, examples)?)
}

/// [`noise_contrast`] of each row, `(rows,)`.
pub fn noise_contrast_rows(
    anchors: &Tensor,
    candidates: &Tensor,
    temperature: f64,
    log_normaliser: &Tensor,
    examples: usize,
) -> Result<Tensor> {
    const LOSS: &str = "noise_contrast";
    let fits = match (anchors.dims(), candidates.dims()) {
        ([rows, width], [other_rows, others, other_width]) => {
            rows == other_rows && width == other_width && *others >= 2 && *rows > 0 && *width > 0
        }
        _ => false,
    };
    if !fits || log_normaliser.rank() != 0 {
        bail!(
            "{LOSS}: expected anchors (rows, width), candidates (rows, 1 + others, width) and a scalar, found {:?}, {:?} \
             and {:?}",
            anchors.dims(),
            candidates.dims(),
            log_normaliser.dims()
        );
    }
    if !(temperature.is_finite() && temperature > 0.0) {
        bail!("{LOSS}: temperature {temperature}, expected a finite value above 0");
    }
    if examples == 0 {
        bail!("{LOSS}: expected a number of examples above 0, found 0");
    }
    let (a, candidates) = wide_pair(LOSS, anchors, candidates)?;
    let others = candidates.dim(1)? - 1;
    let similarities = similarities(&a, &candidates, temperature)?;
    // h = P / (P + K/N): the odds are P · N/K.
    let noise = (others as f64 / examples as f64).ln();
    let shift = (log_normaliser.detach().to_dtype(a.dtype())? + noise)?;
    let log_odds = similarities.broadcast_sub(&shift)?; // (rows, 1 + K)
    // The two logarithms of a sigmoid are those of a softmax over (x, 0), which overflows nowhere.
    let logs = ops::log_softmax(&Tensor::stack(&[&log_odds, &log_odds.zeros_like()?], 2)?)?; // (rows, 1 + K, 2)
    let own = logs.narrow(1, 0, 1)?.narrow(2, 0, 1)?.squeeze(2)?.squeeze(1)?;
    let rest = logs.narrow(1, 1, others)?.narrow(2, 1, 1)?.squeeze(2)?.sum(1)?;
    (own + rest)?.neg()?.to_dtype(anchors.dtype())
}

/// `ln Z` as the first batch fixes it: of `examples` times the mean of `exp(candidate · anchor / temperature)`.
pub(super) fn first_log_normaliser(
    anchors: &Tensor,
    candidates: &Tensor,
    temperature: f64,
    examples: usize,
) -> Result<Tensor> {
    let all = similarities(&wide(&anchors.detach())?, candidates, temperature)?.flatten_all()?;
    all.log_sum_exp(0)? + (examples as f64 / all.elem_count() as f64).ln()
}

/// `candidate · anchor / temperature`, `(rows, 1 + K)`.
fn similarities(anchors: &Tensor, candidates: &Tensor, temperature: f64) -> Result<Tensor> {
    candidates.matmul(&anchors.unsqueeze(2)?)?.squeeze(2)? / temperature
}
