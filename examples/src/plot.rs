//! Curves as SVG.

use std::path::Path;

use anyhow::{Context, Result, bail};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels of a plot without the names of its curves.
const WIDTH: u32 = 760;

/// A named curve of `(x, mean, standard deviation)`.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64, f64)>,
}

/// What stands around a plot.
#[derive(Debug, Clone, Copy)]
pub struct Titles<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the x axis.
    pub x: &'a str,
    /// Beside the y axis.
    pub y: &'a str,
    /// How the x axis is divided.
    pub scale: Scale,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are as long.
    Linear,
    /// Equal ratios are as long.
    Logarithmic,
}

/// Draws `curves` and writes the SVG to `path`, their names beside it; the bars are ± one standard deviation. The y axis lies within 0 and 1.
///
/// # Errors
/// If there is no point, an x on a logarithmic axis is not positive, or the file cannot be written.
pub fn curves(path: &Path, titles: Titles<'_>, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let fold = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (left, right) = fold(&mut points().map(|&(x, ..)| x));
    let (bottom, top) = fold(&mut points().flat_map(|&(_, y, std)| [y - std, y + std]));
    if !(left.is_finite() && right.is_finite()) {
        bail!("a plot needs points, found x from {left} to {right}");
    }
    // A decade's marks would leave 150 to 300 without one.
    let mut marks: Vec<f64> = points().map(|&(x, ..)| x).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let margin = (0.08 * (top - bottom)).max(0.005);
    let y = (bottom - margin).max(0.0)..(top + margin).min(1.0);
    let svg = match titles.scale {
        Scale::Logarithmic if left <= 0.0 => {
            bail!("a curve over a logarithmic axis needs points with a positive x, found x from {left} to {right}")
        }
        Scale::Logarithmic => draw(titles, curves, (left * 0.85..right * 1.18).log_scale().with_key_points(marks), y)?,
        Scale::Linear => {
            let beside = (0.05 * (right - left)).max(0.05);
            draw(titles, curves, left - beside..right + beside, y)?
        }
    };
    kd_core::checkpoint::replace_file_with(path, svg.as_bytes()).context("writing the plot")
}

/// The SVG.
fn draw<X>(titles: Titles<'_>, curves: &[Curve], x: X, y: std::ops::Range<f64>) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    // Ten marks or so, no two of which may have one name.
    let digits = if y.end - y.start < 0.12 { 3 } else { 2 };
    {
        let longest = curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0) as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH + 50 + 8 * longest, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let (left, legend) = area.split_horizontally(WIDTH);
        let mut chart = ChartBuilder::on(&left)
            .caption(titles.title, ("sans-serif", 18))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(titles.x)
            .y_desc(titles.y)
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .x_label_formatter(&|x| if (x - x.round()).abs() < 1e-9 { format!("{x:.0}") } else { String::new() })
            .light_line_style(WHITE)
            .draw()?;
        for (idx, curve) in curves.iter().enumerate() {
            let color = Palette99::pick(idx).to_rgba();
            let line = LineSeries::new(curve.points.iter().map(|&(x, y, _)| (x, y)), color.stroke_width(2));
            chart.draw_series(line.point_size(3))?;
            let y = 60 + 22 * idx as i32;
            let name = ("sans-serif", 14).into_font().into_text_style(&legend).pos(Pos::new(HPos::Left, VPos::Center));
            legend.draw(&PathElement::new([(4, y), (24, y)], color.stroke_width(2)))?;
            legend.draw(&Text::new(curve.name.clone(), (32, y), name))?;
            let bars = curve.points.iter().filter(|&&(.., std)| std > 0.0);
            chart.draw_series(bars.map(|&(x, y, std)| {
                PathElement::new([(x, (y - std).max(0.0)), (x, (y + std).min(1.0))], color.stroke_width(1))
            }))?;
        }
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_an_svg_with_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.svg");
        let curve = |name: &str| Curve { name: name.to_string(), points: vec![(150., 0.6, 0.02), (300., 0.7, 0.01)] };
        let scale = Scale::Logarithmic;
        let titles = Titles { title: "F1 by labels", x: "labelled sentences", y: "F1", scale };
        curves(&path, titles, &[curve("gold"), curve("teacher")]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let texts: Vec<&str> = svg.lines().map(str::trim).collect();
        for part in ["gold", "teacher", "labelled sentences", "150", "300"] {
            assert!(texts.contains(&part), "{part}");
        }
        // The names stand to the right of every curve.
        let x_of = |text: &str| {
            let text = texts.iter().position(|line| *line == text).unwrap();
            let open = texts[text - 1].split("x=\"").nth(1).and_then(|rest| rest.split('"').next());
            open.unwrap().parse::<u32>().unwrap()
        };
        assert!(x_of("gold") > WIDTH && x_of("teacher") > WIDTH && x_of("300") < WIDTH);
        let close = Curve { name: "close".to_string(), points: vec![(150., 0.86, 0.0), (300., 0.9, 0.0)] };
        curves(&path, titles, &[close]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let mut marks: Vec<&str> = svg.lines().map(str::trim).filter(|text| text.starts_with("0.")).collect();
        let all = marks.len();
        marks.dedup();
        assert!(all > 4 && marks.len() == all, "{marks:?}");
        assert!(curves(&path, titles, &[]).unwrap_err().to_string().contains("needs points"));
        let zero = Curve { name: "zero".to_string(), points: vec![(0., 0.5, 0.0), (5., 0.6, 0.0)] };
        let message = curves(&path, titles, std::slice::from_ref(&zero)).unwrap_err().to_string();
        assert!(message.contains("found x from 0 to 5"), "{message}");
        curves(&path, Titles { scale: Scale::Linear, ..titles }, &[zero]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().lines().any(|line| line.trim() == "zero"));
    }
}
