//! Sizes that are known before there is a tensor.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What decides how long an axis is that varies from batch to batch: two of one `Length` are equally long in every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Length {
    origin: Origin,
    /// Positions that windows have added, or taken away.
    more: isize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    /// The longest text of this branch in the batch.
    Branch(usize),
    /// Made of other lengths, by what has this hash.
    Made(u64),
}

impl Length {
    /// That of the longest text of a branch, by its place among the branches.
    pub const fn of_branch(idx: usize) -> Self {
        Self { origin: Origin::Branch(idx), more: 0 }
    }

    /// `more` positions than this, or fewer.
    #[must_use]
    pub const fn and(self, more: isize) -> Self {
        Self { origin: self.origin, more: self.more + more }
    }

    /// A length that follows from `what`, such as other lengths and the numbers that they go through.
    pub fn made_of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self { origin: Origin::Made(hasher.finish()), more: 0 }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Branch(0) => f.write_str("len")?,
            Origin::Branch(idx) => write!(f, "len{}", idx + 1)?,
            Origin::Made(_) => f.write_str("len'")?,
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "{more:+}"),
        }
    }
}

/// One axis of a [`Shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// As long as the longest sequence of the batch, or what is made of such lengths.
    Varies(Length),
    /// So many values in every batch.
    Fixed(usize),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Varies(length) => length.fmt(f),
            Dim::Fixed(size) => size.fmt(f),
        }
    }
}

/// Shape of what a block reads or gives, of one example: without the batch axis, which is written `batch` where a shape is
/// shown.
///
/// ```
/// use kd_students::blocks::{Dim, Length, Shape};
/// let states = Shape(vec![Dim::Varies(Length::of_branch(0)), Dim::Fixed(256)]);
/// assert_eq!((states.to_string(), states.rank()), ("(batch, len, 256)".to_string(), 3));
/// assert_eq!(states.width()?, 256);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A vector of `width` values for each example, `(batch, width)`.
    pub fn vector(width: usize) -> Self {
        Self(vec![Dim::Fixed(width)])
    }

    /// A vector of `width` values for each token, `(batch, len, width)`.
    pub fn sequence(len: Dim, width: usize) -> Self {
        Self(vec![len, Dim::Fixed(width)])
    }

    /// Number of axes with that of the batch, as the format counts: `(batch, len, width)` has rank 3.
    pub fn rank(&self) -> usize {
        self.0.len() + 1
    }

    /// Size of the last axis.
    ///
    /// # Errors
    /// If it varies from batch to batch: ids that nothing has embedded, or a matrix of two texts.
    pub fn width(&self) -> Result<usize, String> {
        match self.0.last() {
            Some(Dim::Fixed(width)) => Ok(*width),
            _ => Err(format!("expected a last axis of one size in every batch, found {self}")),
        }
    }

    /// The same shape with another last axis.
    #[must_use]
    pub fn with_width(&self, width: usize) -> Self {
        let mut dims = self.0.clone();
        if let Some(last) = dims.last_mut() {
            *last = Dim::Fixed(width);
        }
        Self(dims)
    }

    /// Checks that the rank is one of `ranks`.
    ///
    /// # Errors
    /// If not; the message has the expected ranks and the shape.
    pub fn expect_rank(&self, ranks: impl AsRef<[usize]>) -> Result<(), String> {
        let ranks = ranks.as_ref();
        if ranks.contains(&self.rank()) {
            return Ok(());
        }
        let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
        Err(format!("expected an input of rank {}, found {self} of rank {}", ranks.join(" or "), self.rank()))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(batch")?;
        self.0.iter().try_for_each(|dim| write!(f, ", {dim}"))?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{LEN, LEN2};

    #[test]
    fn shapes_show_their_axes_and_say_what_does_not_fit() {
        let matrix = Shape(vec![LEN, Dim::Fixed(7), LEN2]);
        assert_eq!(matrix.to_string(), "(batch, len, 7, len2)");
        assert!(matrix.width().unwrap_err().ends_with("found (batch, len, 7, len2)"));
        let message = Shape::vector(3).expect_rank([3, 4]).unwrap_err();
        assert_eq!(message, "expected an input of rank 3 or 4, found (batch, 3) of rank 2");
        assert_eq!(Shape::sequence(Dim::Fixed(5), 3).expect_rank([3]), Ok(()));
        assert_eq!(Shape::sequence(LEN, 3).with_width(9), Shape::sequence(LEN, 9));
    }
}
