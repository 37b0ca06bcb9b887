//! Question and sentence: does it hold the answer?

use std::ops::Range;

use super::{Answer, Article, one_line};
use crate::example::{Label, TextExample};
use crate::retrieval::Index;
use crate::sentences;

/// What became of the questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SentenceCounts {
    /// Questions of which two pairs were made.
    pub used: usize,
    /// Questions that the paragraph does not answer, or whose answer nobody knows.
    pub unanswered: usize,
    /// Questions none of whose answers lies within one sentence.
    pub across_sentences: usize,
    /// Questions whose paragraph has no sentence without an answer.
    pub without_negative: usize,
}

/// Pairs of a question and a sentence of its paragraph, `entailment` if the sentence holds the answer and
/// `not_entailment` if not, after QNLI (Wang et al. 2019, §3.3): each question has one of each, so that neither a
/// question nor a class is more frequent.
///
/// The positive sentence is that of most annotators' answers, the first of several. The negative one is the sentence
/// most like the question by BM25, weights taken from the sentences of all `articles`, of those that hold no
/// annotator's answer as text: not only is the span elsewhere, the words are not there. The pairs of a question stand
/// together, its positive one first; `group` is the question's id and `line` the pair's number.
///
/// Impossible questions are left out: as negatives alone they would let a student tell a class from the question.
pub fn sentence_pairs<'a>(articles: impl IntoIterator<Item = &'a Article>) -> (Vec<TextExample>, SentenceCounts) {
    let paragraphs = articles.into_iter().flat_map(|article| &article.paragraphs);
    let cut: Vec<_> = paragraphs.map(|paragraph| (paragraph, sentences::spans(&paragraph.context))).collect();
    let texts: Vec<&str> =
        cut.iter().flat_map(|(paragraph, spans)| spans.iter().map(|span| &paragraph.context[span.clone()])).collect();
    let index = Index::new(&texts);
    let (mut examples, mut counts, mut first) = (Vec::new(), SentenceCounts::default(), 0);
    for (paragraph, spans) in &cut {
        let texts = &texts[first..first + spans.len()];
        for question in &paragraph.questions {
            let Answer::Spans(answers) = &question.answer else {
                counts.unanswered += 1;
                continue;
            };
            let Some(positive) = holding(spans, answers) else {
                counts.across_sentences += 1;
                continue;
            };
            let answers: Vec<String> =
                answers.iter().map(|answer| paragraph.context[answer.clone()].to_lowercase()).collect();
            let holds_none = |&idx: &usize| {
                let text = texts[idx].to_lowercase();
                !answers.iter().any(|answer| text.contains(answer.as_str()))
            };
            let like = |idx: usize| index.score(&question.text, first + idx);
            // The first of the best: `max_by` would take the last.
            let negative = (0..spans.len()).rev().filter(holds_none).max_by(|&a, &b| like(a).total_cmp(&like(b)));
            let Some(negative) = negative else {
                counts.without_negative += 1;
                continue;
            };
            counts.used += 1;
            for (sentence, class) in [(positive, "entailment"), (negative, "not_entailment")] {
                examples.push(TextExample {
                    first: question.text.clone(),
                    second: Some(one_line(texts[sentence])),
                    label: Label::Class(class.to_string()),
                    line: examples.len() + 1,
                    group: Some(question.id.clone()),
                });
            }
        }
        first += spans.len();
    }
    (examples, counts)
}

/// The first of the sentences that hold most of the answers whole.
fn holding(sentences: &[Range<usize>], answers: &[Range<usize>]) -> Option<usize> {
    let within =
        |sentence: &Range<usize>, answer: &&Range<usize>| sentence.start <= answer.start && answer.end <= sentence.end;
    let held = sentences.iter().map(|sentence| answers.iter().filter(|answer| within(sentence, answer)).count());
    let (idx, held) = held.enumerate().max_by_key(|&(idx, held)| (held, std::cmp::Reverse(idx)))?;
    (held > 0).then_some(idx)
}
