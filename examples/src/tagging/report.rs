//! The report of a low-resource tagging experiment: rows, gains, table.

use serde::Serialize;

use super::{BatchLatency, Scores, Speed, Trained, Way};
use crate::plot::Curve;
use crate::report::{Spread, milliseconds, percent, table};

/// What was found for one size of the labelled set.
#[derive(Debug, Default)]
pub struct Column {
    /// Labelled sentences.
    pub labels: usize,
    /// Of each draw.
    pub teacher: Vec<Scores>,
    /// Of each draw, the students in the order of [`Way::ALL`].
    pub students: Vec<Vec<Trained>>,
}

/// What `report.json` holds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the program.
    program: &'static str,
    /// What was asked for.
    settings: serde_json::Value,
    rows: Vec<Row>,
    /// Paired differences of test F1 over the draws.
    gains: Vec<Gain>,
    /// The draw whose student is kept as `student/`.
    student: String,
    /// An encoder of BERT-base's shape with random weights.
    bert_base: Option<Speed>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    labels: usize,
    f1_mean: f64,
    f1_std: f64,
    dev_f1_mean: f64,
    dev_f1_std: f64,
    seeds: usize,
    /// Test F1 of each draw.
    f1: Vec<f64>,
    parameters: Option<usize>,
    bytes: Option<u64>,
    /// Of the best student for all students: their shape is the same.
    latency: Option<Vec<BatchLatency>>,
}

#[derive(Debug, Serialize)]
struct Gain {
    labels: usize,
    name: String,
    mean: f64,
    standard_error: f64,
}

impl Report {
    /// Means over the draws, and what distillation brought in each.
    pub fn new(settings: &serde_json::Value, columns: &[Column], student: String, speeds: Option<[Speed; 3]>) -> Self {
        let (mut rows, mut gains) = (Vec::new(), Vec::new());
        let [student_speed, teacher_speed, bert_base] = match speeds {
            Some(speeds) => speeds.map(Some),
            None => [None, None, None],
        };
        for column in columns {
            let mut row = |name, scores: &[Scores], parameters, bytes, speed: &Option<Speed>| {
                let f1: Vec<f64> = scores.iter().map(|scores| scores.test_f1).collect();
                let (test, dev) = (Spread::of(&f1), Spread::of(&scores.iter().map(|s| s.dev_f1).collect::<Vec<_>>()));
                rows.push(Row {
                    name,
                    labels: column.labels,
                    f1_mean: test.mean,
                    f1_std: test.std,
                    dev_f1_mean: dev.mean,
                    dev_f1_std: dev.std,
                    seeds: f1.len(),
                    f1,
                    parameters,
                    bytes,
                    latency: speed.as_ref().map(|speed| speed.latency.clone()),
                });
            };
            let of_teacher = teacher_speed.as_ref().map(|speed| (speed.parameters, speed.bytes)).unzip();
            row("teacher", &column.teacher, of_teacher.0, of_teacher.1, &teacher_speed);
            for (idx, way) in Way::ALL.iter().enumerate() {
                let trained: Vec<&Trained> = column.students.iter().map(|students| &students[idx]).collect();
                let scores: Vec<Scores> = trained.iter().map(|trained| trained.scores).collect();
                let parameters = trained.iter().map(|trained| trained.parameters).max();
                row(way.name(), &scores, parameters, trained.iter().map(|trained| trained.bytes).max(), &student_speed);
            }
            for (idx, way) in Way::ALL.iter().enumerate().skip(1) {
                let pairs = column.students.iter().map(|s| s[idx].scores.test_f1 - s[0].scores.test_f1);
                let gain = Spread::of(&pairs.collect::<Vec<_>>());
                gains.push(Gain {
                    labels: column.labels,
                    name: format!("{} over gold", way.name()),
                    mean: gain.mean,
                    standard_error: gain.std / (column.students.len() as f64).sqrt(),
                });
            }
        }
        Self { program: "compact_ner", settings: settings.clone(), rows, gains, student, bert_base }
    }

    /// F1 on test by number of labels, one curve for each model.
    pub fn curves(&self) -> Vec<Curve> {
        let names = self.rows.iter().map(|row| row.name).take(1 + Way::ALL.len());
        let points = |name| self.rows.iter().filter(move |row| row.name == name);
        names
            .map(|name| Curve {
                name: name.to_string(),
                points: points(name).map(|row| (row.labels as f64, row.f1_mean, row.f1_std)).collect(),
            })
            .collect()
    }

    /// Prints the table, the gains and the latencies.
    pub fn print(&self) {
        let megabytes = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
        let millions = |count: Option<usize>| count.map_or(String::new(), |count| format!("{:.2}", count as f64 / 1e6));
        let rows = self.rows.iter().map(|row| {
            let spread = |mean, std| percent(Spread { mean, std }, row.seeds);
            vec![
                format!("{} ({})", row.name, row.labels),
                spread(row.f1_mean, row.f1_std),
                spread(row.dev_f1_mean, row.dev_f1_std),
                millions(row.parameters),
                megabytes(row.bytes),
            ]
        });
        let header = ["model (labels)", "test F1", "dev F1", "M parameters", "MB"];
        println!("\n{}\n", table(&header, &rows.collect::<Vec<_>>()));
        for Gain { labels, name, mean, standard_error } in &self.gains {
            println!("{name}, {labels} labels: {:+.1} ± {:.1} (standard error)", 100.0 * mean, 100.0 * standard_error);
        }
        let (Some(bert_base), [teacher, .., student]) = (&self.bert_base, self.rows.as_slice()) else { return };
        let (Some(teacher), Some(student)) = (&teacher.latency, &student.latency) else { return };
        let rows = student.iter().zip(teacher).zip(&bert_base.latency).map(|((student, teacher), base)| {
            let faster = |than: f64| format!("{:.0}", than / student.latency.p50_ms);
            vec![
                student.batch.to_string(),
                milliseconds(&student.latency),
                format!("{:.0}", student.words_per_second),
                milliseconds(&teacher.latency),
                faster(teacher.latency.p50_ms),
                milliseconds(&base.latency),
                faster(base.latency.p50_ms),
            ]
        });
        let header = [
            "batch",
            "student p50/p99 ms",
            "words/s",
            "teacher ms",
            "times faster",
            "BERT-base shape ms",
            "times faster",
        ];
        println!("\nsentences of 40 words, {} threads", student[0].latency.threads);
        println!("{}", table(&header, &rows.collect::<Vec<_>>()));
    }
}
