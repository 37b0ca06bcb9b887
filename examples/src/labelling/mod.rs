//! Asks a fine-tuned teacher about texts, once, and keeps what it says.
//!
//! ```text
//! files --read--> contents --part i/n--> not yet in the store --encode, batches of similar lengths--> teacher --> store
//! ```

mod data;
mod frozen;
mod teacher;

use std::collections::HashSet;

use anyhow::Result;
use candle_core::Tensor;
use kd_core::batch::{Sequence, Tokens};
use kd_data::batches::sequential;
use kd_data::teacher_outputs::{Content, TeacherOutputs};

pub use data::{Share, contents, read};
pub use teacher::{AskedTeacher, Compute, Keep};

use crate::interrupt;
use crate::progress::Progress;

/// Examples that are encoded together, and sorted by length.
const CHUNK: usize = 1 << 16;

/// Asks `teacher` about the examples that `outputs` has not, and returns the number of those.
///
/// A batch is at most `batch_tokens` tokens with its padding, of examples of similar lengths, and is on the disk before
/// the next is begun. What other processes stored in the meantime is not asked again.
///
/// # Errors
/// If examples are not of the teacher's kind, the disk is full, or Ctrl-C was pressed; every finished batch is kept.
pub fn label(
    teacher: &AskedTeacher,
    examples: &[Content<'_>],
    batch_tokens: usize,
    outputs: &mut TeacherOutputs,
) -> Result<usize> {
    let there = examples.iter().filter(|&&example| outputs.contains(example)).count();
    let mut progress = Progress::new(&teacher.about().model, examples.len(), there, "examples");
    let (mut asked, mut done) = (0, there);
    for chunk in examples.chunks(CHUNK) {
        let counted = chunk.iter().filter(|&&example| outputs.contains(example)).count();
        outputs.refresh()?;
        let mut seen = HashSet::new();
        let is_new = |content: &Content<'_>| !outputs.contains(*content) && seen.insert(content.digest());
        let new: Vec<Content<'_>> = chunk.iter().copied().filter(is_new).collect();
        done += chunk.len() - new.len() - counted; // by others, or twice in this chunk
        if new.is_empty() {
            continue;
        }
        let encoded = teacher.encode(&new)?;
        for batch in sequential(encoded.lengths(), batch_tokens) {
            interrupt::check()?;
            let tokens = encoded.collate(&batch)?;
            let output = teacher.ask(&tokens)?;
            let contents: Vec<Content<'_>> = batch.iter().map(|&id| new[id]).collect();
            outputs.append_output(&contents, &tokens, &output)?;
            (asked, done) = (asked + batch.len(), done + batch.len());
            progress.set(done, "");
        }
    }
    outputs.flush()?;
    Ok(asked)
}

/// The same tokens with padding up to `len`, as programs have it that pad everything to the longest there may be.
///
/// # Errors
/// If a sequence is longer, or the rows are words, whose positions would change.
pub fn padded_to(tokens: &Tokens, len: usize) -> candle_core::Result<Tokens> {
    let Sequence { ids, mask, segments, chars, features } = &tokens.first;
    let found = ids.dim(1)?;
    if found > len || chars.is_some() || !matches!(tokens.rows, kd_core::batch::Rows::Examples) {
        candle_core::bail!("expected texts of at most {len} tokens, found {found}, or rows of words");
    }
    let pad = |tensor: &Tensor| tensor.pad_with_zeros(1, 0, len - found);
    let segments = segments.as_ref().map(pad).transpose()?;
    let features = features.iter().map(pad).collect::<candle_core::Result<_>>()?;
    let first = Sequence { ids: pad(ids)?, mask: pad(mask)?, segments, chars: None, features };
    Ok(Tokens { first, second: None, more: Vec::new(), rows: tokens.rows.clone() })
}
