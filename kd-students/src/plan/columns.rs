//! Which table each column of a branch is looked up in.

use super::item::error;
use super::{Embedded, Inputs, Warning};
use crate::blocks::embedding::{Cluster, Column, Place};
use crate::blocks::{Dim, Length, Shape};
use crate::error::Result;

/// The branches with the clusters of their columns; `path` is that of the embedding's `conf`.
pub(super) fn branches(
    inputs: &Inputs,
    clusters: &[Cluster],
    path: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Embedded>> {
    let known = || inputs.branches.iter().flat_map(|branch| &branch.columns);
    for (at, cluster) in clusters.iter().enumerate() {
        for (idx, column) in cluster.columns.iter().enumerate() {
            let path = format!("{path}.{}.cols[{idx}]", cluster.name);
            let before = &clusters[..at];
            if cluster.columns[..idx].contains(column) || before.iter().any(|other| other.columns.contains(column)) {
                return error(path, format!("expected every column once, found `{column}` again"));
            }
            if !known().any(|other| other == column) {
                warnings.push(Warning { path, message: format!("`{column}` is a column of no branch") });
            }
        }
    }
    (0..inputs.branches.len()).map(|idx| embedded(idx, inputs, clusters, path)).collect()
}

fn embedded(idx: usize, inputs: &Inputs, clusters: &[Cluster], path: &str) -> Result<Embedded> {
    let branch = &inputs.branches[idx];
    let cluster = |column: &String| clusters.iter().find(|cluster| cluster.columns.contains(column));
    let is_embedded = branch.columns.iter().any(|column| cluster(column).is_some());
    let (mut columns, mut width, mut is_placed, mut features) = (Vec::new(), 0, [false; 2], 0);
    for column in &branch.columns {
        let cluster = cluster(column);
        if is_embedded && cluster.is_none() {
            let message = format!("expected a cluster with column `{column}` of branch `{}`, found none", branch.name);
            return error(path, message);
        }
        width += cluster.map_or(0, Cluster::width);
        let place = match (cluster.is_some_and(Cluster::is_characters), is_placed) {
            (true, [_, false]) => Place::Characters,
            (true, [_, true]) => {
                let message =
                    format!("expected one column of characters in branch `{}`, found `{column}` too", branch.name);
                return error(path, message);
            }
            (false, [false, _]) => Place::Ids,
            (false, [true, _]) => {
                features += 1;
                Place::Feature(features - 1)
            }
        };
        is_placed[usize::from(place == Place::Characters)] = true;
        columns.push(Column { name: column.clone(), cluster: cluster.map(|cluster| cluster.name.clone()), place });
    }
    let len = if is_embedded { branch.len(idx) } else { Dim::Varies(Length::of_branch(idx)) };
    let shape = if is_embedded { Shape::sequence(len, width) } else { Shape(vec![len]) };
    let is_whole = inputs.legacy_padding && branch.length.is_some();
    Ok(Embedded { name: branch.name.clone(), columns, shape, is_whole })
}
