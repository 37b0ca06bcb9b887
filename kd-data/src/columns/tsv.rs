//! Tab-separated tables without quoting.

use std::collections::VecDeque;
use std::path::Path;

use super::{Columns, Examples, Value, example};
use crate::error::{Error, Result};
use crate::separated::Header;
use crate::text_lines::TextLines;

pub(super) fn examples(path: &Path, columns: &Columns) -> Result<Examples> {
    let mut rows = TsvLines { lines: TextLines::open(path)?, read: VecDeque::new() };
    let Some((line, names)) = rows.next().transpose()? else {
        return Err(Error::file(path, "a header", "an empty file"));
    };
    let header = Header::new(path, line, names.split('\t').collect());
    let (path, columns) = (path.to_path_buf(), columns.clone());
    Ok(Box::new(rows.map(move |row| {
        let (line, row) = row?;
        let values: Vec<&str> = row.split('\t').collect();
        header.check(line, values.len())?;
        example(&path, line, &columns, &mut |column| Ok(Value::Text(values[header.column(column)?].to_string())))
    })))
}

/// Lines without their ends, as [`crate::separated::lines`] has them: an empty line is a line unless only such follow.
struct TsvLines {
    lines: TextLines,
    /// The next line with its end, and those that were read to see what follows it.
    read: VecDeque<(usize, String)>,
}

impl TsvLines {
    fn next_line(&mut self) -> Result<Option<(usize, String)>> {
        let cut = |line: &str| {
            let line = line.strip_suffix('\n').unwrap_or(line);
            line.strip_suffix('\r').unwrap_or(line).to_string()
        };
        // What ends as the whole text would if nothing followed.
        let is_whole = |line: &str| !cut(line).is_empty() && !cut(line).ends_with('\r');
        let is_empty = |line: &str| line.trim_end_matches(['\n', '\r']).is_empty();
        loop {
            let is_followed = self.read.len() > 1 && self.read.back().is_some_and(|(_, line)| !is_empty(line));
            if is_followed || self.read.front().is_some_and(|(_, line)| is_whole(line)) {
                return Ok(self.read.pop_front().map(|(number, line)| (number, cut(&line))));
            }
            let Some(line) = self.lines.next_line()? else {
                let last = self.read.pop_front();
                self.read.clear();
                let last = last.map(|(number, line)| (number, line.trim_end_matches(['\n', '\r']).to_string()));
                return Ok(last.filter(|(_, line)| !line.is_empty()));
            };
            self.read.push_back(line);
        }
    }
}

impl Iterator for TsvLines {
    type Item = Result<(usize, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::separated::lines;

    #[test]
    fn lines_are_those_of_the_whole_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        for text in [
            "",
            "a\n\n\r\n \nb\r\r",
            "\n",
            "\r\n\r\n",
            "a",
            "a\tb\n",
            "a\r\n\r\nb\r",
            "\n\na\n\n\n",
            "a\r\r\nb\r\r\n\r\r\n",
            "a\r\n\n\nb\n \n",
        ] {
            std::fs::write(&path, text).unwrap();
            let rows = TsvLines { lines: TextLines::open(&path).unwrap(), read: VecDeque::new() };
            let rows: Vec<(usize, String)> = rows.map(Result::unwrap).collect();
            let whole: Vec<(usize, String)> = lines(text).map(|(line, values)| (line, values.join("\t"))).collect();
            assert_eq!(rows, whole, "{text:?}");
        }
    }
}
