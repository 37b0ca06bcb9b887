//! What a network reads and is asked for.

use crate::blocks::{Dim, Length};

/// Columns of a file that belong to one text: its words, and what is known of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// What layers call it in their `inputs`.
    pub name: String,
    /// Its columns, by which the clusters of the `Embedding` find it.
    pub columns: Vec<String>,
    /// Tokens of every text, padding included; `None` where a batch is as long as its longest.
    pub length: Option<usize>,
}

impl Branch {
    /// Words of a text, where the branch is the `idx`-th.
    pub(crate) fn len(&self, idx: usize) -> Dim {
        self.length.map_or(Dim::Varies(Length::of_branch(idx)), Dim::Fixed)
    }
}

/// A column of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the column.
    pub name: String,
    /// Number of its classes; `None` for numbers and spans.
    pub classes: Option<usize>,
}

/// What stands around a network: texts, labels, and how padding is treated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// The texts; the sequences of [`Tokens`](kd_core::batch::Tokens) in this order.
    pub branches: Vec<Branch>,
    /// The labels. The classes of the first that has some are what `"#target#"` and `-1` mean as a width;
    /// `"#target:NAME#"` means those of target `NAME`.
    pub targets: Vec<Target>,
    /// See [`Site::legacy_padding`](crate::blocks::Site::legacy_padding).
    pub legacy_padding: bool,
}

impl Inputs {
    /// Number of classes of the first target that has some.
    pub fn classes(&self) -> Option<usize> {
        self.targets.iter().find_map(|target| target.classes)
    }
}
