//! Apache Parquet.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::{Import, Owned, ScoreColumns, logits_of};
use crate::error::{Error, Result};
use crate::teacher_outputs::TeacherOutputs;

/// Adds the rows of a Parquet file to `outputs`; returns their number. With feature `parquet`.
///
/// # Errors
/// If a column is missing or holds something else, or a number is out of its range, by file and row, counted from 1; what
/// stood before it is added then.
pub fn parquet(path: impl AsRef<Path>, columns: &ScoreColumns, outputs: &mut TeacherOutputs) -> Result<usize> {
    let path = path.as_ref();
    let wrong = |error: parquet::errors::ParquetError| Error::file(path, "a Parquet file", error.to_string());
    let reader = SerializedFileReader::new(File::open(path).map_err(Error::io(path))?).map_err(wrong)?;
    let schema = reader.metadata().file_metadata().schema();
    let mut fields = Vec::new();
    for name in [&columns.first].into_iter().chain(&columns.second).chain(&columns.scores) {
        match schema.get_fields().iter().find(|field| field.name() == name) {
            Some(field) if fields.contains(field) => {}
            Some(field) => fields.push(field.clone()),
            None => {
                let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
                return Err(Error::file(path, format!("a column `{name}`"), names.join(", ")));
            }
        }
    }
    // Of a wide table only these columns are read.
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(wrong)?;
    let rows = reader.get_row_iter(Some(projection)).map_err(wrong)?;
    let classes = outputs.classes().to_vec();
    let mut import = Import::new(outputs);
    let add = || {
        for (row, line) in rows.zip(1..) {
            let row = row.map_err(wrong)?;
            let field = |name: &String| {
                let found = row.get_column_iter().find(|(other, _)| *other == name).map(|(_, field)| field);
                found.ok_or_else(|| Error::line(path, line, format!("a column `{name}`"), "none"))
            };
            let text = |name: &String| match field(name)? {
                Field::Str(text) => Ok(text.clone()),
                found => Err(Error::line(path, line, format!("a text in column `{name}`"), found.to_string())),
            };
            let mut numbers = Vec::new();
            for name in &columns.scores {
                let found = field(name)?;
                if !push(found, &mut numbers) {
                    let expected = format!("numbers in column `{name}`");
                    return Err(Error::line(path, line, expected, found.to_string()));
                }
            }
            let logits = logits_of(columns.numbers, &classes, &numbers)
                .map_err(|(expected, found)| Error::line(path, line, expected, found))?;
            let second = columns.second.as_ref().map(text).transpose()?;
            import.push(Owned::of_texts(text(&columns.first)?, second), &logits)?;
        }
        Ok(())
    };
    let read = add();
    let added = import.finish()?;
    read.map(|()| added)
}

/// Whether it is a number or a list of them.
fn push(field: &Field, numbers: &mut Vec<f64>) -> bool {
    match field {
        Field::Float16(number) => numbers.push(number.to_f64()),
        Field::Float(number) => numbers.push(f64::from(*number)),
        Field::Double(number) => numbers.push(*number),
        Field::Int(number) => numbers.push(f64::from(*number)),
        Field::ListInternal(list) => return list.elements().iter().all(|item| push(item, numbers)),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::Numbers;
    use super::*;
    use crate::teacher_outputs::About;

    /// Two rows: texts, two columns of numbers, and a list of two.
    fn write(path: &Path) {
        let schema = "message m { required binary text (UTF8); required double no; required double yes;
                      required group scores (LIST) { repeated group list { required float element; } } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts = [ByteArray::from("a"), ByteArray::from("b")];
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        for values in [[0.25, 0.5], [0.75, 0.0]] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<DoubleType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        let (levels, starts) = ([1; 4], [0, 1, 0, 1]);
        column.typed::<FloatType>().write_batch(&[1.0, 2.0, 3.0, 4.0], Some(&levels), Some(&starts)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn columns_of_numbers_or_one_of_lists() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path);
        let about = About::named("m", "w", ["no", "yes"].map(String::from).to_vec());
        let mut outputs = TeacherOutputs::in_memory(about.clone()).unwrap();
        let columns = ScoreColumns { first: "text".into(), scores: vec!["scores".into()], ..ScoreColumns::default() };
        assert_eq!(parquet(&path, &columns, &mut outputs).unwrap(), 2);
        let logits = |outputs: &TeacherOutputs, text: &str| -> Vec<Vec<f32>> {
            outputs.join([text]).unwrap().logits(0).unwrap().to_vec2().unwrap()
        };
        assert_eq!(logits(&outputs, "b"), [[3., 4.]]);

        let mut outputs = TeacherOutputs::in_memory(about).unwrap();
        let scores = vec!["no".to_string(), "yes".to_string()];
        let columns = ScoreColumns { scores, numbers: Numbers::Probs, ..columns };
        let message = parquet(&path, &columns, &mut outputs).unwrap_err().to_string();
        let expected = ":2: expected a probability above 0 and at most 1 of class `yes`, found 0";
        assert!(message.ends_with(expected), "{message}");
        assert_eq!(logits(&outputs, "a"), [[0.25f32.ln(), 0.75f32.ln()]]);
        let missing = ScoreColumns { first: "body".into(), ..columns };
        let message = parquet(&path, &missing, &mut outputs).unwrap_err().to_string();
        assert!(message.ends_with("expected a column `body`, found text, no, yes, scores"), "{message}");
    }
}
