//! Question and passage, unlabelled: what teachers are asked about in a distillation pre-training.

use std::collections::HashSet;

use super::{Article, one_line};
use crate::example::TextExample;
use crate::retrieval::Index;

/// How many pairs are of which kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassageCounts {
    /// A question with the paragraph it was asked of.
    pub own: usize,
    /// A question with another paragraph.
    pub retrieved: usize,
    /// Pairs that were there already: the same question was asked of several paragraphs.
    pub repeated: usize,
}

/// Every question, whatever is known of its answer, with its own paragraph and with the `retrieved` other paragraphs of
/// `articles` that are most like it by BM25; no pair twice, no labels.
///
/// It stands for the web search of TMKD (Yang et al. 2020, §3.1.1), whose results share words with the question and
/// mostly do not answer it. `group` is the question's id and `line` the pair's number.
pub fn passage_pairs<'a>(
    articles: impl IntoIterator<Item = &'a Article>,
    retrieved: usize,
) -> (Vec<TextExample>, PassageCounts) {
    let paragraphs: Vec<_> = articles.into_iter().flat_map(|article| &article.paragraphs).collect();
    let passages: Vec<String> = paragraphs.iter().map(|paragraph| one_line(&paragraph.context)).collect();
    let index = Index::new(&passages);
    let (mut examples, mut counts, mut seen) = (Vec::new(), PassageCounts::default(), HashSet::new());
    for (own, paragraph) in paragraphs.iter().enumerate() {
        for question in &paragraph.questions {
            let found = index.search(&question.text, retrieved + 1).into_iter().map(|found| found.text);
            let others = found.filter(|&other| other != own).take(retrieved);
            for passage in std::iter::once(own).chain(others) {
                if !seen.insert((question.text.as_str(), passage)) {
                    counts.repeated += 1;
                    continue;
                }
                if passage == own {
                    counts.own += 1
                } else {
                    counts.retrieved += 1
                }
                examples.push(TextExample {
                    first: question.text.clone(),
                    second: Some(passages[passage].clone()),
                    line: examples.len() + 1,
                    group: Some(question.id.clone()),
                    ..TextExample::default()
                });
            }
        }
    }
    (examples, counts)
}
