//! The order of the layers, and that each has a use.

use std::collections::{BTreeMap, BTreeSet};

use super::item::{Item, error};
use super::{EMBEDDING, Inputs, Warning};
use crate::error::Result;

/// Checks that names stand for one thing each.
pub(super) fn check_names(items: &[Item], inputs: &Inputs) -> Result<()> {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for branch in &inputs.branches {
        names.insert(&branch.name, format!("a branch is called `{}` already", branch.name));
    }
    names.insert(EMBEDDING, format!("`{EMBEDDING}` is the name of the embedding's variables"));
    for item in items {
        if let Some(message) = names.get(item.id.as_str()) {
            return error(format!("{}.layer_id", item.path), format!("expected a new name, and {message}"));
        }
        names.insert(&item.id, format!("{} is called `{}` already", item.path, item.id));
    }
    for item in items {
        for (idx, input) in item.inputs.iter().enumerate() {
            if input == EMBEDDING || !names.contains_key(input.as_str()) {
                let branches: Vec<&str> = inputs.branches.iter().map(|branch| branch.name.as_str()).collect();
                let message = format!("expected a layer_id or a branch ({}), found `{input}`", branches.join(", "));
                return error(format!("{}.inputs[{idx}]", item.path), message);
            }
        }
    }
    Ok(())
}

/// Places of `items`, each after those of the layers that it reads, and in the order of the file otherwise.
pub(super) fn order(items: &[Item]) -> Result<Vec<usize>> {
    let place: BTreeMap<&str, usize> = items.iter().enumerate().map(|(idx, item)| (item.id.as_str(), idx)).collect();
    let (mut order, mut placed) = (Vec::with_capacity(items.len()), BTreeSet::new());
    while order.len() < items.len() {
        let is_ready = |item: &Item| {
            item.inputs.iter().all(|input| place.get(input.as_str()).is_none_or(|idx| placed.contains(idx)))
        };
        match (0..items.len()).find(|idx| !placed.contains(idx) && is_ready(&items[*idx])) {
            Some(idx) => {
                placed.insert(idx);
                order.push(idx);
            }
            None => return cycle(items, &place, &placed),
        }
    }
    Ok(order)
}

/// Names a cycle among the layers that could not be placed: from any of them, one that it reads is of them too.
fn cycle<T>(items: &[Item], place: &BTreeMap<&str, usize>, placed: &BTreeSet<usize>) -> Result<T> {
    let next = |idx: usize| {
        let read = items[idx].inputs.iter().filter_map(|input| place.get(input.as_str()).copied());
        read.into_iter().find(|idx| !placed.contains(idx))
    };
    let mut path: Vec<usize> = (0..items.len()).filter(|idx| !placed.contains(idx)).take(1).collect();
    while let Some(idx) = path.last().and_then(|&idx| next(idx)) {
        if let Some(start) = path.iter().position(|&other| other == idx) {
            let mut ids: Vec<String> = path[start..].iter().map(|&idx| format!("`{}`", items[idx].id)).collect();
            ids.push(format!("`{}`", items[idx].id));
            let message = format!("expected no cycle, found {}", ids.join(" reads "));
            return error(format!("{}.inputs", items[idx].path), message);
        }
        path.push(idx);
    }
    error("architecture", "expected no cycle, found one")
}

/// Checks that there is an output and that every layer feeds one; branches that do not are warned of.
pub(super) fn check_use(items: &[Item], inputs: &Inputs, warnings: &mut Vec<Warning>) -> Result<()> {
    let by_id: BTreeMap<&str, &Item> = items.iter().map(|item| (item.id.as_str(), item)).collect();
    let mut open: Vec<&str> = items.iter().filter(|item| item.is_output).map(|item| item.id.as_str()).collect();
    if open.is_empty() {
        return error("architecture", "expected a layer whose output_layer_flag is true, found none");
    }
    let mut used: BTreeSet<&str> = BTreeSet::new();
    while let Some(name) = open.pop() {
        if used.insert(name)
            && let Some(item) = by_id.get(name)
        {
            open.extend(item.inputs.iter().map(String::as_str));
        }
    }
    if let Some(item) = items.iter().find(|item| !used.contains(item.id.as_str())) {
        let message = format!("expected every layer to feed an output, found `{}`, which feeds none", item.id);
        return error(format!("{}.layer_id", item.path), message);
    }
    let unused = inputs.branches.iter().filter(|branch| !used.contains(branch.name.as_str()));
    warnings.extend(unused.map(|branch| Warning {
        path: format!("inputs.model_inputs.{}", branch.name),
        message: "no layer reads this branch".to_string(),
    }));
    Ok(())
}
