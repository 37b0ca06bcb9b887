//! An object a line.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::{Columns, Value, example};
use crate::error::{Error, Result, read_text};
use crate::example::TextExample;

pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<TextExample>> {
    let text = read_text(path)?;
    let rows = text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty());
    rows.map(|(text, line)| {
        let object: Map<String, Json> =
            serde_json::from_str(text).map_err(|error| Error::line(path, line, "a JSON object", error.to_string()))?;
        example(path, line, columns, &mut |column| match object.get(column) {
            Some(json) => Ok(value(json)),
            None => {
                let names: Vec<&str> = object.keys().map(String::as_str).collect();
                let found = format!("the keys `{}`", names.join("`, `"));
                Err(Error::line(path, line, format!("a key `{column}`"), found))
            }
        })
    })
    .collect()
}

fn value(json: &Json) -> Value {
    match json {
        Json::String(text) => Value::Text(text.clone()),
        Json::Bool(flag) => Value::Text(flag.to_string()),
        Json::Number(number) if number.is_f64() => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        Json::Number(whole) => Value::Text(whole.to_string()),
        Json::Array(items) => match items.iter().map(|item| item.as_str().map(str::to_string)).collect() {
            Some(texts) => Value::List(texts),
            None => Value::Other(format!("the list {json}")),
        },
        Json::Null | Json::Object(_) => Value::Other(json.to_string()),
    }
}
