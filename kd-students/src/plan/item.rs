//! An item of an architecture, before anything is known of the others.

use serde_json::{Map, Value as Json};

use super::Warning;
use crate::error::{Error, Result};

/// A layer as the file has it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) id: String,
    pub(super) layer: String,
    pub(super) conf: Option<Map<String, Json>>,
    pub(super) inputs: Vec<String>,
    pub(super) is_output: bool,
}

pub(super) fn error<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T> {
    Err(Error::Plan { path: path.into(), message: message.into() })
}

fn object<'a>(path: &str, json: &'a Json) -> Result<&'a Map<String, Json>> {
    match json {
        Json::Object(object) => Ok(object),
        other => error(path, format!("expected an object, found {other}")),
    }
}

fn text(path: &str, key: &str, json: &Json) -> Result<String> {
    match json {
        Json::String(text) if !text.is_empty() => Ok(text.clone()),
        other => error(format!("{path}.{key}"), format!("expected a name, found {other}")),
    }
}

/// Refuses keys that are not `known`.
fn check_keys(path: &str, item: &Map<String, Json>, known: &[&str]) -> Result<()> {
    match item.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => error(format!("{path}.{key}"), format!("unknown key, expected one of {}", known.join(", "))),
        None => Ok(()),
    }
}

/// Which block an item is of.
pub(super) fn layer(path: &str, json: &Json) -> Result<String> {
    match object(path, json)?.get("layer") {
        Some(layer) => text(path, "layer", layer),
        None => error(path, "expected a key `layer`, found none"),
    }
}

impl Item {
    pub(super) fn parse(path: String, json: &Json) -> Result<Self> {
        let item = object(&path, json)?;
        check_keys(&path, item, &["layer_id", "layer", "conf", "inputs", "output_layer_flag"])?;
        let Some(id) = item.get("layer_id") else { return error(path, "expected a key `layer_id`, found none") };
        let id = text(&path, "layer_id", id)?;
        if id.contains('.') {
            return error(format!("{path}.layer_id"), format!("expected a name without a dot, found `{id}`"));
        }
        let conf = item.get("conf").map(|conf| object(&format!("{path}.conf"), conf).cloned()).transpose()?;
        let Some(inputs) = item.get("inputs") else { return error(path, "expected a key `inputs`, found none") };
        let Json::Array(inputs) = inputs else {
            return error(format!("{path}.inputs"), format!("expected a list of names, found {inputs}"));
        };
        let inputs = inputs.iter().enumerate().map(|(idx, input)| text(&path, &format!("inputs[{idx}]"), input));
        let is_output = match item.get("output_layer_flag") {
            None => false,
            Some(Json::Bool(flag)) => *flag,
            Some(other) => {
                return error(format!("{path}.output_layer_flag"), format!("expected true or false, found {other}"));
            }
        };
        let (layer, inputs) = (layer(&path, json)?, inputs.collect::<Result<_>>()?);
        Ok(Self { path, id, layer, conf, inputs, is_output })
    }
}

/// The `conf` of an `Embedding`.
pub(super) fn embedding(path: &str, json: &Json, warnings: &mut Vec<Warning>) -> Result<Map<String, Json>> {
    let item = object(path, json)?;
    check_keys(path, item, &["layer", "conf", "weight_on_gpu"])?;
    if item.contains_key("weight_on_gpu") {
        let message = "has no effect: the tables stand on the device of the model".to_string();
        warnings.push(Warning { path: format!("{path}.weight_on_gpu"), message });
    }
    match item.get("conf") {
        Some(conf) => object(&format!("{path}.conf"), conf).cloned(),
        None => error(path, "expected a key `conf`, found none"),
    }
}
