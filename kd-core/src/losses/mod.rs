//! Losses between what a student says or represents and what it should.
//!
//! Every loss is a plain function of tensors and comes in two forms: `*_rows` gives one value per row,
//! the short name is its mean over rows. There are no masks but between positions: callers pass only rows that count.
//! All values are in nats unless said otherwise.
//!
//! | function                                | target                        | source                              |
//! |-----------------------------------------|-------------------------------|-------------------------------------|
//! | [`cross_entropy`]                       | class index                   |                                     |
//! | [`hard_cross_entropy`]                  | smoothed, weighted class index | Szegedy et al. 2016, §7            |
//! | [`soft_cross_entropy`]                  | distribution                  | Hinton et al. 2015, §2              |
//! | [`soft_cross_entropy_from_logits`]      | teacher logits                | Hinton et al. 2015, §2              |
//! | [`binary_cross_entropy`]                | probability of each label     |                                     |
//! | [`binary_cross_entropy_from_logits`]    | teacher logits of each label  | Hinton et al. 2015, §2              |
//! | [`kl_divergence`]                       | teacher logits                | Hinton et al. 2015, §2              |
//! | [`reverse_kl_divergence`]               | teacher logits                | Gu et al. 2024 (MiniLLM), §2.1      |
//! | [`jensen_shannon_divergence`]           | teacher logits                | Lin 1991                            |
//! | [`weighted_kl_divergence`]              | several teachers' logits, weights | Yuan et al. 2021                 |
//! | [`kl_from_log_probs`]                   | log of a distribution         | e.g. a CRF's marginals              |
//! | [`logit_mse`], [`centred_logit_mse`]    | teacher logits                | Ba & Caruana 2014, §2               |
//! | [`probability_mse`]                     | teacher logits                | Brier 1950                          |
//! | [`cosine_distance`]                     | teacher logits                | Sanh et al. 2019, §2, there of hidden states |
//! | [`decoupled_divergence`]                | teacher logits, class index   | Zhao et al. 2022 (DKD)              |
//! | [`row_correlation`], [`column_correlation`], [`correlation`] | teacher logits | Huang et al. 2022 (DIST)    |
//! | [`standardise`], before any of them     |                               | Sun et al. 2024                     |
//! | [`path_cross_entropy`]                  | a CRF's best paths            | Wang et al. 2020                    |
//!
//! Against targets that are no classes, and with margins instead of probabilities:
//!
//! | function                                | target                        | source                              |
//! |-----------------------------------------|-------------------------------|-------------------------------------|
//! | [`logit_mse`], as above                 | numbers                       |                                     |
//! | [`absolute_error`], [`smooth_absolute_error`] | numbers                 | Girshick 2015, Eq. 3                |
//! | [`poisson`]                             | counts                        |                                     |
//! | [`negative_log_likelihood`]             | class index; of log-probabilities |                                 |
//! | [`kl_from_probs`]                       | distribution; of log-probabilities |                                |
//! | [`binary_cross_entropy_of_probs`]       | each label; of probabilities  |                                     |
//! | [`weighted_binary_cross_entropy`]       | each label, with factors      |                                     |
//! | [`focal`]                               | class index                   | Lin et al. 2017, Eq. 5              |
//! | [`multi_class_margin`]                  | class index                   | Crammer and Singer 2001             |
//! | [`multi_label_margin`]                  | a set of classes              |                                     |
//! | [`soft_margin`], [`hinge_embedding`]    | signs                         |                                     |
//! | [`margin_ranking`], [`cosine_embedding`] | signs of pairs of outputs    |                                     |
//! | [`triplet_margin`]                      | none: three outputs           | Balntas et al. 2016                 |
//!
//! Between representations of student and teacher:
//!
//! | function                   | compares                           | row     | source                     |
//! |----------------------------|------------------------------------|---------|----------------------------|
//! | [`hidden_mse`]             | states, with a [`Projection`]      | row     | Romero et al. 2015         |
//! | [`hidden_cosine`]          | directions of states               | row     | Sanh et al. 2019           |
//! | [`normalised_distance`]    | normalised states                  | row     | Sun et al. 2019, eq. 7     |
//! | [`first_token_distance`]   | the same over mapped layers        | example | Sun et al. 2019, eq. 7     |
//! | [`attention_mse`]          | attention scores or probabilities  | example | Jiao et al. 2020, eq. 7    |
//! | [`attention_kl`]           | attention probabilities            | example | Sun et al. 2020            |
//! | [`relation_kl`]            | a relation between positions       | example | Wang et al. 2020           |
//! | [`self_relations_kl`]      | those of queries, keys and values  | example | Wang et al. 2021           |
//! | [`flow_mse`]               | change from layer to layer         | example | Yim et al. 2017            |
//! | [`neuron_selectivity`]     | what the neurons respond to        | example | Huang and Wang 2017        |
//! | [`relational_distance`], [`relational_angle`] | the shape of a batch | none | Park et al. 2019          |
//! | [`similarity_preserving`]  | the similarities in a batch        | none    | Tung and Mori 2019         |
//! | [`noise_contrast`], [`Contrastive`] | examples with a [`MemoryBank`] | row | Tian et al. 2020          |
//! | [`LayerByLayer`]           | embeddings, layers, attention, logits | none | Jiao et al. 2020          |
//!
//! A [`LayerMap`] says which layers. How padding is dealt with stands [below](#representations).
//!
//! Gradients flow into the student's argument only: what the teacher said is detached here. Logits must be finite;
//! of any size: logarithms of probabilities come from logits, never from probabilities that have underflowed.
//! Losses composed of Candle's operations compute half precision in f32 and return the student's dtype.
//!
//! # Sequences
//!
//! A row is what gets a label. In tagging that is a word, so every loss above is a loss *on tokens* as it stands: the words of
//! all sentences are the rows, `(rows, classes)`, each counts the same, and a long sentence counts more than a short one.
//! What looks at whole sentences takes the rows of each, `lengths`: the CRF's
//! [`negative_log_likelihood`](crate::ops::crf::negative_log_likelihood) against labels, its
//! [`log_marginals`](crate::ops::crf::log_marginals) through [`kl_from_log_probs`] against a teacher's, and
//! [`path_cross_entropy`] against a teacher's best paths. All divide by rows, so their weights mean the same.
//!
//! # Representations
//!
//! Hidden states of a padded batch are `(batch, len, width)`. For losses of rows,
//! [`Sequence::token_rows`](crate::batch::Sequence::token_rows) finds the tokens once per batch and
//! [`Rows::select`](crate::batch::Rows::select) takes them out of any layer: `(rows, width)`, without a mask.
//!
//! Between positions there is padding on both sides, as queries and as keys, and no selection of rows takes both out. So
//! [`attention_mse`], [`attention_kl`], [`relation_kl`], [`self_relations_kl`], [`flow_mse`] and [`neuron_selectivity`] take the
//! sequence's mask, which stays on its device. Their *row* is an example: its value is a mean over its own tokens, as
//! in the papers' formulas for one sequence, and the scalar is the mean over examples. Neither padding nor what else is in
//! the batch changes an example's value. An example without a token has the value 0.
//!
//! [`relational_distance`], [`relational_angle`] and [`similarity_preserving`] are relations between the rows of a batch and no
//! sums over rows: they have no `*_rows`. Zero vectors and rows that coincide give numbers, and no gradient, anywhere.
//!
//! # Reference values
//!
//! `conformance/` in this crate has cases of every loss as JSON, with PyTorch's values and gradients.

mod absolute;
mod attention;
mod binary;
mod contrastive;
mod correlation;
mod cosine;
mod cross_entropy;
mod decoupled;
mod divergence;
mod flow;
mod focal;
mod geometry;
mod hidden;
mod layer_by_layer;
mod layer_map;
mod margin;
mod neuron_selectivity;
mod poisson;
mod preconditions;
mod ranking;
mod relations;
mod sequences;
mod squared;
mod standardise;
mod temperature;
mod token_mask;
mod unit;
mod vectors;
mod weighted;

pub use absolute::{absolute_error, absolute_error_rows, smooth_absolute_error, smooth_absolute_error_rows};
pub use attention::{attention_kl, attention_kl_rows, attention_mse, attention_mse_rows};
pub use binary::{
    BinaryWeights, binary_cross_entropy, binary_cross_entropy_from_logits, binary_cross_entropy_from_logits_rows,
    binary_cross_entropy_of_probs, binary_cross_entropy_of_probs_rows, binary_cross_entropy_rows,
    weighted_binary_cross_entropy, weighted_binary_cross_entropy_rows,
};
pub use contrastive::{Contrastive, ContrastiveConfig, MemoryBank, noise_contrast, noise_contrast_rows};
pub use correlation::{Correlation, column_correlation, correlation, row_correlation, row_correlation_rows};
pub use cosine::{cosine_distance, cosine_distance_rows};
pub use cross_entropy::{
    Divisor, HardCrossEntropy, cross_entropy, cross_entropy_rows, hard_cross_entropy, hard_cross_entropy_rows,
    negative_log_likelihood, negative_log_likelihood_rows, soft_cross_entropy, soft_cross_entropy_from_logits,
    soft_cross_entropy_from_logits_rows, soft_cross_entropy_rows,
};
pub use decoupled::{Decoupled, decoupled_divergence, decoupled_divergence_rows};
pub use divergence::{
    distillation, jensen_shannon_divergence, jensen_shannon_divergence_rows, kl_divergence, kl_divergence_rows,
    kl_from_log_probs, kl_from_log_probs_rows, kl_from_probs, kl_from_probs_rows, reverse_kl_divergence,
    reverse_kl_divergence_rows,
};
pub use flow::{flow_mse, flow_mse_rows};
pub use focal::{Focal, focal, focal_rows};
pub use geometry::{relational_angle, relational_distance, similarity_preserving};
pub use hidden::{
    Projection, first_token_distance, first_token_distance_rows, hidden_cosine, hidden_cosine_rows, hidden_mse,
    hidden_mse_rows, normalised_distance, normalised_distance_rows,
};
pub use layer_by_layer::{LayerByLayer, LayerLosses};
pub use layer_map::LayerMap;
pub use margin::{
    MultiClassMargin, hinge_embedding, hinge_embedding_rows, multi_class_margin, multi_class_margin_rows,
    multi_label_margin, multi_label_margin_rows, soft_margin, soft_margin_rows,
};
pub use neuron_selectivity::{SelectivityKernel, neuron_selectivity, neuron_selectivity_rows};
pub use poisson::{Poisson, poisson, poisson_rows};
pub use ranking::{
    TripletMargin, cosine_embedding, cosine_embedding_rows, margin_ranking, margin_ranking_rows, triplet_margin,
    triplet_margin_rows,
};
pub use relations::{relation_kl, relation_kl_rows, self_relations_kl, self_relations_kl_rows};
pub use sequences::{PathWeights, path_cross_entropy, path_cross_entropy_sequences};
pub use squared::{
    centred_logit_mse, centred_logit_mse_rows, logit_mse, logit_mse_rows, probability_mse, probability_mse_rows,
};
pub use standardise::standardise;
pub use temperature::Temperature;
pub use weighted::{weighted_kl_divergence, weighted_kl_divergence_rows};

use candle_core::{Result, Tensor, bail};

fn mean(rows: &Tensor) -> Result<Tensor> {
    if rows.elem_count() == 0 {
        bail!("a mean over no rows");
    }
    rows.mean_all()
}

#[cfg(test)]
mod tests;
