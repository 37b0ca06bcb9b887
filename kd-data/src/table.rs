//! Lines of columns whose names stand elsewhere, as they are found in the wild: some lines are bad.
//!
//! ```text
//! who wrote Emma? ⇥ Jane Austen did. ⇥ 1 ⇥
//! ```
//!
//! The columns are parted by single tabs and nothing is quoted; white space around a column does not count, nor do tabs
//! at the end of a line beyond its last column. Empty lines are passed over. A line of another number of columns than there
//! are names is **skipped** and remembered with its number; a file of which more than a third is skipped is an error,
//! because then the names are wrong and not the lines. (The rule is that of Gong et al. 2019, NeuronBlocks.)

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, count, read_text};

/// The names of a file's columns in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Layout {
    names: Vec<String>,
}

impl Layout {
    /// The layout of a map from names to places, which are counted from 0.
    ///
    /// ```
    /// use kd_data::table::Layout;
    /// let layout = Layout::new([("label".to_string(), 1), ("query".to_string(), 0)])?;
    /// assert_eq!(layout.names(), ["query", "label"]);
    /// let gap = Layout::new([("label".to_string(), 2), ("query".to_string(), 0)]).unwrap_err();
    /// assert_eq!(gap.to_string(), "column `label`: expected one of the places 0 to 1, found 2");
    /// # Ok::<(), kd_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no names, a name occurs twice, or the places are not `0..n`, each once.
    pub fn new(places: impl IntoIterator<Item = (String, usize)>) -> Result<Self> {
        let places: Vec<(String, usize)> = places.into_iter().collect();
        if places.is_empty() {
            return Err(Error::argument("columns", "at least one name", "none"));
        }
        let mut names: Vec<Option<String>> = vec![None; places.len()];
        let last = places.len() - 1;
        for (name, place) in places {
            let what = || format!("column `{name}`");
            if names.iter().flatten().any(|other| *other == name) {
                return Err(Error::argument(what(), "a name of its own", format!("`{name}` again")));
            }
            match names.get_mut(place) {
                Some(Some(other)) => {
                    return Err(Error::argument(what(), "a place of its own", format!("{place}, that of `{other}`")));
                }
                Some(free) => *free = Some(name),
                None => {
                    let expected = format!("one of the places 0 to {last}");
                    return Err(Error::argument(what(), expected, place.to_string()));
                }
            }
        }
        Ok(Self { names: names.into_iter().flatten().collect() })
    }

    /// The names, by place.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The place of a column.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| other == name)
    }
}

/// A line that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// Its number in the file, counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: expected {}, found {}", self.line, self.expected, self.found)
    }
}

/// A good line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, counted from 1.
    pub number: usize,
    /// Its columns, as many as the layout has names.
    pub columns: Vec<String>,
}

/// The good lines of a file, and which ones were not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// Its good lines.
    pub lines: Vec<Line>,
    /// The others.
    pub skipped: Vec<Skipped>,
}

impl Table {
    /// Reads a file, without its first line if that is a `header`.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, has no good line, or more than a third of its lines are bad; the message
    /// names the first bad one.
    pub fn read(path: impl AsRef<Path>, layout: &Layout, header: bool) -> Result<Self> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let mut table = Self { path: path.to_path_buf(), lines: Vec::new(), skipped: Vec::new() };
        for (number, text) in (1..).zip(text.split('\n')).skip(usize::from(header)) {
            match split(text, layout.names.len()) {
                _ if text.trim().is_empty() => {}
                Ok(columns) => {
                    let columns = columns.into_iter().map(str::to_string).collect();
                    table.lines.push(Line { number, columns });
                }
                Err(columns) => table.skipped.push(Skipped {
                    line: number,
                    expected: count(layout.names.len(), "column"),
                    found: count(columns, "column"),
                }),
            }
        }
        check_skipped(path, table.lines.len(), &table.skipped)?;
        Ok(table)
    }
}

/// One line in `columns` columns without the white space around them, or the number of columns that there are.
pub fn split(line: &str, columns: usize) -> std::result::Result<Vec<&str>, usize> {
    let mut found: Vec<&str> = line.trim_end_matches(['\r', '\n']).split('\t').map(str::trim).collect();
    while found.len() > columns && found.last() == Some(&"") {
        found.pop();
    }
    if found.len() == columns { Ok(found) } else { Err(found.len()) }
}

/// Refuses a file of which more than a third was skipped, or all of it.
pub(crate) fn check_skipped(path: &Path, good: usize, skipped: &[Skipped]) -> Result<()> {
    let Some(first) = skipped.first() else {
        return if good > 0 { Ok(()) } else { Err(Error::file(path, "at least one line", "none")) };
    };
    let lines = good + skipped.len();
    if 3 * skipped.len() > lines {
        let found = format!("{} of {lines} bad, the first on {first}", count(skipped.len(), "line"));
        return Err(Error::file(path, "at most a third of the lines to be bad", found));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new([("text".to_string(), 0), ("label".to_string(), 1)]).unwrap()
    }

    fn read(text: &str, header: bool) -> Result<Table> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.tsv"), text).unwrap();
        Table::read(folder.path().join("t.tsv"), &layout(), header)
    }

    fn columns(table: &Table) -> Vec<(usize, [&str; 2])> {
        table.lines.iter().map(|line| (line.number, [0, 1].map(|place| line.columns[place].as_str()))).collect()
    }

    #[test]
    fn columns_are_trimmed_and_nothing_is_quoted() {
        let table = read("\u{feff}\"a b \t1\t\t\r\n\n\"\"x\"\"\t 0\r\n", false).unwrap();
        assert_eq!(columns(&table), [(1, ["\"a b", "1"]), (3, ["\"\"x\"\"", "0"])]);
        assert!(table.skipped.is_empty());
    }

    #[test]
    fn a_header_is_passed_over_and_an_empty_column_is_a_column() {
        let table = read("text\tlabel\na\t\n\tb\n", true).unwrap();
        assert_eq!(columns(&table), [(2, ["a", ""]), (3, ["", "b"])]);
    }

    #[test]
    fn bad_lines_are_skipped_up_to_a_third() {
        // One of three is a third, two of five are more.
        let table = read("a\t1\nb\nc\t1\n", false).unwrap();
        assert_eq!(columns(&table), [(1, ["a", "1"]), (3, ["c", "1"])]);
        assert_eq!(
            table.skipped.iter().map(Skipped::to_string).collect::<Vec<_>>(),
            ["line 2: expected 2 columns, found 1 column"]
        );
        let message = read("a\t1\nb\nc\t1\nd\t1\t2\ne\t1\n", false).unwrap_err().to_string();
        let expected = "t.tsv: expected at most a third of the lines to be bad, found 2 lines of 5 bad, the first on line 2: \
                        expected 2 columns, found 1 column";
        assert_eq!(message[message.find("t.tsv").unwrap()..], *expected);
        let message = read("text\tlabel\n", true).unwrap_err().to_string();
        assert!(message.ends_with("t.tsv: expected at least one line, found none"), "{message}");
    }

    #[test]
    fn layouts_that_are_none_are_named() {
        let message = |places: &[(&str, usize)]| {
            let places = places.iter().map(|(name, place)| (name.to_string(), *place));
            Layout::new(places).unwrap_err().to_string()
        };
        assert_eq!(message(&[]), "columns: expected at least one name, found none");
        assert_eq!(message(&[("a", 0), ("a", 1)]), "column `a`: expected a name of its own, found `a` again");
        assert_eq!(message(&[("a", 0), ("b", 0)]), "column `b`: expected a place of its own, found 0, that of `a`");
        assert_eq!((layout().place("label"), layout().place("x")), (Some(1), None));
    }
}
