//! Tab-separated columns.

use std::path::Path;

use super::{Import, Owned, ScoreColumns, for_lines, logits_of};
use crate::error::{Error, Result, count};
use crate::teacher_outputs::TeacherOutputs;

/// Adds the lines of a tab-separated file to `outputs`; returns their number. There is no quoting: a `"` is text.
///
/// # Errors
/// If a column is missing, or a number is none or out of its range, by file and line; what stood before it is added then.
pub fn tsv(path: impl AsRef<Path>, columns: &ScoreColumns, outputs: &mut TeacherOutputs) -> Result<usize> {
    let path = path.as_ref();
    let classes = outputs.classes().to_vec();
    let mut import = Import::new(outputs);
    let mut places: Option<Places> = None;
    let read = for_lines(path, |line, text| {
        if text.is_empty() {
            return Ok(());
        }
        let fields: Vec<&str> = text.split('\t').collect();
        let places = match &places {
            Some(places) => places,
            None => {
                let found = places.insert(Places::find(path, columns, &fields)?);
                if columns.header {
                    return Ok(());
                }
                found
            }
        };
        if fields.len() != places.width {
            return Err(Error::line(path, line, count(places.width, "column"), fields.len().to_string()));
        }
        let number = |&place: &usize| {
            let wrong =
                || Error::line(path, line, format!("a number in column {}", place + 1), format!("`{}`", fields[place]));
            fields[place].trim().parse::<f64>().map_err(|_| wrong())
        };
        let row = places.scores.iter().map(number).collect::<Result<Vec<f64>>>()?;
        let logits = logits_of(columns.numbers, &classes, &row)
            .map_err(|(expected, found)| Error::line(path, line, expected, found))?;
        let text = |place: usize| fields[place].to_string();
        import.push(Owned::of_texts(text(places.first), places.second.map(text)), &logits)
    });
    let added = import.finish()?;
    read.map(|()| added)
}

/// Positions of the columns.
struct Places {
    width: usize,
    first: usize,
    second: Option<usize>,
    scores: Vec<usize>,
}

impl Places {
    /// From the first line.
    fn find(path: &Path, columns: &ScoreColumns, fields: &[&str]) -> Result<Self> {
        let place = |name: &String| {
            let place = if columns.header {
                fields.iter().position(|field| field == name)
            } else {
                name.parse::<usize>()
                    .ok()
                    .and_then(|number| number.checked_sub(1))
                    .filter(|&place| place < fields.len())
            };
            place.ok_or_else(|| {
                let found = if columns.header { fields.join(", ") } else { format!("1 to {}", fields.len()) };
                Error::line(path, 1, format!("a column `{name}`"), found)
            })
        };
        Ok(Self {
            width: fields.len(),
            first: place(&columns.first)?,
            second: columns.second.as_ref().map(place).transpose()?,
            scores: columns.scores.iter().map(place).collect::<Result<_>>()?,
        })
    }
}
