//! Chinese words by `jieba-rs`: the most probable way through a dictionary of words, and a hidden Markov model for what
//! is not in it, as jieba's default `cut`.

use std::ops::Range;
use std::sync::LazyLock;

use jieba_rs::Jieba;

/// The bytes of each word; blanks are words too, as they are for jieba.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);
    let mut at = 0;
    let mut span = |word: &str| {
        at += word.len();
        at - word.len()..at
    };
    JIEBA.cut(text, true).into_iter().map(|token| span(token.word)).collect()
}
