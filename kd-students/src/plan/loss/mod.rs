//! The `loss` of a file: which output is compared with which column, and how.
//!
//! ```json
//! {"losses": [{"type": "CrossEntropyLoss", "conf": {"weight": [0.1, 0.9]}, "inputs": ["output", "label"]},
//!             {"type": "MSELoss", "conf": {}, "inputs": ["output2", "score"]}],
//!  "multi_loss_op": "weighted_sum", "weights": [1.0, 0.5]}
//! ```
//!
//! The types are PyTorch's under their names, with `CRFLoss` and `FocalLoss`; so are the keys of a `conf`: `size_average` or
//! `reduction`, `weight`, and what else a type has ([`kd_core::losses`] has the formulas). `inputs` are output layers, then the
//! target column.
//!
//! | type | outputs | target | keys besides the reduction |
//! |---|---|---|---|
//! | `CrossEntropyLoss` | logits | class | `weight`, `ignore_index`, `label_smoothing` |
//! | `NLLLoss`, `NLLLoss2d` | log-probabilities | class | `weight`, `ignore_index` |
//! | `FocalLoss` | logits | class | `gamma` 0, `alpha` 0.5: α and 1 - α of two classes, or a list |
//! | `MultiMarginLoss` | logits | class | `p` 1, `margin` 1, `weight` |
//! | `CRFLoss` | a CRF | class of each word | none; a sum over the batch unless told otherwise |
//! | `MSELoss`, `L1Loss` | numbers | numbers | |
//! | `SmoothL1Loss` | numbers | numbers | `beta` 1 |
//! | `PoissonNLLLoss` | numbers | counts | `log_input` true, `full` false, `eps` 1e-8 |
//! | `KLDivLoss` | log-probabilities | probabilities | `log_target` false; `reduction` may be `batchmean` |
//! | `BCELoss` | probabilities | probabilities | |
//! | `BCEWithLogitsLoss` | logits | probabilities | `weight`, `pos_weight` |
//! | `MultiLabelSoftMarginLoss` | logits | 0 or 1 | `weight` |
//! | `MultiLabelMarginLoss` | logits | 0 or 1 | |
//! | `SoftMarginLoss` | logits | 1 or -1 | |
//! | `HingeEmbeddingLoss` | distances | 1 or -1 | `margin` 1 |
//! | `MarginRankingLoss` | two | 1 or -1 | `margin` 0 |
//! | `CosineEmbeddingLoss` | two | 1 or -1 | `margin` 0 |
//! | `TripletMarginLoss` | three | none | `margin` 1, `p` 2, `eps` 1e-6, `swap` false |
//!
//! A mean divides by rows and columns as PyTorch's, that of weighted classes by the weights of the labels. Rows are words in
//! tagging: padding is none of them, so an `ignore_index` of 0, which in the format's tag lists is padding, has nothing to
//! ignore there.

mod conf;
mod kind;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::model::Output;
use kd_core::objective::{Loss, Objective};
use serde_json::Value as Json;

use self::conf::Conf;
use self::kind::{Asked, Kind};
use super::{Inputs, Plan, Warning};
use crate::blocks::{Dim, Shape};
use crate::error::Error;

/// Where a batch has a target column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TargetColumn {
    /// [`Batch::labels`].
    Labels,
    /// This one of [`Batch::targets`].
    At(usize),
}

/// Where a batch has the target called `name`.
fn column(inputs: &Inputs, name: &str) -> Option<TargetColumn> {
    let idx = inputs.targets.iter().position(|target| target.name == name)?;
    let labels = inputs.targets.iter().position(|target| target.classes.is_some());
    Some(if labels == Some(idx) { TargetColumn::Labels } else { TargetColumn::At(idx) })
}

/// One of the losses.
#[derive(Debug, Clone)]
struct Term {
    /// `TYPE(output, target)`.
    name: String,
    weight: f64,
    kind: Kind,
    /// Which heads it reads.
    heads: Vec<usize>,
    target: Option<TargetColumn>,
}

/// The loss of a network: a weighted sum of losses between its outputs and columns of the data.
///
/// As an [`Objective`] it reads the first target of classes from [`Batch::labels`] and the others from [`Batch::targets`], which
/// has all targets in the order of [`Inputs::targets`] and may be empty where that one is all that is read. Its parts are called
/// `TYPE(output, target)`, before their weights.
///
/// ```
/// # use kd_students::plan::{Branch, Inputs, LossPlan, Plan, Target};
/// # let architecture = serde_json::json!([
/// #     {"layer": "Embedding", "conf": {"word": {"cols": ["text"], "dim": 6}}},
/// #     {"layer_id": "mean", "layer": "Pooling", "conf": {"pool_type": "mean"}, "inputs": ["sentence"]},
/// #     {"layer_id": "output", "layer": "Linear", "conf": {"hidden_dim": -1}, "inputs": ["mean"], "output_layer_flag": true},
/// # ]);
/// # let inputs = Inputs {
/// #     branches: vec![Branch { name: "sentence".into(), columns: vec!["text".into()], length: None }],
/// #     targets: vec![Target { name: "label".into(), classes: Some(3) }],
/// #     ..Inputs::default()
/// # };
/// # let plan = Plan::parse(&architecture, &inputs, &[])?;
/// let loss = serde_json::json!({"losses": [{"type": "CrossEntropyLoss", "conf": {}, "inputs": ["output", "label"]}]});
/// assert!(LossPlan::parse(&loss, &plan, &inputs)?.warnings().is_empty());
/// # Ok::<(), kd_students::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LossPlan {
    terms: Vec<Term>,
    warnings: Vec<Warning>,
    json: Json,
}

impl LossPlan {
    /// The losses of `loss` between the outputs of `plan` and the targets of `inputs`.
    ///
    /// # Errors
    /// [`Error::Plan`] with the place: an unknown key, type, output or target, a wrong number of inputs, classes where numbers
    /// are asked for or the reverse, an output of another width than there are classes or of other words than the first text's,
    /// a CRF in another loss than `CRFLoss` or the reverse, a number out of its range, or other than one weight for each of
    /// several losses.
    pub fn parse(loss: &Json, plan: &Plan, inputs: &Inputs) -> crate::Result<Self> {
        let mut section = Conf::new("loss", loss)?;
        let losses: Vec<Json> = section.needed("losses")?;
        let operation: Option<String> = section.take("multi_loss_op")?;
        let weights: Option<Vec<f64>> = section.take("weights")?;
        section.finish()?;
        if let Some(operation) = operation.filter(|operation| operation != "weighted_sum") {
            return Err(wrong("loss.multi_loss_op", format!("expected `weighted_sum`, found `{operation}`")));
        }
        let weights = match weights {
            None if losses.len() == 1 => vec![1.0],
            weights => weights.unwrap_or_default(),
        };
        if losses.is_empty() {
            return Err(wrong("loss.losses", "expected at least one loss, found none".to_string()));
        }
        if weights.len() != losses.len() || weights.iter().any(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let expected = losses.len();
            let message = format!("expected a number of at least 0 for each of {expected} losses, found {weights:?}");
            return Err(wrong("loss.weights", message));
        }
        let mut found = Self { terms: Vec::with_capacity(losses.len()), warnings: Vec::new(), json: loss.clone() };
        for (idx, (item, weight)) in losses.iter().zip(weights).enumerate() {
            let term = found.term(&format!("loss.losses[{idx}]"), item, weight, plan, inputs)?;
            if found.terms.iter().any(|other| other.name == term.name) {
                return Err(wrong(&format!("loss.losses[{idx}]"), format!("{} stands there twice", term.name)));
            }
            found.terms.push(term);
        }
        for (idx, output) in plan.outputs().iter().enumerate() {
            if !found.terms.iter().any(|term| term.heads.contains(&idx)) {
                found.warn("loss.losses", format!("the output `{output}` is in no loss"));
            }
        }
        Ok(found)
    }

    /// The outputs that a loss of more than no weight reads.
    pub fn learned<'a>(&self, plan: &'a Plan) -> Vec<&'a str> {
        let has_loss = |idx: usize| self.terms.iter().any(|term| term.weight > 0.0 && term.heads.contains(&idx));
        let outputs = plan.outputs().iter().enumerate();
        outputs.filter(|(idx, _)| has_loss(*idx)).map(|(_, output)| output.as_str()).collect()
    }

    /// What has no effect, or another than meant.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    fn warn(&mut self, path: &str, message: String) {
        self.warnings.push(Warning { path: path.to_string(), message });
    }

    fn term(&mut self, path: &str, item: &Json, weight: f64, plan: &Plan, all: &Inputs) -> crate::Result<Term> {
        let mut fields = Conf::new(path, item)?;
        let name: String = fields.needed("type")?;
        let conf = fields.take("conf")?.unwrap_or(Json::Object(Default::default()));
        let inputs: Vec<String> = fields.needed("inputs")?;
        fields.finish()?;
        let Some(asked) = Asked::of(&name) else {
            return Err(wrong(
                &format!("{path}.type"),
                format!("unknown loss `{name}`, expected one of {}", kind::NAMES.join(", ")),
            ));
        };
        let target_count = usize::from(asked.target != kind::Wanted::Nothing);
        if inputs.len() != asked.outputs + target_count {
            let message = format!(
                "expected {} for {name}, found {inputs:?}",
                ["an output", "two outputs", "three outputs"][asked.outputs - 1].to_string()
                    + if target_count == 1 { " and a target" } else { "" }
            );
            return Err(wrong(&format!("{path}.inputs"), message));
        }
        let mut heads = Vec::with_capacity(asked.outputs);
        for (at, id) in inputs[..asked.outputs].iter().enumerate() {
            match plan.outputs().iter().position(|output| output == id) {
                Some(head) => heads.push(head),
                None => {
                    let message = format!("expected one of the outputs {:?}, found `{id}`", plan.outputs());
                    return Err(wrong(&format!("{path}.inputs[{at}]"), message));
                }
            }
        }
        for (at, id) in inputs[..asked.outputs].iter().enumerate() {
            let is_crf = plan.layers().iter().any(|layer| layer.id == *id && layer.block == "CRF");
            let message = match (name == "CRFLoss", is_crf) {
                (true, false) => format!("expected a CRF for CRFLoss, found the layer `{id}`"),
                (false, true) => {
                    format!("expected an output that is no CRF for {name}, for only CRFLoss trains `{id}`")
                }
                _ => continue,
            };
            return Err(wrong(&format!("{path}.inputs[{at}]"), message));
        }
        let shape = |id: &String| plan.layers().iter().find(|layer| layer.id == *id).map(|layer| layer.shape.clone());
        let shapes: Vec<Shape> = inputs[..asked.outputs].iter().filter_map(shape).collect();
        let mut target = None;
        if let Some(column) = inputs.get(asked.outputs) {
            let place = format!("{path}.inputs[{}]", asked.outputs);
            target = Some(find_target(&place, &name, column, asked, &shapes[0], all)?);
        }
        let conf = Conf::new(&format!("{path}.conf"), &conf)?;
        let classes = match shapes[0].0.last() {
            Some(Dim::Fixed(width)) if !is_pointer(&shapes[0]) => Some(*width),
            _ => None,
        };
        let is_tagging = asked.target == kind::Wanted::Class && shapes[0].rank() == 3 && classes.is_some();
        if let Some(first) = plan.branches().first().filter(|first| is_tagging && first.shape.0[0] != shapes[0].0[0]) {
            let expected = format!("an output for each of the {} words of `{}`", first.shape.0[0], first.name);
            return Err(wrong(&format!("{path}.inputs[0]"), format!("expected {expected}, found {}", shapes[0])));
        }
        let (kind, warning) = Kind::parse(&name, conf, classes, is_tagging)?;
        if let Some(message) = warning {
            self.warn(&format!("{path}.conf.ignore_index"), message);
        }
        Ok(Term { name: format!("{name}({})", inputs.join(", ")), weight, kind, heads, target })
    }
}

/// `(batch, len, 1)` or `(batch, len)`: logits of a place in the text.
fn is_pointer(shape: &Shape) -> bool {
    matches!(shape.0.as_slice(), [Dim::Varies(_)] | [_, Dim::Fixed(1)])
}

/// Where the target of a loss is, after the check that it is of the asked kind.
fn find_target(
    path: &str,
    loss: &str,
    column: &str,
    asked: Asked,
    output: &Shape,
    inputs: &Inputs,
) -> crate::Result<TargetColumn> {
    let (Some(place), Some(target)) =
        (self::column(inputs, column), inputs.targets.iter().find(|target| target.name == *column))
    else {
        let names: Vec<&str> = inputs.targets.iter().map(|target| target.name.as_str()).collect();
        return Err(wrong(path, format!("expected one of the targets {names:?}, found `{column}`")));
    };
    match (asked.target, target.classes) {
        (kind::Wanted::Class, Some(classes)) => match output.width() {
            Ok(width) if width == classes => Ok(place),
            _ => Err(wrong(
                path,
                format!("expected an output of the {classes} classes of `{column}`, found one of shape {output}"),
            )),
        },
        (kind::Wanted::Class, None) if is_pointer(output) => Ok(place),
        (kind::Wanted::Class, None) => {
            Err(wrong(path, format!("expected a target of classes for {loss}, `{column}` has numbers")))
        }
        (_, None) => Ok(place),
        (_, Some(classes)) => {
            let message = format!("expected a target of numbers for {loss}, `{column}` has {classes} classes");
            Err(wrong(path, message))
        }
    }
}

fn wrong(path: &str, message: String) -> Error {
    Error::Plan { path: path.to_string(), message }
}

impl Term {
    fn value(&self, output: &Output, batch: &Batch) -> Result<Tensor> {
        let mut heads = Vec::with_capacity(self.heads.len());
        for &head in &self.heads {
            match output.heads.get(head) {
                Some(tensor) => heads.push(tensor),
                None => bail!("expected at least {} outputs, found {}", head + 1, output.heads.len()),
            }
        }
        let target = match self.target {
            None => None,
            Some(TargetColumn::Labels) => Some(batch.labels()?),
            Some(TargetColumn::At(idx)) => Some(batch.target(idx)?),
        };
        self.kind.value(&heads, target, output, batch)
    }
}

impl Objective for LossPlan {
    fn loss(&self, output: &Output, batch: &Batch, _: usize) -> Result<Loss> {
        let mut total: Option<Tensor> = None;
        let mut parts = Vec::with_capacity(self.terms.len());
        for term in self.terms.iter().filter(|term| term.weight > 0.0) {
            let value = term.value(output, batch).map_err(|error| error.context(format!("loss {}", term.name)))?;
            let weighted = (&value * term.weight)?;
            total = Some(match total {
                None => weighted,
                Some(total) => (total + weighted)?,
            });
            parts.push((&term.name, value));
        }
        match total {
            Some(total) => Ok(parts.into_iter().fold(Loss::of(total), |loss, (name, part)| loss.with_part(name, part))),
            None => bail!("the weights of all losses are 0"),
        }
    }

    fn describe(&self) -> Json {
        serde_json::json!({ "losses": self.json })
    }
}
