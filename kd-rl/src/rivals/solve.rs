//! Small dense systems, as many unknowns as teachers.

use candle_core::{Result, bail};

/// `x` with `matrix · x = right`, by elimination with row pivoting.
///
/// # Errors
/// If the matrix is singular.
pub(super) fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Result<Vec<f64>> {
    let size = right.len();
    for column in 0..size {
        let largest = |a: &usize, b: &usize| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs());
        let pivot = (column..size).max_by(largest).unwrap_or(column);
        let scale = matrix.iter().flatten().fold(0.0f64, |largest, value| largest.max(value.abs()));
        if matrix[pivot][column].abs().partial_cmp(&(1e-13 * scale)) != Some(std::cmp::Ordering::Greater) {
            bail!("the system of {size} equations is singular");
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (above, below) = matrix.split_at_mut(column + 1);
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[column] / above[column][column];
            row.iter_mut().zip(&above[column]).skip(column).for_each(|(value, pivot)| *value -= factor * pivot);
            right[column + 1 + offset] -= factor * right[column];
        }
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|place| matrix[row][place] * right[place]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    Ok(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved_and_a_singular_one_refused() {
        // 0x + 2y = 4 and 3x + y = 5, which needs a pivot: y = 2, x = 1.
        assert_eq!(solve(vec![vec![0.0, 2.0], vec![3.0, 1.0]], vec![4.0, 5.0]).unwrap(), [1.0, 2.0]);
        let error = solve(vec![vec![1.0, 2.0], vec![2.0, 4.0]], vec![1.0, 2.0]).unwrap_err().to_string();
        assert!(error.contains("the system of 2 equations is singular"), "{error}");
        assert!(solve(vec![vec![f64::NAN]], vec![1.0]).is_err());
    }
}
