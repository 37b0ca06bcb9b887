//! From the lines of a file to features.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::reading::{ColumnPlan, END, Reading, START, Source, TargetKind};
use super::sequences::Interning;
use super::spans::{Passage, first_word, last_word};
use super::{Column, Features, Labels, Symbols, Values};
use crate::error::Result;
use crate::table::{Line, Skipped, Table, check_skipped};

/// What stands in a line.
struct Example {
    line: usize,
    /// The symbols of every column; none for those that spell others.
    columns: Vec<Vec<String>>,
    labels: Vec<Label>,
    passage: Option<(String, Vec<Range<usize>>)>,
}

enum Label {
    Names(Vec<String>),
    Number(f64),
    Place(u32),
    Text(String),
}

/// Why a line is no example, or why the whole file is none.
enum Refusal {
    Line(Skipped),
    All(crate::Error),
}

impl Features {
    /// The features of a file, of [`Table::read`] and [`Features::of_table`].
    ///
    /// # Errors
    /// As theirs.
    pub fn read(path: impl AsRef<Path>, reading: &Reading) -> Result<Self> {
        Self::of_table(&Table::read(path, &reading.layout, reading.header)?, reading)
    }

    /// The features of lines.
    ///
    /// A text without words is the one word of no characters, which is counted like any other. A line is skipped if a branch's columns,
    /// or words and tags, are not equally many; if a class has no name or a number is none; or if an answer is not
    /// in the words that are read of its passage.
    ///
    /// # Errors
    /// If the reading is none: a column that the file or the clusters have not, a character column without words, a span
    /// without a passage, a cut or stop words removed where every word counts. If more than a third of the lines are
    /// skipped, or all. If a tokenizer is not built in.
    pub fn of_table(table: &Table, reading: &Reading) -> Result<Self> {
        let plans = reading.columns()?;
        let parsed: Vec<std::result::Result<Example, Refusal>> =
            table.lines.par_iter().map(|line| example(line, reading, &plans)).collect();

        let mut columns: Vec<Interning> = plans.iter().map(|_| Interning::default()).collect();
        let mut labels: Vec<Gathering> = reading.targets.iter().map(|target| Gathering::new(target.kind)).collect();
        let mut passage = reading.passage.is_some().then(Passage::default);
        let (mut lines, mut skipped) = (Vec::new(), table.skipped.clone());
        for parsed in parsed {
            let example = match parsed {
                Ok(example) => example,
                Err(Refusal::Line(line)) => {
                    skipped.push(line);
                    continue;
                }
                Err(Refusal::All(error)) => return Err(error),
            };
            lines.push(example.line);
            columns.iter_mut().zip(&example.columns).for_each(|(column, symbols)| column.push(symbols));
            labels.iter_mut().zip(example.labels).for_each(|(values, label)| values.push(label));
            if let (Some(passage), Some((text, spans))) = (&mut passage, example.passage) {
                passage.texts.push(text);
                passage.spans.push(spans.into_iter().map(|span| span.start as u32..span.end as u32).collect());
            }
        }
        skipped.sort_by_key(|skipped| skipped.line);
        check_skipped(&table.path, lines.len(), &skipped)?;

        let column = |(plan, symbols): (&ColumnPlan, Interning)| Column {
            branch: reading.branches[plan.branch].name.clone(),
            name: plan.name.clone(),
            cluster: plan.cluster.clone(),
            symbols: match plan.source {
                Source::Spelling(words) => Symbols::Spelling(words),
                _ => Symbols::Own(symbols.finish()),
            },
        };
        let named = |(target, values): (&super::Target, Gathering)| Labels {
            column: target.column.clone(),
            values: values.finish(),
        };
        Ok(Self {
            path: table.path.clone(),
            lines,
            skipped,
            columns: plans.iter().zip(columns).map(column).collect(),
            targets: reading.targets.iter().zip(labels).map(named).collect(),
            passage,
        })
    }
}

fn example(line: &Line, reading: &Reading, plans: &[ColumnPlan]) -> std::result::Result<Example, Refusal> {
    let skip = |expected: String, found: String| Refusal::Line(Skipped { line: line.number, expected, found });
    let blanks = reading.blanks();
    let (mut columns, mut passage): (Vec<Vec<String>>, _) = (vec![Vec::new(); plans.len()], None);
    // How many symbols the first column of each branch has, and its name.
    let mut lengths: Vec<Option<(usize, &str)>> = vec![None; reading.branches.len()];

    for (idx, plan) in plans.iter().enumerate() {
        let branch = &reading.branches[plan.branch];
        let symbols: Vec<String> = match plan.source {
            Source::Spelling(_) | Source::Counted => continue,
            Source::Symbols(place) => parted(&line.columns[place]),
            Source::Text(place) => {
                let text = reading.cleaning.clean(&line.columns[place]);
                let kept = reading.passage.as_ref() == Some(&branch.name) && passage.is_none();
                if blanks && !kept {
                    parted(&text)
                } else if kept {
                    let spans = match blanks {
                        true => crate::tokenize::Tokenizer::Blanks.spans(&text),
                        false => reading.tokenizer.spans(&text),
                    };
                    let mut spans = spans.map_err(Refusal::All)?;
                    spans.retain(|span| !reading.cleaning.removes(&text[span.clone()], reading.tokenizer));
                    let words = spans.iter().map(|span| text[span.clone()].to_string()).collect();
                    passage = Some((text.into_owned(), spans));
                    words
                } else {
                    let mut words = reading.tokenizer.words(&text).map_err(Refusal::All)?;
                    words.retain(|word| !reading.cleaning.removes(word, reading.tokenizer));
                    words
                }
            }
        };
        match lengths[plan.branch] {
            None => lengths[plan.branch] = Some((symbols.len(), &plan.name)),
            Some((length, first)) if length != symbols.len() => {
                let expected = format!("as many symbols in `{}` as in `{first}`, {length}", plan.name);
                return Err(skip(expected, symbols.len().to_string()));
            }
            Some(_) => {}
        }
        columns[idx] = symbols;
    }

    let mut labels = Vec::with_capacity(reading.targets.len());
    for target in &reading.targets {
        let text = reading.layout.place(&target.column).map_or("", |place| line.columns[place].as_str());
        let expected = |what: &str| skip(format!("`{}` to be {what}", target.column), format!("`{text}`"));
        labels.push(match target.kind {
            TargetKind::Class if text.is_empty() => return Err(expected("the name of a class")),
            TargetKind::Class => Label::Names(vec![text.to_string()]),
            TargetKind::Text => Label::Text(text.to_string()),
            TargetKind::Number => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Label::Number(number),
                _ => return Err(expected("a finite number")),
            },
            TargetKind::Tags => {
                let tags = parted(text);
                let words = lengths.first().copied().flatten().map_or(0, |(length, _)| length);
                if tags.len() != words || tags.is_empty() {
                    let expected = format!("as many tags in `{}` as words, {words}", target.column);
                    return Err(skip(expected, tags.len().to_string()));
                }
                Label::Names(tags)
            }
            TargetKind::SpanStart | TargetKind::SpanEnd => {
                let Ok(character) = text.parse::<usize>() else { return Err(expected("a place in characters")) };
                let cut = (reading.branches.iter().find(|branch| reading.passage.as_ref() == Some(&branch.name)))
                    .and_then(|branch| branch.max_len)
                    .unwrap_or(usize::MAX);
                let place = passage.as_ref().and_then(|(text, spans)| match target.kind {
                    TargetKind::SpanStart => first_word(text, spans, character),
                    _ => last_word(text, spans, character),
                });
                match place.filter(|place| *place < cut) {
                    Some(place) => Label::Place(place as u32),
                    None => return Err(expected("a place in the words that are read of the passage")),
                }
            }
        });
    }

    for (idx, plan) in plans.iter().enumerate() {
        let branch = &reading.branches[plan.branch];
        let length = lengths[plan.branch].map_or(0, |(length, _)| length);
        if plan.source == Source::Counted {
            columns[idx] = (0..length.max(1)).map(|position| position.to_string()).collect();
        }
        if matches!(plan.source, Source::Spelling(_)) {
            continue;
        }
        finish(&mut columns[idx], branch.max_len, reading.boundaries);
    }
    if let Some((text, spans)) = &mut passage {
        let branch = reading.branches.iter().find(|branch| reading.passage.as_ref() == Some(&branch.name));
        spans.truncate(branch.and_then(|branch| branch.max_len).unwrap_or(usize::MAX));
        if spans.is_empty() {
            spans.push(text.len()..text.len());
        }
    }
    Ok(Example { line: line.number, columns, labels, passage })
}

/// Cuts a sequence, gives an empty one a word, and sets the boundaries around it.
fn finish(symbols: &mut Vec<String>, max_len: Option<usize>, boundaries: bool) {
    symbols.truncate(max_len.unwrap_or(usize::MAX));
    if symbols.is_empty() {
        symbols.push(String::new());
    }
    if boundaries {
        symbols.insert(0, START.to_string());
        symbols.push(END.to_string());
    }
}

/// Symbols parted by blanks.
fn parted(text: &str) -> Vec<String> {
    text.split(' ').filter(|symbol| !symbol.is_empty()).map(str::to_string).collect()
}

/// The labels of a column while they are gathered.
enum Gathering {
    Names(Interning),
    Numbers(Vec<f64>),
    Places(Vec<u32>),
    Texts(Vec<String>),
}

impl Gathering {
    fn new(kind: TargetKind) -> Self {
        match kind {
            TargetKind::Class | TargetKind::Tags => Self::Names(Interning::default()),
            TargetKind::Number => Self::Numbers(Vec::new()),
            TargetKind::SpanStart | TargetKind::SpanEnd => Self::Places(Vec::new()),
            TargetKind::Text => Self::Texts(Vec::new()),
        }
    }

    fn push(&mut self, label: Label) {
        match (self, label) {
            (Self::Names(values), Label::Names(names)) => values.push(names),
            (Self::Numbers(values), Label::Number(number)) => values.push(number),
            (Self::Places(values), Label::Place(place)) => values.push(place),
            (Self::Texts(values), Label::Text(text)) => values.push(text),
            // A label is made for the kind of its target.
            _ => unreachable!("a label of another kind than its column"),
        }
    }

    fn finish(self) -> Values {
        match self {
            Self::Names(values) => Values::Names(values.finish()),
            Self::Numbers(values) => Values::Numbers(values),
            Self::Places(values) => Values::Places(values),
            Self::Texts(values) => Values::Texts(values),
        }
    }
}
