//! NumPy's `.npy`, versions 1 to 3 (numpy/lib/format.py): a magic string, a Python dictionary, the numbers.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use half::f16;

use super::{Import, Numbers, Owned, logits_of};
use crate::error::{Error, Result, count};
use crate::teacher_outputs::{Content, TeacherOutputs};

/// Adds a matrix of `rows.iter().sum()` rows to `outputs`, `rows[i]` of them of `examples[i]`; returns the number of
/// examples. The matrix is `(rows, classes)`, or `(rows,)` for the second of two classes, of little-endian f16, f32 or
/// f64, in C's order.
///
/// # Errors
/// If the file is something else, has another shape, or a number is out of its range, by file and row (counted from 1);
/// what stood before it is added then.
pub fn npy(
    path: impl AsRef<Path>,
    examples: &[Content<'_>],
    rows: &[usize],
    numbers: Numbers,
    outputs: &mut TeacherOutputs,
) -> Result<usize> {
    let path = path.as_ref();
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let header = Header::read(&mut file, path)?;
    if rows.len() != examples.len() {
        return Err(Error::argument("rows", count(examples.len(), "number"), rows.len().to_string()));
    }
    let expected = rows.iter().sum::<usize>();
    let columns = match header.shape[..] {
        [found] if found == expected => 1,
        [found, columns] if found == expected => columns,
        _ => {
            let expected = format!("the shape ({expected}, {})", outputs.classes().len());
            return Err(Error::file(path, expected, format!("{:?}", header.shape)));
        }
    };
    let classes = outputs.classes().to_vec();
    let mut import = Import::new(outputs);
    let (mut bytes, mut line) = (vec![0; columns * header.number.bytes()], 0);
    let mut add = || {
        for (example, &rows) in examples.iter().zip(rows) {
            let mut logits = Vec::new();
            for _ in 0..rows {
                line += 1;
                file.read_exact(&mut bytes).map_err(Error::io(path))?;
                let row = logits_of(numbers, &classes, &header.number.values(&bytes))
                    .map_err(|(expected, found)| Error::line(path, line, expected, found))?;
                logits.extend(row);
            }
            let example = match *example {
                Content::Text(text) => Owned::Text(text.to_string()),
                Content::Pair(first, second) => Owned::Pair(first.to_string(), second.to_string()),
                Content::Words(words) => Owned::Words(words.to_vec()),
            };
            import.push(example, &logits)?;
        }
        Ok(())
    };
    let read = add();
    let added = import.finish()?;
    read.map(|()| added)
}

struct Header {
    number: Number,
    shape: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Number {
    F16,
    F32,
    F64,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn values(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::F16 => bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f64()).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect(),
            Self::F64 => bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
        }
    }
}

impl Header {
    fn read(file: &mut impl Read, path: &Path) -> Result<Self> {
        let wrong = |found: &str| Error::file(path, "a .npy file of f16, f32 or f64 in C's order", found);
        let mut bytes = |n: usize| {
            let mut bytes = vec![0; n];
            file.read_exact(&mut bytes).map(|()| bytes).map_err(|cause| wrong(&cause.to_string()))
        };
        let start = bytes(8)?;
        if !start.starts_with(b"\x93NUMPY") {
            return Err(wrong("another beginning"));
        }
        let length = match start[6] {
            1 => bytes(2)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)),
            2 | 3 => bytes(4)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)),
            version => return Err(wrong(&format!("version {version}"))),
        };
        if length > 1 << 20 {
            return Err(wrong(&format!("a header of {length} bytes")));
        }
        let header = String::from_utf8_lossy(&bytes(length)?).into_owned();
        let after = |name: &str| {
            let rest = header.split_once(&format!("'{name}':")).map(|(_, rest)| rest.trim_start());
            rest.ok_or_else(|| wrong(&format!("a header without '{name}'")))
        };
        let number = match after("descr")?.split('\'').nth(1) {
            Some("<f2") => Number::F16,
            Some("<f4") => Number::F32,
            Some("<f8") => Number::F64,
            found => return Err(wrong(&format!("the type {}", found.unwrap_or("of a record")))),
        };
        if !after("fortran_order")?.starts_with("False") {
            return Err(wrong("Fortran's order"));
        }
        let shape = after("shape")?;
        let inside = shape.strip_prefix('(').and_then(|shape| shape.split_once(')')).map(|(inside, _)| inside);
        let sizes =
            inside.into_iter().flat_map(|inside| inside.split(',')).map(str::trim).filter(|size| !size.is_empty());
        let shape =
            sizes.map(|size| size.parse().map_err(|_| wrong(&format!("the size {size}")))).collect::<Result<_>>()?;
        Ok(Self { number, shape })
    }
}
