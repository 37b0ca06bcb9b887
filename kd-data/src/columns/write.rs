//! Examples as a tab-separated table.

use std::fmt::Write as _;
use std::path::Path;

use kd_core::checkpoint::replace_file_with;

use super::{Columns, LabelKind};
use crate::error::{Error, Result};
use crate::example::{Label, TextExample};

/// Writes `examples` as a tab-separated table that [`read_columns`](super::read_columns) reads with the same `columns`;
/// the order is group, texts, label.
///
/// # Errors
/// If the file cannot be written, if an example lacks what `columns` names or has a label of another kind, or if a text
/// holds a tab or the end of a line, for which the format has no form. Messages name the line it would have stood on.
pub fn write_tsv(path: impl AsRef<Path>, columns: &Columns, examples: &[TextExample]) -> Result<()> {
    let path = path.as_ref();
    let names = [columns.group.as_ref(), Some(&columns.first), columns.second.as_ref(), columns.label.as_ref()];
    let mut table = names.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\t");
    table.push('\n');
    for (line, example) in (2..).zip(examples) {
        let missing = |column: &String| Error::line(path, line, format!("a value for column `{column}`"), "none");
        let mut row = Vec::new();
        if let Some(column) = &columns.group {
            row.push(example.group.clone().ok_or_else(|| missing(column))?);
        }
        row.push(example.first.clone());
        if let Some(column) = &columns.second {
            row.push(example.second.clone().ok_or_else(|| missing(column))?);
        }
        if let Some(column) = &columns.label {
            row.push(label(columns.kind, &example.label).ok_or_else(|| {
                let found = example.label.kind();
                Error::line(path, line, format!("a label that fits column `{column}`"), found)
            })?);
        }
        if let Some(text) = row.iter().find(|text| text.contains(['\t', '\n', '\r'])) {
            return Err(Error::line(path, line, "texts without tabs and line ends", format!("{text:?}")));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{}", row.join("\t"));
    }
    Ok(replace_file_with(path, table.as_bytes())?)
}

fn label(kind: LabelKind, label: &Label) -> Option<String> {
    match (kind, label) {
        (LabelKind::Class, Label::Class(name)) if !name.is_empty() => Some(name.clone()),
        (LabelKind::Score, Label::Score(score)) if score.is_finite() => Some(score.to_string()),
        (LabelKind::Classes { separator }, Label::Classes(names)) => Some(names.join(&separator.to_string())),
        _ => None,
    }
}
