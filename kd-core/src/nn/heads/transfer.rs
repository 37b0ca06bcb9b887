//! From one stage of training to the next: the body as it is, heads where they fit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use candle_core::{Result, Tensor, Var, bail};
use serde::Serialize;

use super::{HeadPerTeacher, PREFIX};
use crate::variables::Variables;

/// What [`HeadPerTeacher::start_from`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Transfer {
    /// The body's variables, all of which were set.
    pub body: Vec<String>,
    /// Heads that were set, each with the head that it was: `heads.qnli.teacher.0` from `heads.pretraining.teacher.0`.
    pub kept: Vec<(String, String)>,
    /// Heads that stay as their seed drew them.
    pub new: Vec<NewHead>,
    /// Heads of the other student that went nowhere.
    pub unused: Vec<String>,
}

/// A head that was not set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewHead {
    /// Its name, `heads.rte.gold`.
    pub head: String,
    /// Why it stays as it was.
    pub reason: String,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "body: {} variables set", self.body.len())?;
        for (head, from) in &self.kept {
            writeln!(f, "kept: {head} from {from}")?;
        }
        for NewHead { head, reason } in &self.new {
            writeln!(f, "new: {head} ({reason})")?;
        }
        for head in &self.unused {
            writeln!(f, "unused: {head}")?;
        }
        Ok(())
    }
}

impl<B> HeadPerTeacher<B> {
    /// Sets `variables`, which this student is made of, from the `tensors` of another with the same body: the last stage of
    /// training.
    ///
    /// Every variable of the body is set exactly. Heads are set where `keep` has a pair `(set there, set here)`, gold from gold
    /// and teacher `idx` from teacher `idx`, if the other student has that head with as many classes and a bias where there is
    /// one here. All other heads stay as they are, as their seed drew them (Yang et al. 2020 do not say what becomes of the
    /// heads; a head is tied to the scale of one teacher's logits).
    ///
    /// # Errors
    /// If a variable of the body has no tensor or one of another shape, a tensor that is no head's belongs to no variable, or
    /// `keep` names a set that is not there, or a set of this student twice; the message names all of them. Nothing is
    /// changed then.
    pub fn start_from(
        &self,
        variables: &Variables,
        tensors: &BTreeMap<String, Tensor>,
        keep: &[(&str, &str)],
    ) -> Result<Transfer> {
        let is_head = |name: &str| name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('.'));
        let named: BTreeMap<String, Var> = variables.all().into_iter().collect();
        let there: BTreeSet<&str> =
            tensors.keys().filter(|name| is_head(name)).filter_map(|name| head_of(name)).collect();
        let mut wrong = Vec::new();
        let mut pairs: Vec<(&Var, &Tensor)> = Vec::new();
        let mut transfer = Transfer::default();

        for (name, var) in named.iter().filter(|(name, _)| !is_head(name)) {
            match tensors.get(name) {
                None => wrong.push(format!("`{name}` is missing, expected shape {:?}", var.dims())),
                Some(tensor) if tensor.dims() != var.dims() => {
                    wrong.push(format!("`{name}` has shape {:?}, expected {:?}", tensor.dims(), var.dims()));
                }
                Some(tensor) => {
                    pairs.push((var, tensor));
                    transfer.body.push(name.clone());
                }
            }
        }
        let unknown = tensors.keys().filter(|name| !is_head(name) && !named.contains_key(*name));
        wrong.extend(unknown.map(|name| format!("`{name}` belongs to no variable")));
        for (idx, (from, to)) in keep.iter().enumerate() {
            if let Some((other, _)) = keep[..idx].iter().find(|(_, other)| other == to) {
                wrong.push(format!("heads are to be kept for `{to}` from `{from}` and from `{other}`"));
            }
            let start = format!("{PREFIX}.{from}.");
            if !there.iter().any(|head| head.starts_with(&start)) {
                wrong.push(format!("heads of `{from}` are to be kept, and there are none"));
            }
            if !self.sets.iter().any(|set| set.name == *to) {
                wrong.push(format!("heads are to be kept for `{to}`, and the student has none of that name"));
            }
        }

        let mut used = BTreeSet::new();
        for set in &self.sets {
            let from = keep.iter().find(|(_, to)| *to == set.name).map(|(from, _)| *from);
            for head in set.names() {
                let source = match from {
                    None => Err("not to be kept".to_string()),
                    Some(from) => {
                        let role = &head[PREFIX.len() + 1 + set.name.len() + 1..];
                        let source = format!("{PREFIX}.{from}.{role}");
                        fitting(&named, tensors, &head, &source).map(|found| (found, source))
                    }
                };
                match source {
                    Ok((found, source)) => {
                        pairs.extend(found);
                        used.insert(source.clone());
                        transfer.kept.push((head, source));
                    }
                    Err(reason) => transfer.new.push(NewHead { head, reason }),
                }
            }
        }
        if !wrong.is_empty() {
            bail!("the tensors do not fit the student: {}", wrong.join("; "));
        }
        transfer.unused = there.into_iter().filter(|head| !used.contains(*head)).map(str::to_string).collect();
        let converted = |(var, tensor): (&Var, &Tensor)| {
            Ok::<_, candle_core::Error>((var.clone(), tensor.to_dtype(var.dtype())?.to_device(var.device())?))
        };
        for (var, tensor) in pairs.into_iter().map(converted).collect::<Result<Vec<_>>>()? {
            var.set(&tensor)?;
        }
        Ok(transfer)
    }
}

/// `heads.a.gold` of `heads.a.gold.weight`.
fn head_of(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(head, _)| head)
}

/// The variables of `head` with the tensors of `source`, or why there are none.
fn fitting<'a>(
    named: &'a BTreeMap<String, Var>,
    tensors: &'a BTreeMap<String, Tensor>,
    head: &str,
    source: &str,
) -> std::result::Result<Vec<(&'a Var, &'a Tensor)>, String> {
    let mut found = Vec::new();
    for part in ["weight", "bias"] {
        match (named.get(&format!("{head}.{part}")), tensors.get(&format!("{source}.{part}"))) {
            (None, None) => {}
            (Some(var), Some(tensor)) if var.dims() == tensor.dims() => found.push((var, tensor)),
            (Some(var), Some(tensor)) => {
                return Err(format!("`{source}` has {} classes, expected {}", tensor.dims()[0], var.dims()[0]));
            }
            (Some(_), None) if part == "weight" => return Err(format!("there is no `{source}`")),
            (Some(_), None) => return Err(format!("`{source}` has no bias")),
            (None, Some(_)) => return Err(format!("`{source}` has a bias")),
        }
    }
    Ok(found)
}
