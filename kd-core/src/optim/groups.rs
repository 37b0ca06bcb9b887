//! Groups of variables, by name: other learning rates, other decay, or none at all.
//!
//! ```
//! use kd_core::optim::Group;
//! let groups: Vec<Group> = serde_json::from_str(
//!     r#"[{"pattern": "embeddings.*", "frozen": true}, {"pattern": "encoder.*", "lr_factor": 0.1}]"#,
//! )?;
//! assert!(groups[1].matches("encoder.layer.0.output.dense.weight") && !groups[1].matches("classifier.weight"));
//! assert_eq!(groups[0], Group::frozen("embeddings.*"));
//! # Ok::<(), serde_json::Error>(())
//! ```

use candle_core::Var;
use serde::{Deserialize, Serialize};

use super::{ensure, is_at_least_zero};
use crate::error::{Error, Result};

/// What is different for the variables of a name.
///
/// | field          | default          | purpose                               | range |
/// |----------------|------------------|---------------------------------------|-------|
/// | `pattern`      | –                | which variables                       | `*` stands for any characters, or none; the rest is meant literally |
/// | `lr_factor`    | 1                | times the optimiser's learning rate   | ≥ 0   |
/// | `weight_decay` | the optimiser's  | instead of the optimiser's            | ≥ 0   |
/// | `frozen`       | false            | no update and no state                |       |
///
/// A variable belongs to the first group whose pattern is its whole name; one that belongs to none has the
/// optimiser's settings. Biases and norms (variables of less than two dimensions or whose names end in `bias`) are
/// not decayed in any group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Names of its variables: `encoder.layer.0.*`.
    pub pattern: String,
    /// Factor on the learning rate.
    #[serde(default = "one")]
    pub lr_factor: f64,
    /// Decay per step and unit of learning rate; the optimiser's if there is none.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// Whether its variables stay as they are.
    #[serde(default)]
    pub frozen: bool,
}

fn one() -> f64 {
    1.0
}

impl Group {
    /// Variables with another learning rate.
    pub fn with_lr_factor(pattern: impl Into<String>, lr_factor: f64) -> Self {
        Self { pattern: pattern.into(), lr_factor, weight_decay: None, frozen: false }
    }

    /// Variables that stay as they are.
    pub fn frozen(pattern: impl Into<String>) -> Self {
        Self { frozen: true, ..Self::with_lr_factor(pattern, 1.0) }
    }

    /// Whether the pattern is the whole name.
    pub fn matches(&self, name: &str) -> bool {
        is_match(&self.pattern, name)
    }
}

fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.any(|at| is_match(tail, &rest[at..]))
        }),
    }
}

/// Groups whose learning rate shrinks by `decay` with every layer from the top: `decay` in the last of the `count`
/// layers, `decay²` below it, and `decay^(count + 1)` in the embeddings; heads belong to no group and keep the whole
/// rate.
///
/// `embeddings` and `layers` are prefixes, `embeddings.` and `encoder.layer.` for BERT; layer `n` is
/// `encoder.layer.n.*`. Howard & Ruder 2018, §3.2, "discriminative fine-tuning", with 1 / 2.6 there; Clark et al. 2020
/// fine-tune ELECTRA with 0.8 and 0.9.
///
/// ```
/// let groups = kd_core::optim::layer_wise_decay("embeddings.", "encoder.layer.", 2, 0.5)?;
/// let shown: Vec<_> = groups.iter().map(|group| (group.pattern.as_str(), group.lr_factor)).collect();
/// assert_eq!(shown, [("encoder.layer.1.*", 0.5), ("encoder.layer.0.*", 0.25), ("embeddings.*", 0.125)]);
/// # Ok::<(), kd_core::Error>(())
/// ```
///
/// # Errors
/// If `decay` is not in (0, 1].
pub fn layer_wise_decay(embeddings: &str, layers: &str, count: usize, decay: f64) -> Result<Vec<Group>> {
    ensure(decay > 0.0 && decay <= 1.0, "decay", "a value in (0, 1]", decay)?;
    let mut groups = Vec::with_capacity(count + 1);
    let mut lr_factor = 1.0;
    for layer in (0..count).rev() {
        lr_factor *= decay;
        groups.push(Group::with_lr_factor(format!("{layers}{layer}.*"), lr_factor));
    }
    groups.push(Group::with_lr_factor(format!("{embeddings}*"), lr_factor * decay));
    Ok(groups)
}

/// What an optimiser does with one variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Setting {
    Trained { lr_factor: f64, weight_decay: f64 },
    Frozen,
}

/// Whether weight decay leaves a variable alone: biases and the scales of norms.
fn is_exempt(name: &str, var: &Var) -> bool {
    var.rank() < 2 || name.ends_with("bias")
}

/// The setting of every variable; `weight_decay` is that of variables without a group.
pub(super) fn assign(named: &[(String, Var)], groups: &[Group], weight_decay: f64) -> Result<Vec<Setting>> {
    for group in groups {
        check(group, named)?;
    }
    let setting = |(name, var): &(String, Var)| {
        let group = groups.iter().find(|group| group.matches(name));
        if group.is_some_and(|group| group.frozen) {
            return Setting::Frozen;
        }
        let weight_decay = match group.and_then(|group| group.weight_decay) {
            _ if is_exempt(name, var) => 0.0,
            Some(of_group) => of_group,
            None => weight_decay,
        };
        Setting::Trained { lr_factor: group.map_or(1.0, |group| group.lr_factor), weight_decay }
    };
    Ok(named.iter().map(setting).collect())
}

fn check(group: &Group, named: &[(String, Var)]) -> Result<()> {
    let Group { pattern, lr_factor, weight_decay, .. } = group;
    let wrong = |expected| Err(Error::Config { field: "groups", expected, found: format!("`{pattern}`") });
    let at_least_zero = "a finite value of at least 0";
    ensure(is_at_least_zero(*lr_factor), "lr_factor", at_least_zero, *lr_factor)?;
    let weight_decay = weight_decay.unwrap_or(0.0);
    ensure(is_at_least_zero(weight_decay), "weight_decay", at_least_zero, weight_decay)?;
    let mut matched = named.iter().filter(|(name, _)| group.matches(name)).peekable();
    if matched.peek().is_none() {
        return wrong("a pattern that is the name of a variable, `*` for any characters");
    }
    if weight_decay > 0.0 && matched.all(|(name, var)| is_exempt(name, var)) {
        return wrong("no weight_decay where all variables are biases and norms, which are never decayed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn named(names: &[&str]) -> Vec<(String, Var)> {
        let var = |name: &&str| {
            let shape = if name.ends_with("LayerNorm.weight") { vec![2] } else { vec![2, 2] };
            (name.to_string(), Var::zeros(shape, DType::F32, &Device::Cpu).unwrap())
        };
        names.iter().map(var).collect()
    }

    #[test]
    fn a_pattern_is_the_whole_name_with_stars_for_anything() {
        let cases = [
            ("encoder.layer.1.*", "encoder.layer.1.w", true),
            ("encoder.layer.1.*", "encoder.layer.10.w", false),
            ("encoder.layer.1", "encoder.layer.1.w", false),
            ("w", "w", true),
            ("*", "", true),
            ("*.bias", "a.b.bias", true),
            ("*.bias", "a.bias.b", false),
            ("*a*b", "aab", true),
            ("a**b", "ab", true),
            ("a*a", "a", false),
            ("*ö*", "möbius", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(is_match(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_group_that_matches_counts_and_norms_are_never_decayed() {
        let named = named(&["a.w", "a.bias", "a.LayerNorm.weight", "b.w", "c.w"]);
        let groups = [
            Group::frozen("c*"),
            Group { weight_decay: Some(0.5), ..Group::with_lr_factor("a*", 0.1) },
            Group::with_lr_factor("*w", 3.0),
        ];
        let trained = |lr_factor, weight_decay| Setting::Trained { lr_factor, weight_decay };
        let expected = [trained(0.1, 0.5), trained(0.1, 0.0), trained(0.1, 0.0), trained(3.0, 0.01), Setting::Frozen];
        assert_eq!(assign(&named, &groups, 0.01).unwrap(), expected);
    }

    #[test]
    fn groups_that_change_nothing_are_named() {
        let named = named(&["encoder.layer.0.w", "encoder.layer.0.bias"]);
        let message = |group: Group| assign(&named, &[group], 0.0).unwrap_err().to_string();
        assert_eq!(
            message(Group::frozen("encoder.layer.0")),
            "groups: expected a pattern that is the name of a variable, `*` for any characters, found `encoder.layer.0`"
        );
        let decayed = Group { weight_decay: Some(0.1), ..Group::with_lr_factor("*bias", 1.0) };
        assert!(message(decayed).ends_with("which are never decayed, found `*bias`"));
        assert!(message(Group::with_lr_factor("*", -1.0)).starts_with("lr_factor: expected"));
        let decayed = Group { weight_decay: Some(f64::NAN), ..Group::with_lr_factor("*", 1.0) };
        assert!(message(decayed).starts_with("weight_decay: expected"));
        assert!(layer_wise_decay("e.", "l.", 2, 0.0).unwrap_err().to_string().starts_with("decay: expected"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<Group>(r#"{"pattern": "*", "lr": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `lr`"), "{error}");
    }
}
