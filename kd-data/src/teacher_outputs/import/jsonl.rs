//! An object a line.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Import, Numbers, Owned, for_lines, logits_of};
use crate::error::{Error, Result, count};
use crate::teacher_outputs::TeacherOutputs;

#[derive(Deserialize)]
struct Line {
    text: Option<String>,
    text_a: Option<String>,
    text_b: Option<String>,
    words: Option<Vec<String>>,
    logits: Option<Value>,
    probs: Option<Value>,
}

/// Adds the lines of a file to `outputs`; returns their number.
///
/// A line is an object with the example, `"text"`, `"text_a"` and `"text_b"`, or `"words"`, and with `"logits"` or
/// `"probs"`: a list in the order of the teacher's classes, an object with the classes as names, or of two classes the
/// number of the second; of words a list with one of these for each. Other names in the object are not looked at, and
/// empty lines neither.
///
/// # Errors
/// If a line is something else or a number out of its range, by file and line; what stood before it is added then.
pub fn jsonl(path: impl AsRef<Path>, outputs: &mut TeacherOutputs) -> Result<usize> {
    let path = path.as_ref();
    let classes = outputs.classes().to_vec();
    let mut import = Import::new(outputs);
    let read = for_lines(path, |number, text| {
        if text.trim().is_empty() {
            return Ok(());
        }
        let wrong = |(expected, found): (String, String)| Error::line(path, number, expected, found);
        let line: Line = serde_json::from_str(text)
            .map_err(|cause| wrong(("an object with text and logits or probs".to_string(), cause.to_string())))?;
        let (numbers, values) = match (line.logits, line.probs) {
            (Some(values), None) => (Numbers::Logits, values),
            (None, Some(values)) => (Numbers::Probs, values),
            (both, _) => {
                let found = if both.is_some() { "both" } else { "neither" };
                return Err(wrong(("`logits` or `probs`".to_string(), found.to_string())));
            }
        };
        let row = |value: &Value| logits_of(numbers, &classes, &numbers_of(value, &classes)?);
        let (example, logits) = match (line.text, line.text_a, line.text_b, line.words) {
            (Some(text), None, None, None) => (Owned::Text(text), row(&values).map_err(wrong)?),
            (None, Some(a), Some(b), None) => (Owned::Pair(a, b), row(&values).map_err(wrong)?),
            (None, None, None, Some(words)) => {
                let rows = values.as_array().map(Vec::as_slice).unwrap_or_default();
                if rows.len() != words.len() {
                    let expected = format!("{}, one a word", count(words.len(), "row"));
                    return Err(wrong((expected, rows.len().to_string())));
                }
                let rows = rows.iter().map(row).collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
                (Owned::Words(words), rows.concat())
            }
            _ => {
                let expected = "either `text`, or `text_a` and `text_b`, or `words`".to_string();
                return Err(wrong((expected, "another set of them".to_string())));
            }
        };
        import.push(example, &logits)
    });
    let added = import.finish()?;
    read.map(|()| added)
}

/// The numbers of a row in the order of the classes.
fn numbers_of(value: &Value, classes: &[String]) -> std::result::Result<Vec<f64>, (String, String)> {
    let number = |value: &Value| {
        value.as_f64().ok_or_else(|| ("a number".to_string(), value.to_string().chars().take(40).collect::<String>()))
    };
    match value {
        Value::Array(values) => values.iter().map(number).collect(),
        Value::Object(object) => {
            let expected = || format!("a number for each of the classes {}", classes.join(", "));
            if let Some(name) = object.keys().find(|name| !classes.contains(name)) {
                return Err((expected(), format!("one for `{name}`")));
            }
            let of_class = |name: &String| match object.get(name) {
                Some(value) => number(value),
                None => Err((expected(), format!("none for `{name}`"))),
            };
            classes.iter().map(of_class).collect()
        }
        value => Ok(vec![number(value)?]),
    }
}
