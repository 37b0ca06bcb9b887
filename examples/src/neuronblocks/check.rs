//! `check`: a configuration without its files: shapes, numbers of parameters, warnings. And `draw`, of the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kd_students::plan::Target;
use serde_json::Value;

use super::blueprint::Blueprint;
use super::configuration::Configuration;
use super::draw::{Node, Role, svg};
use super::pairing;
use crate::report::table;

/// What is known of a configuration's network.
#[derive(Debug)]
pub struct Checked {
    blueprint: Blueprint,
    counts: BTreeMap<String, usize>,
    /// Values of a row of each cluster's table, and what does not depend on their number.
    per_row: BTreeMap<String, (usize, usize)>,
    /// A line on each target.
    targets: Vec<String>,
    /// All warnings.
    pub warnings: Vec<String>,
}

/// Numbers of rows at which parameters are counted: the difference is what a row has.
const ROWS: (usize, usize) = (2, 3);

impl Checked {
    /// Checks everything but the files.
    ///
    /// # Errors
    /// What is wrong first, with its path.
    pub fn new(configuration: &Configuration) -> Result<Self> {
        let blueprint = Blueprint::of(configuration, None).with_context(|| configuration.path.display().to_string())?;
        blueprint.check_learning(configuration).with_context(|| configuration.path.display().to_string())?;
        blueprint.reading(configuration, true)?;
        blueprint.reading(configuration, false)?;
        let rows = |rows: usize| blueprint.plan.clusters().iter().map(|it| (it.name.clone(), rows)).collect();
        let (few, more) = (blueprint.parameters(&rows(ROWS.0))?, blueprint.parameters(&rows(ROWS.1))?);
        let per_row = blueprint.plan.clusters().iter().map(|cluster| {
            let name = format!("embedding.{}", cluster.name);
            let (few, more) = (few.get(&name).copied().unwrap_or(0), more.get(&name).copied().unwrap_or(0));
            (cluster.name.clone(), (more - few, few - ROWS.0 * (more - few)))
        });
        let per_row = per_row.collect();
        let mut warnings = configuration.warnings.clone();
        warnings.extend(blueprint.warnings(configuration));
        let target = |target: &Target| match target.classes {
            None => format!("target {}: no classes", target.name),
            Some(_) if takes_classes_of_data(configuration, &blueprint, &target.name) => {
                format!("target {}: as many classes as the data has", target.name)
            }
            Some(classes) => {
                format!("target {}: {classes} classes, by the layer that is compared with it", target.name)
            }
        };
        let targets = blueprint.inputs.targets.iter().map(target).collect();
        Ok(Self { per_row, counts: few, targets, warnings, blueprint })
    }

    /// A row for each branch, cluster and layer.
    pub fn print(&self) {
        let plan = &self.blueprint.plan;
        let mut rows: Vec<Vec<String>> = Vec::new();
        for branch in plan.branches() {
            let columns = branch.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
            rows.push([&branch.name, "input", &columns, &branch.shape.to_string(), ""].map(str::to_string).to_vec());
        }
        for (cluster, (per_row, rest)) in &self.per_row {
            let rest = if *rest == 0 { String::new() } else { format!(" + {rest}") };
            let count = format!("{per_row} x symbols of {cluster}{rest}");
            rows.push(["embedding", "Embedding", cluster, "", &count].map(str::to_string).to_vec());
        }
        for layer in plan.layers() {
            let count = if layer.owner == layer.id {
                self.counts.get(&layer.id).copied().unwrap_or(0).to_string()
            } else {
                format!("those of {}", layer.owner)
            };
            let output = if layer.is_output { " (output)" } else { "" };
            let block = format!("{}{output}", layer.block);
            rows.push(
                [&layer.id, &block, &layer.inputs.join(", "), &layer.shape.to_string(), &count]
                    .map(|cell: &String| cell.clone())
                    .to_vec(),
            );
        }
        println!("{}", table(&["layer", "block", "reads", "shape", "parameters"], &rows));
        let known: usize = plan.layers().iter().filter_map(|layer| self.counts.get(&layer.id)).sum();
        println!("\n{known} parameters without those that depend on the number of symbols");
        for target in &self.targets {
            println!("{target}");
        }
        for warning in &self.warnings {
            eprintln!("warning: {warning}");
        }
    }

    /// The graph as SVG.
    pub fn draw(&self, title: &str, losses: &serde_json::Value) -> String {
        let plan = &self.blueprint.plan;
        let mut nodes: Vec<Node> = Vec::new();
        for branch in plan.branches() {
            let columns = branch.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(" + ");
            let lines = vec![columns, branch.shape.to_string()];
            nodes.push(Node { id: branch.name.clone(), lines, inputs: vec![], role: Role::Input });
        }
        for layer in plan.layers() {
            let mut lines = vec![layer.block.clone(), layer.shape.to_string()];
            if layer.owner != layer.id {
                lines.push(format!("shares {}", layer.owner));
            }
            let role = if layer.is_output { Role::Output } else { Role::Layer };
            nodes.push(Node { id: layer.id.clone(), lines, inputs: layer.inputs.clone(), role });
        }
        for (idx, loss) in losses["losses"].as_array().into_iter().flatten().enumerate() {
            let inputs: Vec<String> = serde_json::from_value(loss["inputs"].clone()).unwrap_or_default();
            let id = format!("{} {}", loss["type"].as_str().unwrap_or("loss"), idx + 1);
            let lines = inputs.last().map(|target| format!("against {target}")).into_iter().collect();
            nodes.push(Node { id, lines, inputs, role: Role::Loss });
        }
        svg(title, &nodes)
    }
}

/// Whether the layer that is compared with a target has an output for each class of it, however many there are.
fn takes_classes_of_data(configuration: &Configuration, blueprint: &Blueprint, target: &str) -> bool {
    let Some(id) = pairing::compared_with(configuration, target) else { return false };
    // Layers such as a CRF have the width of what they read.
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let Some(layer) = blueprint.plan.layers().iter().find(|layer| layer.id == id) else { continue };
        let items = configuration.architecture().as_array().map(Vec::as_slice).unwrap_or_default();
        let item = items.iter().find(|item| item["layer_id"] == layer.owner.as_str());
        match item.map(|item| &item["conf"]["hidden_dim"]) {
            Some(Value::Null) | None => open.extend(layer.inputs.iter().cloned()),
            Some(Value::Array(dims)) => return dims.last().is_some_and(is_open),
            Some(dim) => return is_open(dim),
        }
    }
    false
}

fn is_open(dim: &Value) -> bool {
    *dim == -1 || *dim == "#target#"
}
