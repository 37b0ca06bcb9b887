//! A log of steps for TensorBoard.
//!
//! An event file is a row of records: length, checksum, a protocol-buffer message, checksum. Of the messages' many fields
//! scalars need seven, which are written here.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::json_lines::cut;
use super::{Observer, Report};
use crate::error::{Error, Result};

/// Polynomial of CRC-32C (Castagnoli), bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// What TFRecord adds to a rotated checksum.
const MASK: u32 = 0xa282_ead8;

/// Writes the scalars of every report to a TensorBoard event file: `loss`, `gradient_norm`, `lr_factor`, `score` of
/// evaluations, `skipped` (steps so far), and `parts/NAME`.
///
/// Look at it with `tensorboard --logdir FOLDER`; several runs are several folders. Like
/// [`JsonLines`](super::JsonLines) it is cut to the checkpoint's step when a run goes on. Events carry the time of day,
/// so no two runs write the same bytes.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: Option<File>,
}

impl TensorBoard {
    /// An event file in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("events.out.tfevents.0000000000.kd"), file: None }
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(&record(event)).map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }
}

impl Observer for TensorBoard {
    fn begin(&mut self, step: usize) -> Result<()> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) if step > 0 => bytes,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&self.path)(error)),
            _ => Vec::new(),
        };
        let length = kept(&bytes, step as u64);
        self.file = Some(cut(&self.path, length)?);
        if length == 0 {
            self.write(&event(now(), 0, Content::Version))?;
        }
        Ok(())
    }

    fn observe(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        if self.file.is_none() {
            self.begin(report.step - 1)?;
        }
        let mut scalars = vec![
            ("loss".to_string(), report.loss),
            ("gradient_norm".to_string(), report.gradient_norm),
            ("lr_factor".to_string(), report.lr_factor),
            ("skipped".to_string(), report.skipped as f64),
        ];
        scalars.extend(report.score.map(|score| ("score".to_string(), score)));
        scalars.extend(report.parts.iter().map(|(name, value)| (format!("parts/{name}"), *value)));
        self.write(&event(now(), report.step as u64, Content::Scalars(&scalars)))?;
        Ok(ControlFlow::Continue(()))
    }

    fn flush(&mut self) -> Result<()> {
        match &self.file {
            Some(file) => file.sync_data().map_err(Error::io(&self.path)),
            None => Ok(()),
        }
    }
}

enum Content<'a> {
    Version,
    Scalars(&'a [(String, f64)]),
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `Event { 1: wall_time f64, 2: step i64, 3: file_version, 5: Summary }`, with a summary of
/// `{ 1: [Value { 1: tag, 2: simple_value f32 }] }`; what is 0 or missing is left out.
fn event(wall_time: f64, step: u64, content: Content<'_>) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(wall_time.to_le_bytes());
    if step != 0 {
        bytes.push(2 << 3);
        varint(&mut bytes, step);
    }
    match content {
        Content::Version => field(&mut bytes, 3, b"brain.Event:2"),
        Content::Scalars(scalars) => {
            let mut summary = Vec::new();
            for (tag, value) in scalars {
                let mut scalar = Vec::new();
                field(&mut scalar, 1, tag.as_bytes());
                scalar.push(2 << 3 | 5);
                scalar.extend((*value as f32).to_le_bytes());
                field(&mut summary, 1, &scalar);
            }
            field(&mut bytes, 5, &summary);
        }
    }
    bytes
}

/// A field of bytes.
fn field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

/// Seven bits a byte, the lowest first; the high bit says that more come.
fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// An event in the frame of TFRecord.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length).to_le_bytes(), event, &checksum(event).to_le_bytes()].concat()
}

fn checksum(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
    });
    crc.rotate_right(15).wrapping_add(MASK)
}

/// Length of the whole records of `bytes` from the start whose steps are at most `step`.
fn kept(bytes: &[u8], step: u64) -> u64 {
    let mut length = 0;
    while let Some((size, rest)) = bytes[length..].split_first_chunk::<8>() {
        let Ok(size) = usize::try_from(u64::from_le_bytes(*size)) else { break };
        let whole = size.checked_add(16).filter(|&whole| whole <= bytes.len() - length);
        let (Some(whole), Some(event)) = (whole, rest.get(4..).and_then(|rest| rest.get(..size))) else { break };
        match step_of(event) {
            Some(found) if found <= step => length += whole,
            _ => break,
        }
    }
    length as u64
}

/// The step of an event that [`event`] made: a field behind the time, which is left out where it is 0.
fn step_of(event: &[u8]) -> Option<u64> {
    let [tag, varint @ ..] = event.get(9..)? else { return Some(0) };
    if *tag != 2 << 3 {
        return Some(0);
    }
    let length = varint.iter().position(|byte| byte & 0x80 == 0)? + 1;
    Some(varint.iter().take(length.min(10)).rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_those_of_tensorboards_own_writer() {
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/reference/event_file.json")).unwrap();
        let scalars = [("loss".to_string(), 0.75), ("parts/hard".to_string(), -1.5)];
        let mut found = record(&event(1.5, 0, Content::Version));
        found.extend(record(&event(2.5, 300, Content::Scalars(&scalars))));
        let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, reference["hex"].as_str().unwrap());
    }

    #[test]
    fn what_is_kept_ends_at_the_step_and_before_a_cut_record() {
        let records: Vec<Vec<u8>> =
            [0, 1, 200, 40_000].map(|step| record(&event(0.5, step, Content::Scalars(&[])))).to_vec();
        let (bytes, lengths) = (records.concat(), records.iter().map(Vec::len).collect::<Vec<_>>());
        let first = |n: usize| lengths[..n].iter().sum::<usize>() as u64;
        for (step, expected) in [(0, 1), (1, 2), (199, 2), (200, 3), (39_999, 3), (40_000, 4), (1 << 40, 4)] {
            assert_eq!(kept(&bytes, step), first(expected), "step {step}");
        }
        for cut in 1..=lengths[3] {
            assert_eq!(kept(&bytes[..bytes.len() - cut], 1 << 40), first(3), "cut by {cut}");
        }
    }
}
