//! Apache Parquet.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::{Columns, Value, example};
use crate::error::{Error, Result};
use crate::example::TextExample;
use crate::separated::Header;

pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<TextExample>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let wrong = |error: parquet::errors::ParquetError| Error::file(path, "a Parquet file", error.to_string());
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let schema = reader.metadata().file_metadata().schema();
    let header = Header::new(path, 1, schema.get_fields().iter().map(|field| field.name()).collect());
    // Of a wide table only these columns are read.
    let mut names = vec![&columns.first];
    names.extend([&columns.second, &columns.label, &columns.group].into_iter().flatten());
    let mut fields = Vec::new();
    for name in names {
        let field = schema.get_fields()[header.column(name)?].clone();
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(wrong)?;
    let rows = reader.get_row_iter(Some(projection)).map_err(wrong)?;
    rows.zip(1..)
        .map(|(row, line)| {
            let row = row.map_err(wrong)?;
            let fields: Vec<(&String, &Field)> = row.get_column_iter().collect();
            example(path, line, columns, &mut |column| {
                let field = fields.iter().find(|(name, _)| *name == column).map(|(_, field)| value(field));
                field.ok_or_else(|| Error::line(path, line, format!("a column `{column}`"), "none"))
            })
        })
        .collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Str(text) => Value::Text(text.clone()),
        Field::Bool(flag) => Value::Text(flag.to_string()),
        Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_) => Value::Text(field.to_string()),
        Field::Float(number) => Value::Number(f64::from(*number)),
        Field::Double(number) => Value::Number(*number),
        Field::ListInternal(list) => {
            let texts = list.elements().iter().map(|item| match item {
                Field::Str(text) => Some(text.clone()),
                _ => None,
            });
            match texts.collect() {
                Some(texts) => Value::List(texts),
                None => Value::Other(format!("the list {field}")),
            }
        }
        other => Value::Other(other.to_string()),
    }
}
