//! An object a line.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::{Columns, Examples, Value, example};
use crate::error::{Error, Result};
use crate::example::TextExample;
use crate::text_lines::TextLines;

pub(super) fn examples(path: &Path, columns: &Columns) -> Result<Examples> {
    let mut lines = TextLines::open(path)?;
    let (path, columns) = (path.to_path_buf(), columns.clone());
    let rows = std::iter::from_fn(move || lines.next_line().transpose());
    let some = rows.filter(|row| row.as_ref().map_or(true, |(_, text)| !text.trim().is_empty()));
    Ok(Box::new(some.map(move |row| {
        let (line, text) = row?;
        of_object(&path, line, text.trim_end_matches(['\n', '\r']), &columns)
    })))
}

fn of_object(path: &Path, line: usize, text: &str, columns: &Columns) -> Result<TextExample> {
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
