//! A bar with rate and time left on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kd_core::trainer::{Observer, Report};

use crate::interrupt;

/// Time between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(20);

/// Progress of one piece of work, on standard error.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    unit: &'static str,
    bar: Option<ProgressBar>,
    started: Instant,
    done_at_start: u64,
    printed: Instant,
}

impl Progress {
    /// Work of `total` units called `unit` (plural), of which `done` were done before.
    pub fn new(label: &str, total: usize, done: usize, unit: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{prefix:28} {bar:24} {pos}/{len} {per_sec}, {eta} left  {msg}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total as u64).with_style(style).with_prefix(label.to_string());
            bar.set_position(done as u64);
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        let (total, done) = (total as u64, done as u64);
        Self { label: label.to_string(), total, done, unit, bar, started: now, done_at_start: done, printed: now }
    }

    /// `done` units are done now; `message` says how it goes.
    pub fn set(&mut self, done: usize, message: &str) {
        self.done = done as u64;
        match &self.bar {
            Some(bar) => {
                bar.set_message(message.to_string());
                bar.set_position(self.done);
            }
            None if self.printed.elapsed() >= PLAIN_EVERY => {
                self.printed = Instant::now();
                let rate = (self.done - self.done_at_start) as f64 / self.started.elapsed().as_secs_f64();
                let left = (self.total - self.done) as f64 / rate.max(1e-9);
                let Self { label, done, total, unit, .. } = self;
                eprintln!("{label}: {done}/{total} {unit}, {rate:.1}/s, {left:.0} s left  {message}");
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let Self { label, done, unit, .. } = self;
        eprintln!("{label}: {done} {unit} in {:.1} s", self.started.elapsed().as_secs_f64());
    }
}

impl Observer for Progress {
    fn observe(&mut self, report: &Report) -> kd_core::Result<ControlFlow<()>> {
        let mut message = format!("loss {:.4}", report.loss);
        if let Some(score) = report.score {
            message += &format!(", score {score:.4}");
        }
        if report.skipped > 0 {
            message += &format!(", {} skipped", report.skipped);
        }
        self.set(report.step, &message);
        Ok(if interrupt::is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}
