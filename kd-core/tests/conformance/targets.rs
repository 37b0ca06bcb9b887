//! Which function computes each file of a loss against numbers, signs or sets, or with a margin.

use candle_core::{Result, Tensor};
use kd_core::losses;

use super::reader::{Given, Loss};

/// A loss of the inputs named, and of what the expression makes of the case: its config or a parameter.
macro_rules! of {
    ($mean:ident, $rows:ident, [$($input:literal),+] $(, $more:expr)?) => {
        Loss {
            name: stringify!($mean),
            rows: Some(|x| losses::$rows($(x.tensor($input)?,)+ $($more(x)?)?)),
            mean: |x| losses::$mean($(x.tensor($input)?,)+ $($more(x)?)?),
        }
    };
}

/// As `of`, with the case's parameters as a config.
macro_rules! configured {
    ($mean:ident, $rows:ident, [$($input:literal),+]) => {
        Loss {
            name: stringify!($mean),
            rows: Some(|x| losses::$rows($(x.tensor($input)?,)+ &x.config()?)),
            mean: |x| losses::$mean($(x.tensor($input)?,)+ &x.config()?),
        }
    };
}

fn margin(given: &Given<'_>) -> Result<f64> {
    given.parameter("margin")
}

fn by_weights(given: &Given<'_>) -> Result<Tensor> {
    losses::negative_log_likelihood(given.tensor("log_probs")?, given.tensor("labels")?, &given.config()?)
}

pub(crate) const LOSSES: &[Loss] = &[
    of!(absolute_error, absolute_error_rows, ["predictions", "targets"]),
    of!(smooth_absolute_error, smooth_absolute_error_rows, ["predictions", "targets"], |x: &Given<'_>| x
        .parameter("beta")),
    configured!(poisson, poisson_rows, ["predictions", "targets"]),
    configured!(negative_log_likelihood, negative_log_likelihood_rows, ["log_probs", "labels"]),
    Loss { name: "negative_log_likelihood_by_weights", rows: None, mean: by_weights },
    of!(kl_from_probs, kl_from_probs_rows, ["student_log_probs", "target_probs"]),
    of!(binary_cross_entropy_of_probs, binary_cross_entropy_of_probs_rows, ["predictions", "targets"]),
    configured!(weighted_binary_cross_entropy, weighted_binary_cross_entropy_rows, ["predictions", "targets"]),
    configured!(focal, focal_rows, ["student_logits", "labels"]),
    configured!(multi_class_margin, multi_class_margin_rows, ["student_logits", "labels"]),
    of!(multi_label_margin, multi_label_margin_rows, ["student_logits", "targets"]),
    of!(soft_margin, soft_margin_rows, ["predictions", "targets"]),
    of!(hinge_embedding, hinge_embedding_rows, ["predictions", "targets"], margin),
    of!(margin_ranking, margin_ranking_rows, ["first", "second", "signs"], margin),
    of!(cosine_embedding, cosine_embedding_rows, ["first", "second", "signs"], margin),
    configured!(triplet_margin, triplet_margin_rows, ["anchor", "positive", "negative"]),
];
