//! The types of losses: what they ask for, their settings, and their values.

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::losses::{
    self, BinaryWeights, Divisor, Focal, HardCrossEntropy, MultiClassMargin, Poisson, TripletMargin,
};
use kd_core::model::Output;
use kd_core::ops::crf;
use serde::Deserialize;

use super::conf::{Conf, Reduction};
use super::wrong;

/// All types.
pub(super) const NAMES: [&str; 20] = [
    "CrossEntropyLoss",
    "NLLLoss",
    "NLLLoss2d",
    "FocalLoss",
    "MultiMarginLoss",
    "CRFLoss",
    "MSELoss",
    "L1Loss",
    "SmoothL1Loss",
    "PoissonNLLLoss",
    "KLDivLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "MultiLabelSoftMarginLoss",
    "MultiLabelMarginLoss",
    "SoftMarginLoss",
    "HingeEmbeddingLoss",
    "MarginRankingLoss",
    "CosineEmbeddingLoss",
    "TripletMarginLoss",
];

/// What kind of column a loss reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A class of each row.
    Class,
    /// Numbers.
    Numbers,
    /// No column.
    Nothing,
}

/// The inputs of a loss.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) outputs: usize,
    pub(super) target: Wanted,
}

impl Asked {
    pub(super) fn of(name: &str) -> Option<Self> {
        let (outputs, target) = match name {
            "CrossEntropyLoss" | "NLLLoss" | "NLLLoss2d" | "FocalLoss" | "MultiMarginLoss" | "CRFLoss" => {
                (1, Wanted::Class)
            }
            "MarginRankingLoss" | "CosineEmbeddingLoss" => (2, Wanted::Numbers),
            "TripletMarginLoss" => (3, Wanted::Nothing),
            _ if NAMES.contains(&name) => (1, Wanted::Numbers),
            _ => return None,
        };
        Some(Self { outputs, target })
    }
}

/// A loss and its settings.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    function: Function,
    reduction: Reduction,
}

/// What `CrossEntropyLoss` and `NLLLoss` say of classes.
#[derive(Debug, Clone)]
struct OfClass {
    weight: Option<Vec<f64>>,
    ignored: Option<usize>,
    label_smoothing: f64,
}

#[derive(Debug, Clone)]
enum Function {
    CrossEntropy(OfClass),
    NegativeLogLikelihood(OfClass),
    Focal(Focal),
    MultiClassMargin(MultiClassMargin),
    Crf,
    Squared,
    Absolute,
    Smooth(f64),
    Poisson(Poisson),
    Divergence {
        log_target: bool,
    },
    BinaryOfProbs,
    Binary(BinaryWeights),
    /// As `Binary`; but a sum is one of means over classes, as in PyTorch.
    MultiLabel(BinaryWeights),
    MultiLabelMargin,
    SoftMargin,
    HingeEmbedding(f64),
    MarginRanking(f64),
    CosineEmbedding(f64),
    TripletMargin(TripletMargin),
}

/// `alpha` of `FocalLoss`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or one for each class in a list")]
enum Alpha {
    One(f64),
    Each(Vec<f64>),
}

impl Kind {
    /// The loss `name` of `conf`, between an output of `classes` columns, where they are known, and its target; and a warning
    /// of its `ignore_index`.
    pub(super) fn parse(
        name: &str,
        mut conf: Conf,
        classes: Option<usize>,
        is_tagging: bool,
    ) -> crate::Result<(Self, Option<String>)> {
        let default = if name == "CRFLoss" { Reduction::Sum } else { Reduction::Mean };
        let reduction = conf.reduction(default)?;
        if reduction == Reduction::BatchMean && name != "KLDivLoss" {
            return Err(wrong(&conf.at("reduction"), "expected mean or sum, found batchmean".to_string()));
        }
        let mut warning = None;
        let function = match name {
            "CrossEntropyLoss" | "NLLLoss" | "NLLLoss2d" => {
                let weight = conf.take("weight")?;
                let ignore_index: Option<i64> = conf.take("ignore_index")?;
                let label_smoothing = if name == "CrossEntropyLoss" { conf.or("label_smoothing", 0.0)? } else { 0.0 };
                let ignored = ignored(ignore_index, classes, is_tagging);
                let (ignored, message) = ignored.map_err(|message| wrong(&conf.at("ignore_index"), message))?;
                warning = message;
                if ignored.is_some() && label_smoothing != 0.0 {
                    let message = "expected 0 beside an ignore_index of a class, found more".to_string();
                    return Err(wrong(&conf.at("label_smoothing"), message));
                }
                let of_class = OfClass { weight, ignored, label_smoothing };
                match name {
                    "CrossEntropyLoss" => Function::CrossEntropy(of_class),
                    _ => Function::NegativeLogLikelihood(of_class),
                }
            }
            "FocalLoss" => {
                let gamma = conf.or("gamma", 0.0)?;
                let class_weights = match (conf.or("alpha", Alpha::One(0.5))?, classes) {
                    (Alpha::Each(weights), _) => weights,
                    (Alpha::One(alpha), Some(2)) => vec![alpha, 1.0 - alpha],
                    (Alpha::One(alpha), _) => {
                        let classes =
                            classes.map_or("each class".to_string(), |classes| format!("each of {classes} classes"));
                        let message = format!("expected a list with a factor of {classes}, found {alpha}");
                        return Err(wrong(&conf.at("alpha"), message));
                    }
                };
                Function::Focal(Focal { gamma, class_weights: Some(class_weights) })
            }
            "MultiMarginLoss" => {
                let squared = match conf.or("p", 1u32)? {
                    1 => false,
                    2 => true,
                    p => return Err(wrong(&conf.at("p"), format!("expected 1 or 2, found {p}"))),
                };
                let (margin, class_weights) = (conf.or("margin", 1.0)?, conf.take("weight")?);
                Function::MultiClassMargin(MultiClassMargin { margin, squared, class_weights })
            }
            "CRFLoss" => Function::Crf,
            "MSELoss" => Function::Squared,
            "L1Loss" => Function::Absolute,
            "SmoothL1Loss" => Function::Smooth(conf.or("beta", 1.0)?),
            "PoissonNLLLoss" => {
                let usual = Poisson::default();
                Function::Poisson(Poisson {
                    log_input: conf.or("log_input", usual.log_input)?,
                    full: conf.or("full", usual.full)?,
                    epsilon: conf.or("eps", usual.epsilon)?,
                })
            }
            "KLDivLoss" => Function::Divergence { log_target: conf.or("log_target", false)? },
            "BCELoss" => Function::BinaryOfProbs,
            "BCEWithLogitsLoss" => {
                let (class_weights, positive_weights) = (conf.take("weight")?, conf.take("pos_weight")?);
                Function::Binary(BinaryWeights { class_weights, positive_weights })
            }
            "MultiLabelSoftMarginLoss" => {
                Function::MultiLabel(BinaryWeights { class_weights: conf.take("weight")?, positive_weights: None })
            }
            "MultiLabelMarginLoss" => Function::MultiLabelMargin,
            "SoftMarginLoss" => Function::SoftMargin,
            "HingeEmbeddingLoss" => Function::HingeEmbedding(conf.or("margin", 1.0)?),
            "MarginRankingLoss" => Function::MarginRanking(conf.or("margin", 0.0)?),
            "CosineEmbeddingLoss" => Function::CosineEmbedding(conf.or("margin", 0.0)?),
            _ => {
                let usual = TripletMargin::default();
                Function::TripletMargin(TripletMargin {
                    margin: conf.or("margin", usual.margin)?,
                    p: conf.or("p", usual.p)?,
                    eps: conf.or("eps", usual.eps)?,
                    swap: conf.or("swap", usual.swap)?,
                })
            }
        };
        conf.finish()?;
        let kind = Self { function, reduction };
        kind.try_out(classes.unwrap_or(2)).map_err(|error| wrong(conf.path(), error.to_string()))?;
        Ok((kind, warning))
    }

    /// Checks the settings by two rows: the losses themselves know their ranges.
    fn try_out(&self, classes: usize) -> Result<()> {
        let zeros = Tensor::zeros((2, classes), DType::F64, &Device::Cpu)?;
        let target = match &self.function {
            Function::CrossEntropy(_)
            | Function::NegativeLogLikelihood(_)
            | Function::Focal(_)
            | Function::MultiClassMargin(_) => Tensor::new(&[0u32, classes.saturating_sub(1) as u32], &Device::Cpu)?,
            Function::MarginRanking(_) | Function::CosineEmbedding(_) => Tensor::ones(2, DType::F64, &Device::Cpu)?,
            Function::Crf => return Ok(()),
            _ => zeros.clone(),
        };
        self.of_heads(&[&zeros; 3], Some(&target)).map(drop)
    }

    /// The loss of heads `(rows, ..)` and a target, a scalar.
    pub(super) fn value(
        &self,
        heads: &[&Tensor],
        target: Option<&Tensor>,
        output: &Output,
        batch: &Batch,
    ) -> Result<Tensor> {
        if !matches!(self.function, Function::Crf) {
            return self.of_heads(heads, target);
        }
        let (Some(transitions), Some(labels), [logits, ..]) = (&output.transitions, target, heads) else {
            bail!("expected the output of a CRF, found one without transitions");
        };
        let lengths = batch.tokens.rows_per_example()?;
        match self.reduction {
            Reduction::Sum => crf::negative_log_likelihood_sequences(logits, transitions, labels, &lengths)?.sum_all(),
            _ => crf::negative_log_likelihood(logits, transitions, labels, &lengths),
        }
    }

    fn of_heads(&self, heads: &[&Tensor], target: Option<&Tensor>) -> Result<Tensor> {
        let head = heads[0];
        let (_, columns) = head.dims2()?;
        let target = || target.ok_or_else(|| candle_core::Error::msg("expected a target, found none"));
        let numbers = || columns_of(target()?, head);
        let signs = || target()?.to_dtype(head.dtype())?.to_device(head.device())?.reshape(head.dim(0)?);
        // Values of rows that are means over columns; those of classes and of vectors have none.
        let (rows, columns) = match &self.function {
            Function::CrossEntropy(of_class) => {
                let config = of_class.config(columns, self.reduction);
                match self.reduction {
                    Reduction::Sum => (losses::hard_cross_entropy_rows(head, target()?, &config)?, 1),
                    _ if counts_nothing(&config, target()?)? => {
                        return losses::hard_cross_entropy_rows(head, target()?, &config)?.sum_all();
                    }
                    _ => return losses::hard_cross_entropy(head, target()?, &config),
                }
            }
            Function::NegativeLogLikelihood(of_class) => {
                let config = of_class.config(columns, self.reduction);
                match self.reduction {
                    Reduction::Sum => (losses::negative_log_likelihood_rows(head, target()?, &config)?, 1),
                    _ if counts_nothing(&config, target()?)? => {
                        return losses::negative_log_likelihood_rows(head, target()?, &config)?.sum_all();
                    }
                    _ => return losses::negative_log_likelihood(head, target()?, &config),
                }
            }
            Function::Focal(config) => (losses::focal_rows(head, target()?, config)?, 1),
            Function::MultiClassMargin(config) => (losses::multi_class_margin_rows(head, target()?, config)?, 1),
            Function::MultiLabelMargin => (losses::multi_label_margin_rows(head, &numbers()?)?, 1),
            Function::MarginRanking(margin) => {
                (losses::margin_ranking_rows(head, heads[1], &signs()?, *margin)?, columns)
            }
            Function::CosineEmbedding(margin) => {
                (losses::cosine_embedding_rows(head, heads[1], &signs()?, *margin)?, 1)
            }
            Function::TripletMargin(config) => (losses::triplet_margin_rows(head, heads[1], heads[2], config)?, 1),
            Function::Squared => (losses::logit_mse_rows(head, &numbers()?)?, columns),
            Function::Absolute => (losses::absolute_error_rows(head, &numbers()?)?, columns),
            Function::Smooth(beta) => (losses::smooth_absolute_error_rows(head, &numbers()?, *beta)?, columns),
            Function::Poisson(config) => (losses::poisson_rows(head, &numbers()?, config)?, columns),
            Function::Divergence { log_target } => {
                let sums = match log_target {
                    true => losses::kl_from_log_probs_rows(head, &numbers()?)?,
                    false => losses::kl_from_probs_rows(head, &numbers()?)?,
                };
                match self.reduction {
                    Reduction::BatchMean => return sums.mean_all(),
                    _ => ((sums / columns as f64)?, columns),
                }
            }
            Function::BinaryOfProbs => (losses::binary_cross_entropy_of_probs_rows(head, &numbers()?)?, columns),
            Function::Binary(weights) => {
                (losses::weighted_binary_cross_entropy_rows(head, &numbers()?, weights)?, columns)
            }
            Function::MultiLabel(weights) => {
                (losses::weighted_binary_cross_entropy_rows(head, &numbers()?, weights)?, 1)
            }
            Function::SoftMargin => (losses::soft_margin_rows(head, &numbers()?)?, columns),
            Function::HingeEmbedding(margin) => (losses::hinge_embedding_rows(head, &numbers()?, *margin)?, columns),
            Function::Crf => bail!("expected the transitions of a CRF"),
        };
        if rows.elem_count() == 0 {
            bail!("expected at least one row, found none");
        }
        match self.reduction {
            Reduction::Sum => rows.sum_all()? * columns as f64,
            _ => rows.mean_all(),
        }
    }
}

impl OfClass {
    /// Weights in which an ignored class has none, and a mean by weights, as PyTorch's.
    fn config(&self, classes: usize, reduction: Reduction) -> HardCrossEntropy {
        let mut class_weights = self.weight.clone();
        if let Some(ignored) = self.ignored {
            let weights = class_weights.get_or_insert_with(|| vec![1.0; classes]);
            if let Some(weight) = weights.get_mut(ignored) {
                *weight = 0.0;
            }
        }
        let divisor = if reduction == Reduction::Sum { Divisor::Rows } else { Divisor::Weights };
        HardCrossEntropy { label_smoothing: self.label_smoothing, class_weights, divisor }
    }
}

/// Whether there are labels and all have weight 0, such as a batch of the class that `ignore_index` leaves out: the mean of
/// nothing, where PyTorch says NaN, is 0 here.
fn counts_nothing(config: &HardCrossEntropy, labels: &Tensor) -> Result<bool> {
    let Some(weights) = &config.class_weights else { return Ok(false) };
    let labels: Vec<u32> = labels.to_vec1()?;
    let weight = |label: &u32| weights.get(*label as usize).copied().unwrap_or(1.0);
    Ok(!labels.is_empty() && labels.iter().all(|label| weight(label) == 0.0))
}

/// The class that `ignore_index` leaves out, and a warning where it has none.
fn ignored(
    ignore_index: Option<i64>,
    classes: Option<usize>,
    is_tagging: bool,
) -> std::result::Result<(Option<usize>, Option<String>), String> {
    let Some(index) = ignore_index else { return Ok((None, None)) };
    if is_tagging {
        return match index {
            ..0 => Ok((None, None)),
            0 => Ok((
                None,
                Some("0 is padding in a list of tags, and no row is padding: nothing is ignored".to_string()),
            )),
            _ => Err(format!("expected 0, which is padding in a list of tags, found {index}")),
        };
    }
    match (usize::try_from(index), classes) {
        (Err(_), _) => Ok((None, None)), // no class is negative
        (Ok(index), Some(classes)) if index < classes => Ok((Some(index), None)),
        (Ok(index), classes) => {
            let of = classes.map_or("known number of classes".to_string(), |classes| format!("{classes} classes"));
            Ok((None, Some(format!("there is no class {index} of {of}: nothing is ignored"))))
        }
    }
}

/// The numbers of a target in the shape and dtype of `head`, `(rows, columns)`; `(rows,)` is one column.
fn columns_of(target: &Tensor, head: &Tensor) -> Result<Tensor> {
    let target = target.to_device(head.device())?.to_dtype(head.dtype())?;
    let target = if target.rank() == 1 { target.unsqueeze(1)? } else { target };
    if target.dims() != head.dims() {
        bail!("expected an output of the target's shape (rows, columns) {:?}, found {:?}", target.dims(), head.dims());
    }
    Ok(target)
}
