//! `draw`: the graph of a network as SVG, inputs at the top, outputs at the bottom.
//!
//! Layers stand in rows by their longest way from an input; in a row they stand where the mean of what they read is
//! (the barycentre of Sugiyama et al. 1981), so that few lines cross.

use std::collections::HashMap;
use std::fmt::Write;

/// A box of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Id of the layer, or name of the branch.
    pub id: String,
    /// What it is, and its shape.
    pub lines: Vec<String>,
    /// Ids that it reads, earlier in the list.
    pub inputs: Vec<String>,
    /// Role, which decides the colour.
    pub role: Role,
}

/// What a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A branch of the inputs.
    Input,
    /// A layer.
    Layer,
    /// A layer that a loss reads.
    Output,
    /// A loss.
    Loss,
}

impl Role {
    fn fill(self) -> &'static str {
        match self {
            Self::Input => "#e8f0e4",
            Self::Layer => "#eef2f8",
            Self::Output => "#fdf0d8",
            Self::Loss => "#f8e4e4",
        }
    }
}

const CHAR: f64 = 7.0;
const LINE: f64 = 16.0;
const PAD: f64 = 9.0;
const GAP_X: f64 = 28.0;
const GAP_Y: f64 = 44.0;
const TITLE: f64 = 40.0;

/// The graph of `nodes`, which stand in an order in which all inputs come before what reads them.
pub fn svg(title: &str, nodes: &[Node]) -> String {
    let place: HashMap<&str, usize> = nodes.iter().enumerate().map(|(idx, node)| (node.id.as_str(), idx)).collect();
    let inputs: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| node.inputs.iter().filter_map(|id| place.get(id.as_str()).copied()).collect())
        .collect();
    let rows = rows(&inputs);
    let width = |idx: usize| {
        let lines = std::iter::once(&nodes[idx].id).chain(&nodes[idx].lines);
        lines.map(|line| line.chars().count()).max().unwrap_or(0) as f64 * CHAR + 2.0 * PAD
    };
    let height = |idx: usize| (1 + nodes[idx].lines.len()) as f64 * LINE + PAD;
    let row_width = |row: &[usize]| row.iter().map(|&idx| width(idx) + GAP_X).sum::<f64>();
    let total = rows.iter().map(|row| row_width(row)).fold(title.chars().count() as f64 * 9.0 + GAP_X, f64::max);

    // Left and top of each box.
    let (mut corners, mut top) = (vec![(0.0, 0.0); nodes.len()], TITLE);
    for row in &rows {
        let mut left = (total - row_width(row)) / 2.0 + GAP_X / 2.0;
        for &idx in row {
            corners[idx] = (left, top);
            left += width(idx) + GAP_X;
        }
        top += row.iter().map(|&idx| height(idx)).fold(0.0, f64::max) + GAP_Y;
    }

    let (mut lines, mut boxes) = (String::new(), String::new());
    for (idx, node) in nodes.iter().enumerate() {
        let (x, y) = corners[idx];
        for (nth, &from) in inputs[idx].iter().enumerate() {
            let (fx, fy) = corners[from];
            let (x1, y1) = (fx + width(from) / 2.0, fy + height(from));
            let x2 = x + width(idx) * (nth + 1) as f64 / (inputs[idx].len() + 1) as f64;
            let bend = (y - y1) / 2.0;
            let _ = writeln!(
                lines,
                r##"<path d="M{x1:.1} {y1:.1} C{x1:.1} {:.1} {x2:.1} {:.1} {x2:.1} {y:.1}" fill="none" stroke="#667" marker-end="url(#tip)"/>"##,
                y1 + bend,
                y - bend
            );
        }
        let _ = writeln!(
            boxes,
            r##"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="5" fill="{}" stroke="#445"/>"##,
            width(idx),
            height(idx),
            node.role.fill()
        );
        for (nth, line) in std::iter::once(&node.id).chain(&node.lines).enumerate() {
            let weight = if nth == 0 { r#" font-weight="bold""# } else { "" };
            let (cx, cy) = (x + width(idx) / 2.0, y + (nth + 1) as f64 * LINE);
            let _ = writeln!(
                boxes,
                r#"<text x="{cx:.1}" y="{cy:.1}" text-anchor="middle"{weight}>{}</text>"#,
                escaped(line)
            );
        }
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0}" height="{top:.0}" viewBox="0 0 {total:.0} {top:.0}" font-family="DejaVu Sans Mono, monospace" font-size="11">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>
<text x="{:.1}" y="24" text-anchor="middle" font-size="15">{}</text>
{lines}{boxes}</svg>
"##,
        total / 2.0,
        escaped(title)
    )
}

/// The boxes of each row, from left to right.
fn rows(inputs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut depth = vec![0usize; inputs.len()];
    for idx in 0..inputs.len() {
        depth[idx] = inputs[idx].iter().map(|&from| depth[from] + 1).max().unwrap_or(0);
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); depth.iter().max().map_or(0, |max| max + 1)];
    for (idx, &depth) in depth.iter().enumerate() {
        rows[depth].push(idx);
    }
    let mut across = vec![0.0; inputs.len()];
    for row in &mut rows {
        let centre = |idx: usize| {
            let from = &inputs[idx];
            from.iter().map(|&from| across[from]).sum::<f64>() / from.len().max(1) as f64
        };
        let mut placed: Vec<(f64, usize)> = row.iter().map(|&idx| (centre(idx), idx)).collect();
        placed.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: equal ones stay in the order of the file
        *row = placed.into_iter().map(|(_, idx)| idx).collect();
        for (nth, &idx) in row.iter().enumerate() {
            across[idx] = (nth + 1) as f64 / (row.len() + 1) as f64;
        }
    }
    rows
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stand_below_what_they_read_and_do_not_cross() {
        // 0 and 1 are inputs; 2 reads 1, 3 reads 0, 4 both of these, and 1 once more.
        let inputs = [vec![], vec![], vec![1], vec![0], vec![2, 3, 1]];
        assert_eq!(rows(&inputs), [vec![0, 1], vec![3, 2], vec![4]]);
    }

    #[test]
    fn a_box_and_a_line_for_each() {
        let node = |id: &str, inputs: &[&str], role| Node {
            id: id.to_string(),
            lines: vec!["BiLSTM".to_string()],
            inputs: inputs.iter().map(|id| id.to_string()).collect(),
            role,
        };
        let nodes = [node("a<b", &[], Role::Input), node("out", &["a<b"], Role::Output)];
        let drawn = svg("pairs & more", &nodes);
        assert_eq!(drawn.matches("<rect").count(), 3, "{drawn}");
        assert_eq!(drawn.matches("marker-end").count(), 1);
        assert!(drawn.contains("pairs &amp; more") && drawn.contains("a&lt;b"));
    }
}
