//! All rows, by theme.

mod encoders;
mod ops;
mod recurrent;
mod taggers;

use super::row::Row;

/// Every row, in the order of the table.
pub(super) fn all() -> Vec<Row> {
    let mut rows = ops::rows();
    rows.extend(recurrent::rows());
    rows.extend(encoders::rows());
    rows.extend(taggers::rows());
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct() {
        let mut seen = HashSet::new();
        assert!(super::all().into_iter().all(|row| seen.insert(row.name)));
    }
}
