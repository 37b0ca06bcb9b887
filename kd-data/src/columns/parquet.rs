//! Apache Parquet.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::{Columns, Examples, Value, example};
use crate::error::{Error, Result};
use crate::separated::Header;

pub(super) fn examples(path: &Path, columns: &Columns) -> Result<Examples> {
    let file = File::open(path).map_err(Error::io(path))?;
    let (path, columns) = (path.to_path_buf(), columns.clone());
    let place = path.clone();
    let wrong = move |error: ParquetError| Error::file(&place, "a Parquet file", error.to_string());
    let reader = SerializedFileReader::new(file).map_err(&wrong)?;
    let schema = reader.metadata().file_metadata().schema();
    let header = Header::new(&path, 1, schema.get_fields().iter().map(|field| field.name()).collect());
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
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(&wrong)?;
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(&wrong)?;
    Ok(Box::new(rows.zip(1..).map(move |(row, line)| {
        let row = row.map_err(&wrong)?;
        let fields: Vec<(&String, &Field)> = row.get_column_iter().collect();
        example(&path, line, &columns, &mut |column| {
            let field = fields.iter().find(|(name, _)| *name == column).map(|(_, field)| value(field));
            field.ok_or_else(|| Error::line(&path, line, format!("a column `{column}`"), "none"))
        })
    })))
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
