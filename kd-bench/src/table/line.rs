//! A measured row: its numbers, as JSON and as a line of the printed table.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::row::Unit;
use super::worker::Waiting;

/// The other side of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Other {
    pub(super) value: f64,
    pub(super) target: Option<f64>,
}

/// What a row gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) threads: u16,
    /// Timed rounds.
    pub(super) rounds: usize,
    /// The median of the rounds, of one call.
    pub(super) ours: f64,
    pub(super) pytorch: Option<f64>,
    /// How PyTorch's threads waited: what was faster.
    pub(super) waiting: Option<Waiting>,
    pub(super) target: Option<f64>,
    /// Of the rows that ONNX Runtime is measured in too.
    pub(super) onnxruntime: Option<Other>,
    /// The median of the same without this workspace's kernels, where that was measured.
    pub(super) composed: Option<f64>,
    /// Operations of the row's products, where these are most of it.
    pub(super) flop: Option<f64>,
}

impl Line {
    /// `ours_ms`, `pytorch_ms` or `ours_mib`, `pytorch_mib` by the unit; ONNX Runtime's only where it was measured.
    pub(super) fn to_json(&self) -> Value {
        let unit = self.unit.key();
        let mut object = json!({
            "name": self.name,
            format!("ours_{unit}"): self.ours,
            format!("pytorch_{unit}"): self.pytorch,
            "ratio": self.pytorch.map(|pytorch| self.ours / pytorch),
            "target": self.target,
            "threads": self.threads,
            "rounds": self.rounds,
            "pytorch_threads_wait": self.waiting,
        });
        if let Some(flop) = self.flop {
            object["ours_tflop_per_s"] = json!(flop / self.ours / 1e9);
        }
        if let Some(other) = &self.onnxruntime {
            object[format!("onnxruntime_{unit}")] = json!(other.value);
            object["onnxruntime_ratio"] = json!(self.ours / other.value);
            object["onnxruntime_target"] = json!(other.target);
        }
        if let Some(composed) = self.composed {
            object[format!("composed_{unit}")] = json!(composed);
        }
        object
    }

    pub(super) fn summary(&self) -> String {
        let [name, ours, theirs, ratio, _] = self.cells();
        format!("{name}: {ours} / {theirs} = {ratio}")
    }

    fn cells(&self) -> [String; 5] {
        let unit = self.unit.symbol();
        let theirs = self.pytorch.map_or("-".into(), |value| format!("{} {unit}", short(value)));
        let ratio = self.pytorch.map_or("-".into(), |value| ratio(self.ours / value));
        let target = self.target.map_or(String::new(), ratio_target);
        [self.name.clone(), format!("{} {unit}", short(self.ours)), theirs, ratio, target]
    }

    fn onnxruntime_cells(&self) -> Option<[String; 5]> {
        let other = self.onnxruntime.as_ref()?;
        let theirs = format!("{} {}", short(other.value), self.unit.symbol());
        let target = other.target.map_or(String::new(), ratio_target);
        Some(["  against ONNX Runtime".into(), String::new(), theirs, ratio(self.ours / other.value), target])
    }

    fn composed_cells(&self) -> Option<[String; 5]> {
        let composed = self.composed?;
        let ours = format!("{} {}", short(composed), self.unit.symbol());
        let ratio = self.pytorch.map_or("-".into(), |value| ratio(composed / value));
        Some(["  composed of Candle's operations".into(), ours, String::new(), ratio, String::new()])
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    let decimals = if value >= 100.0 { 0 } else { 2 - value.max(1e-3).log10().floor() as i32 };
    format!("{value:.*}", decimals.max(0) as usize)
}

/// Ratios of different models, far below 1, read better as how many times faster.
fn ratio(value: f64) -> String {
    if value < 0.02 { format!("1/{:.0}", 1.0 / value) } else { format!("{value:.2}") }
}

fn ratio_target(value: f64) -> String {
    format!("≤ {}", ratio(value))
}

/// Writes an aligned table, numbers to the right.
pub(super) fn print(lines: &[Line], out: &mut impl Write) -> std::io::Result<()> {
    let head = ["row", "ours", "PyTorch", "ratio", "target"].map(String::from);
    let mut table = vec![head];
    for line in lines {
        table.push(line.cells());
        table.extend(line.composed_cells());
        table.extend(line.onnxruntime_cells());
    }
    let width = |column: usize| table.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for [name, numbers @ ..] in &table {
        write!(out, "{name:<0$}", widths[0])?;
        for (cell, width) in numbers.iter().zip(&widths[1..]) {
            write!(out, "  {cell:>width$}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            name: "gelu".into(),
            unit: Unit::Milliseconds,
            threads: 2,
            rounds: 7,
            ours: 1.5,
            pytorch: Some(2.0),
            waiting: Some(Waiting::Sleeping),
            target: Some(0.8),
            onnxruntime: None,
            composed: None,
            flop: None,
        }
    }

    #[test]
    fn json_names_its_units() {
        assert_eq!(
            line().to_json().to_string(),
            r#"{"name":"gelu","ours_ms":1.5,"pytorch_ms":2.0,"ratio":0.75,"target":0.8,"threads":2,"rounds":7,"pytorch_threads_wait":"sleeping"}"#
        );
        let memory = Line { unit: Unit::Mebibytes, pytorch: None, target: None, ..line() };
        let json = memory.to_json();
        assert_eq!(
            (&json["ours_mib"], &json["pytorch_mib"], &json["ratio"]),
            (&json!(1.5), &Value::Null, &Value::Null)
        );
        assert_eq!(Line { composed: Some(4.5), ..line() }.to_json()["composed_ms"], json!(4.5));
        let other = Other { value: 3.0, target: None };
        let json = Line { onnxruntime: Some(other), ..line() }.to_json();
        assert_eq!((&json["onnxruntime_ms"], &json["onnxruntime_ratio"]), (&json!(3.0), &json!(0.5)));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.01234, 1.234, 12.34, 123.4, 12340.0].map(short), ["0.0123", "1.23", "12.3", "123", "12340"]);
        assert_eq!([0.75, 1.5, 0.004].map(ratio), ["0.75", "1.50", "1/250"]);
    }

    #[test]
    fn columns_are_aligned() {
        let mut out = Vec::new();
        print(&[line(), Line { name: "layer norm".into(), pytorch: None, target: None, ..line() }], &mut out).unwrap();
        let expected = "\
row            ours  PyTorch  ratio  target
gelu        1.50 ms  2.00 ms   0.75  ≤ 0.80
layer norm  1.50 ms        -      -        \n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
