//! In which order the tokens of a padded batch are visited.

/// Tokens packed by time step, at each step the longest sequence first: the rows of the sequences that are still
/// alive at a step are the first rows of the step before it. Padding has no row.
#[derive(Debug)]
pub(super) struct Plan {
    /// `batch · len`.
    pub(super) padded_rows: usize,
    /// First packed row of each step, and at the end the number of rows.
    starts: Vec<usize>,
    /// Padded row of each packed row, for the direction left to right and for right to left.
    pub(super) rows: [Vec<usize>; 2],
}

impl Plan {
    pub(super) fn new(lengths: &[usize], len: usize) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).filter(|&sequence| lengths[sequence] > 0).collect();
        order.sort_by_key(|&sequence| std::cmp::Reverse(lengths[sequence])); // stable: the batch's order among equals
        let total = lengths.iter().sum();
        let mut starts = vec![0];
        let mut rows = [Vec::with_capacity(total), Vec::with_capacity(total)];
        let steps = order.first().map_or(0, |&longest| lengths[longest]);
        for step in 0..steps {
            for &sequence in order.iter().take_while(|&&sequence| lengths[sequence] > step) {
                rows[0].push(sequence * len + step);
                rows[1].push(sequence * len + lengths[sequence] - 1 - step);
            }
            starts.push(rows[0].len());
        }
        Self { padded_rows: lengths.len() * len, starts, rows }
    }

    pub(super) fn steps(&self) -> usize {
        self.starts.len() - 1
    }

    /// Packed rows of a step.
    pub(super) fn step(&self, step: usize) -> std::ops::Range<usize> {
        self.starts[step]..self.starts[step + 1]
    }

    /// Number of tokens.
    pub(super) fn total(&self) -> usize {
        self.rows[0].len()
    }

    /// Number of sequences that have a token.
    pub(super) fn alive(&self) -> usize {
        self.starts.get(1).copied().unwrap_or(0)
    }
}
