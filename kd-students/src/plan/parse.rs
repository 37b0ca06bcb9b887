//! From a JSON file to a [`Plan`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::item::{Item, embedding, error, layer};
use super::{Inputs, Layer, Plan, Warning, columns, parameters, wiring};
use crate::blocks::embedding::Cluster;
use crate::blocks::{BlockConfig, Kind, Shape, Site, standard};
use crate::error::{Error, Result};

pub(super) fn plan(architecture: &Json, inputs: &Inputs, further: &[Kind]) -> Result<Plan> {
    let Json::Array(list) = architecture else {
        return error("architecture", format!("expected a list of layers, found {architecture}"));
    };
    let (mut clusters, mut items, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut conf_path = "architecture".to_string();
    for (idx, json) in list.iter().enumerate() {
        let path = format!("architecture[{idx}]");
        if layer(&path, json)? == "Embedding" {
            if idx != 0 {
                return error(format!("{path}.layer"), "expected `Embedding` in architecture[0] only, found it here");
            }
            conf_path = format!("{path}.conf");
            clusters = of_embedding(&conf_path, embedding(&path, json, &mut warnings)?, &mut warnings)?;
        } else {
            items.push(Item::parse(path, json)?);
        }
    }
    wiring::check_names(&items, inputs)?;
    let branches = columns::branches(inputs, &clusters, &conf_path, &mut warnings)?;
    // Those whose columns are all of no branch, of which there is a warning.
    let is_used = |cluster: &Cluster| {
        branches.iter().flat_map(|branch| &branch.columns).any(|column| column.cluster.as_ref() == Some(&cluster.name))
    };
    clusters.retain(is_used);
    let blocks = blocks(&items, inputs, further, &mut warnings)?;
    let order = wiring::order(&items)?;
    wiring::check_use(&items, inputs, &mut warnings)?;

    let site = Site { classes: inputs.classes(), legacy_padding: inputs.legacy_padding, after_conv: false };
    let mut shapes: BTreeMap<&str, Shape> =
        branches.iter().map(|branch| (branch.name.as_str(), branch.shape.clone())).collect();
    let mut layers: Vec<Layer> = Vec::with_capacity(items.len());
    for idx in order {
        let (item, Block { name, owner, config }) = (&items[idx], &blocks[idx]);
        let read: Vec<Shape> = item.inputs.iter().filter_map(|input| shapes.get(input.as_str()).cloned()).collect();
        let shape = infer(item, config.as_ref(), &read, &site)?;
        shapes.insert(&item.id, shape.clone());
        layers.push(Layer {
            id: item.id.clone(),
            path: item.path.clone(),
            block: name.clone(),
            owner: owner.clone(),
            inputs: item.inputs.clone(),
            shape,
            is_output: item.is_output,
            config: config.clone(),
            shapes: read,
        });
    }
    let outputs: Vec<String> = items.iter().filter(|item| item.is_output).map(|item| item.id.clone()).collect();
    let later = |item: &&Item| item.is_output && outputs.first() != Some(&item.id);
    for item in items.iter().filter(later) {
        if layers.iter().any(|layer| layer.id == item.id && layer.block == "CRF") {
            return error(format!("{}.output_layer_flag", item.path), "expected a CRF as the first output only");
        }
    }
    let plan = Plan { site, branches, clusters, layers, outputs, warnings };
    check_shared(&plan)?;
    Ok(plan)
}

/// The clusters of an embedding's `conf`.
fn of_embedding(path: &str, conf: Map<String, Json>, warnings: &mut Vec<Warning>) -> Result<Vec<Cluster>> {
    let mut clusters = Vec::with_capacity(conf.len());
    for (name, conf) in conf {
        let path = format!("{path}.{name}");
        let (cluster, unread) = Cluster::parse(&name, &conf).map_err(|message| at(&path, message))?;
        let kind = conf.get("type").and_then(Json::as_str).unwrap_or("Embedding");
        warnings.extend(unread.into_iter().map(|key| no_effect(&format!("{path}.{key}"), kind)));
        clusters.push(cluster);
    }
    Ok(clusters)
}

fn no_effect(path: &str, block: &str) -> Warning {
    Warning { path: path.to_string(), message: format!("has no effect on {block}") }
}

/// An error of the object at `path`, whose message may begin with the key that it is about.
fn at(path: &str, message: String) -> Error {
    let is_key = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[' | ']'))
    };
    if let Some((key, rest)) = message.split_once(": ")
        && is_key(key)
    {
        return at(&format!("{path}.{key}"), rest.to_string());
    }
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    match unknown {
        Some((key, rest)) => {
            let already = path.ends_with(&format!(".{key}"));
            let path = if already { path.to_string() } else { format!("{path}.{key}") };
            Error::Plan { path, message: format!("unknown key{rest}") }
        }
        None => Error::Plan { path: path.to_string(), message },
    }
}

/// What an item is made of.
struct Block {
    name: String,
    owner: String,
    config: Arc<dyn BlockConfig>,
}

/// The blocks of all items, those that share another's included.
fn blocks(items: &[Item], inputs: &Inputs, further: &[Kind], warnings: &mut Vec<Warning>) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::with_capacity(items.len());
    for item in items {
        let kind = further.iter().find(|kind| kind.name() == item.layer).cloned().or_else(|| standard(&item.layer));
        let earlier = items.iter().zip(&blocks).find(|(other, _)| other.id == item.layer).map(|(_, block)| block);
        let path = format!("{}.layer", item.path);
        let block = match (kind, earlier) {
            (Some(_), Some(_)) if item.conf.is_none() => {
                return error(path, format!("expected a conf, for `{}` is a block and a layer_id", item.layer));
            }
            (Some(kind), _) => {
                let conf = conf(item, &kind, inputs, warnings)?;
                let config =
                    kind.parse(Json::Object(conf)).map_err(|message| at(&format!("{}.conf", item.path), message))?;
                Block { name: item.layer.clone(), owner: item.id.clone(), config: config.into() }
            }
            (None, Some(_)) if item.conf.is_some() => {
                let message = format!("expected none, for it is that of `{}`, which the layer shares", item.layer);
                return error(format!("{}.conf", item.path), message);
            }
            (None, Some(block)) => {
                Block { name: block.name.clone(), owner: block.owner.clone(), config: block.config.clone() }
            }
            (None, None) => {
                return error(path, format!("expected a block or an earlier layer_id, found `{}`", item.layer));
            }
        };
        let (count, arity) = (item.inputs.len(), block.config.arity());
        if !arity.contains(&count) {
            let expected = match (*arity.start(), *arity.end()) {
                (least, most) if least == most => format!("{least}"),
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) => format!("{least} to {most}"),
            };
            let message = format!("expected {expected} for {}, found {count}", block.name);
            return error(format!("{}.inputs", item.path), message);
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// The item's `conf` without what has no effect, and with the classes of named targets.
fn conf(item: &Item, kind: &Kind, inputs: &Inputs, warnings: &mut Vec<Warning>) -> Result<Map<String, Json>> {
    let mut conf = item.conf.clone().unwrap_or_default();
    for key in kind.ignored() {
        if conf.remove(*key).is_some() {
            warnings.push(no_effect(&format!("{}.conf.{key}", item.path), kind.name()));
        }
    }
    for (key, value) in &mut conf {
        name_classes(&format!("{}.conf.{key}", item.path), value, inputs)?;
    }
    Ok(conf)
}

/// Replaces `"#target:NAME#"` by the number of classes of that target.
fn name_classes(path: &str, json: &mut Json, inputs: &Inputs) -> Result<()> {
    match json {
        Json::String(text) => {
            let Some(name) = text.strip_prefix("#target:").and_then(|rest| rest.strip_suffix('#')) else {
                return Ok(());
            };
            let target = inputs.targets.iter().find(|target| target.name == name);
            match target.and_then(|target| target.classes) {
                Some(classes) => *json = Json::from(classes),
                None => return error(path, format!("expected a target with classes, found `{name}`")),
            }
            Ok(())
        }
        Json::Array(list) => list
            .iter_mut()
            .enumerate()
            .try_for_each(|(idx, json)| name_classes(&format!("{path}[{idx}]"), json, inputs)),
        Json::Object(map) => {
            map.iter_mut().try_for_each(|(key, json)| name_classes(&format!("{path}.{key}"), json, inputs))
        }
        _ => Ok(()),
    }
}

fn infer(item: &Item, config: &dyn BlockConfig, inputs: &[Shape], site: &Site) -> Result<Shape> {
    config.infer(inputs, site).map_err(|message| match at(&format!("{}.conf", item.path), message.clone()) {
        // A message that begins with no key is about the inputs.
        Error::Plan { path, message } if path == format!("{}.conf", item.path) => {
            Error::Plan { path: format!("{}.inputs", item.path), message }
        }
        error => error,
    })
}

/// Checks that layers that share variables need the same ones.
fn check_shared(plan: &Plan) -> Result<()> {
    for layer in plan.layers.iter().filter(|layer| layer.owner != layer.id) {
        let Some(owner) = plan.layers.iter().find(|other| other.id == layer.owner) else { continue };
        let (expected, found) = (parameters::of_layer(plan, owner)?, parameters::of_layer(plan, layer)?);
        if expected != found {
            let shapes = |layer: &Layer| layer.shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ");
            let message = format!(
                "expected inputs like those of `{}`, whose variables it shares, {}, found {}",
                owner.id,
                shapes(owner),
                shapes(layer)
            );
            return error(format!("{}.inputs", layer.path), message);
        }
    }
    Ok(())
}
