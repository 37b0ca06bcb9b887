//! A log of steps that survives kills.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Observer, Report};
use crate::error::{Error, Result};

/// Writes reports to a file, one JSON object a line: `{"step":1,"steps":100,"loss":0.7,…}`.
///
/// There is nothing in it but the [`Report`], so the log of a run that was killed and resumed is that of one that was
/// not, byte for byte: what was written after the checkpoint is cut off when training goes on. Numbers that are not
/// finite are `null`.
///
/// In a new run the file is written anew. A resumed run goes on with it, or starts it if there is none.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    every: usize,
    file: Option<File>,
}

impl JsonLines {
    /// A log at `path` of every step.
    pub fn new(path: &Path) -> Self {
        Self::every(path, 1)
    }

    /// A log at `path` of every step whose number is a multiple of `steps`, of all that are evaluated or skipped, and
    /// of the last.
    pub fn every(path: &Path, steps: usize) -> Self {
        Self { path: path.to_path_buf(), every: steps.max(1), file: None }
    }

    /// The length of the file up to the last line of a step of at most `step`, and that step.
    fn kept(&self, step: usize) -> std::io::Result<(u64, usize)> {
        #[derive(Deserialize)]
        struct Line {
            step: usize,
        }
        let mut reader = BufReader::new(File::open(&self.path)?);
        let (mut length, mut last, mut line) = (0, 0, Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            // A line that was cut by the kill has no end, or none that can be read.
            match serde_json::from_slice::<Line>(&line) {
                Ok(found) if line.ends_with(b"\n") && found.step <= step => last = found.step,
                _ => break,
            }
            length += line.len() as u64;
            line.clear();
        }
        Ok((length, last))
    }
}

impl Observer for JsonLines {
    fn begin(&mut self, step: usize) -> Result<()> {
        let mut length = 0;
        if step > 0 && self.path.exists() {
            let last;
            (length, last) = self.kept(step).map_err(Error::io(&self.path))?;
            let expected = step - step % self.every;
            if last < expected {
                return Err(Error::Checkpoint {
                    path: self.path.clone(),
                    message: format!(
                        "expected a log up to step {expected}, where training goes on, found it up to {last}"
                    ),
                });
            }
        }
        self.file = Some(cut(&self.path, length)?);
        Ok(())
    }

    fn observe(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        if self.file.is_none() {
            self.begin(report.step - 1)?;
        }
        let is_last = report.step == report.steps;
        let is_due = report.step.is_multiple_of(self.every) || is_last || report.score.is_some() || report.is_skipped;
        if let (true, Some(file)) = (is_due, &mut self.file) {
            let mut line = serde_json::to_vec(report).map_err(std::io::Error::from).map_err(Error::io(&self.path))?;
            line.push(b'\n');
            file.write_all(&line).map_err(Error::io(&self.path))?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn flush(&mut self) -> Result<()> {
        match &self.file {
            Some(file) => file.sync_data().map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }
}

/// The file at `path`, made if there is none, cut to `length` and open at its end.
pub(super) fn cut(path: &Path, length: u64) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let open = || {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(length)?;
        file.seek(std::io::SeekFrom::End(0))?;
        Ok(file)
    };
    open().map_err(Error::io(path))
}
