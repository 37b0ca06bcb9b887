//! Which function computes each file of a loss on sequences.

use candle_core::{Result, Tensor};
use kd_core::losses;
use kd_core::ops::crf;

use super::reader::{Given, Loss};

fn lengths(given: &Given<'_>) -> Result<Vec<usize>> {
    given.parameter("lengths")
}

fn log_marginals(given: &Given<'_>, side: &str) -> Result<Tensor> {
    let (emissions, transitions) = crf_of(given, side)?;
    crf::log_marginals(emissions, transitions, &lengths(given)?)
}

fn crf_of<'a>(given: &'a Given<'_>, side: &str) -> Result<(&'a Tensor, &'a Tensor)> {
    Ok((given.tensor(&format!("{side}_emissions"))?, given.tensor(&format!("{side}_transitions"))?))
}

pub(crate) const LOSSES: &[Loss] = &[
    Loss {
        name: "crf_negative_log_likelihood",
        rows: None,
        mean: |x| {
            let (emissions, transitions) = crf_of(x, "student")?;
            crf::negative_log_likelihood(emissions, transitions, x.tensor("labels")?, &lengths(x)?)
        },
    },
    Loss {
        name: "crf_marginal_kl",
        rows: Some(|x| losses::kl_from_log_probs_rows(&log_marginals(x, "student")?, &log_marginals(x, "teacher")?)),
        mean: |x| losses::kl_from_log_probs(&log_marginals(x, "student")?, &log_marginals(x, "teacher")?),
    },
    Loss {
        name: "path_cross_entropy",
        rows: None,
        mean: |x| {
            let (emissions, transitions) = crf_of(x, "teacher")?;
            let paths = crf::k_best(emissions, transitions, &lengths(x)?, x.parameter("k")?)?;
            let (emissions, transitions) = crf_of(x, "student")?;
            losses::path_cross_entropy(emissions, transitions, &paths, x.parameter("weights")?)
        },
    },
];
