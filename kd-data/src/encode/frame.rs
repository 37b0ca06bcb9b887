//! The special tokens around a text and around a pair of texts, and the segments of all tokens.
//!
//! They stand in the post-processor of a `tokenizer.json`:
//!
//! | post-processor                       | one text            | a pair                        | segments of the pair |
//! |--------------------------------------|---------------------|-------------------------------|----------------------|
//! | `BertProcessing`, BERT's template    | `[CLS] a [SEP]`     | `[CLS] a [SEP] b [SEP]`       | 0 0 0, 1 1           |
//! | `RobertaProcessing` (MPNet's too)    | `<s> a </s>`        | `<s> a </s> </s> b </s>`      | 0                    |
//! | XLNet's template                     | `a <sep> <cls>`     | `a <sep> b <sep> <cls>`       | 0 0, 1 1, 2          |
//!
//! A file without one is framed by the names of its tokens, if they tell: it has `[CLS]` and `[SEP]` or else `<s>` and `</s>`, but
//! not both, nor `<cls>` and `<sep>`.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};

/// A special token: its id and its segment.
type Special = (u32, u32);

/// Special tokens before, between and after one or two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) single: Template,
    pub(super) pair: Template,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template {
    before: Vec<Special>,
    first_segment: u32,
    /// Empty for one text.
    between: Vec<Special>,
    second_segment: u32,
    after: Vec<Special>,
}

/// Framed ids and segments.
#[derive(Debug, Default)]
pub(super) struct Framed {
    pub(super) ids: Vec<u32>,
    pub(super) segments: Vec<u32>,
}

impl Frame {
    /// The frame of a tokenizer; `path` is what errors call its file.
    pub(super) fn of(tokenizer: &Tokenizer, path: &Path) -> Result<Self> {
        if let Some(processor) = tokenizer.get_post_processor() {
            let value = serde_json::to_value(processor)
                .map_err(|cause| Error::file(path, "a post-processor", cause.to_string()))?;
            if let Some(frame) = Self::parse(&value).map_err(|found| wrong(path, &found))? {
                return Ok(frame);
            }
        }
        Self::by_names(tokenizer, path)
    }

    /// None if the post-processor adds no token.
    fn parse(processor: &Value) -> std::result::Result<Option<Self>, String> {
        let kind = processor["type"].as_str().unwrap_or("none");
        let token = |name: &str| {
            let id = processor[name][1].as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| format!("no id of `{name}` in {processor}"))
        };
        let template = |name: &str| Template::parse(&processor[name], &processor["special_tokens"]);
        let frame = match kind {
            "BertProcessing" => Self::bert(token("cls")?, token("sep")?),
            "RobertaProcessing" => Self::roberta(token("cls")?, token("sep")?),
            "TemplateProcessing" => Self { single: template("single")?, pair: template("pair")? },
            "Sequence" => {
                let processors = processor["processors"].as_array().map(Vec::as_slice).unwrap_or_default();
                let frames = processors.iter().map(Self::parse).collect::<std::result::Result<Vec<_>, _>>()?;
                let mut frames = frames.into_iter().flatten();
                let first = frames.next();
                if frames.next().is_some() {
                    return Err("a sequence of two that add tokens".to_string());
                }
                return Ok(first);
            }
            "ByteLevel" => return Ok(None),
            other => return Err(format!("`{other}`")),
        };
        Ok(if frame.single.added() == 0 && frame.pair.added() == 0 { None } else { Some(frame) })
    }

    fn by_names(tokenizer: &Tokenizer, path: &Path) -> Result<Self> {
        let id = |name: &str| tokenizer.token_to_id(name);
        let missing =
            |names: [&str; 2]| Err(Error::file(path, format!("a token `{}` or `{}`", names[0], names[1]), "neither"));
        let both = |start: &str, end: &str| id(start).zip(id(end));
        // XLNet's vocabulary holds RoBERTa's tokens, and MPNet's those of BERT and of RoBERTa.
        match (both("[CLS]", "[SEP]"), both("<s>", "</s>"), both("<cls>", "<sep>")) {
            (Some((cls, sep)), None, None) => Ok(Self::bert(cls, sep)),
            (None, Some((start, end)), None) => Ok(Self::roberta(start, end)),
            (None, None, None) if id("[CLS]").or(id("<s>")).is_none() => missing(["[CLS]", "<s>"]),
            (None, None, None) => missing(["[SEP]", "</s>"]),
            (bert, roberta, xlnet) => {
                let names = [(bert.is_some(), "`[CLS]`, `[SEP]`"), (roberta.is_some(), "`<s>`, `</s>`")];
                let names = names.into_iter().chain([(xlnet.is_some(), "`<cls>`, `<sep>`")]);
                let found: Vec<&str> = names.filter(|(is_there, _)| *is_there).map(|(_, names)| names).collect();
                let found = format!("none, and a vocabulary with {}", found.join(" and "));
                Err(Error::file(path, "a post-processor with the special tokens around texts", found))
            }
        }
    }

    fn bert(cls: u32, sep: u32) -> Self {
        let single = Template { before: vec![(cls, 0)], after: vec![(sep, 0)], ..Template::default() };
        let pair = Template {
            before: vec![(cls, 0)],
            between: vec![(sep, 0)],
            second_segment: 1,
            after: vec![(sep, 1)],
            ..Template::default()
        };
        Self { single, pair }
    }

    fn roberta(start: u32, end: u32) -> Self {
        let single = Template { before: vec![(start, 0)], after: vec![(end, 0)], ..Template::default() };
        let pair = Template { between: vec![(end, 0); 2], ..single.clone() };
        Self { single, pair }
    }

    /// The largest id of a special token.
    pub(super) fn largest_id(&self) -> u32 {
        let ids = |template: &Template| template.special().map(|&(id, _)| id).max().unwrap_or(0);
        ids(&self.single).max(ids(&self.pair))
    }
}

impl Template {
    /// From the pieces of a `TemplateProcessing`, its first or second text at most once each, in this order.
    fn parse(pieces: &Value, special_tokens: &Value) -> std::result::Result<Self, String> {
        let unknown = |piece: &Value| format!("the piece {piece} of a template");
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let (mut template, mut texts) = (Self::default(), 0);
        for piece in pieces.as_array().map(Vec::as_slice).unwrap_or_default() {
            let sequence = &piece["Sequence"];
            if !sequence.is_null() {
                let segment = number(&sequence["type_id"]).ok_or_else(|| unknown(piece))?;
                match (texts, sequence["id"].as_str()) {
                    (0, Some("A")) => template.first_segment = segment,
                    (1, Some("B")) => template.second_segment = segment,
                    _ => return Err(unknown(piece)),
                }
                texts += 1;
                continue;
            }
            let special = &piece["SpecialToken"];
            let ids = special["id"].as_str().and_then(|name| special_tokens[name]["ids"].as_array());
            let place = [&mut template.before, &mut template.between, &mut template.after];
            let place = match (texts, place) {
                (0, [before, ..]) => before,
                (1, [_, between, _]) => between,
                (_, [.., after]) => after,
            };
            for id in ids.ok_or_else(|| unknown(piece))? {
                place.push(number(id).zip(number(&special["type_id"])).ok_or_else(|| unknown(piece))?);
            }
        }
        if texts == 0 {
            return Err("a template without a text".to_string());
        }
        if texts == 1 {
            template.after = std::mem::take(&mut template.between);
        }
        Ok(template)
    }

    fn special(&self) -> impl Iterator<Item = &Special> {
        self.before.iter().chain(&self.between).chain(&self.after)
    }

    /// Number of special tokens.
    pub(super) fn added(&self) -> usize {
        self.special().count()
    }

    /// Number of special tokens before the first text.
    pub(super) fn added_before(&self) -> usize {
        self.before.len()
    }

    /// The ids of the first text, and of the second if there is one, with the special tokens.
    pub(super) fn put_around(&self, first: &[u32], second: &[u32]) -> Framed {
        let mut framed = Framed::default();
        framed.special(&self.before);
        framed.text(first, self.first_segment);
        framed.special(&self.between);
        framed.text(second, self.second_segment);
        framed.special(&self.after);
        framed
    }
}

impl Framed {
    fn special(&mut self, tokens: &[Special]) {
        self.ids.extend(tokens.iter().map(|&(id, _)| id));
        self.segments.extend(tokens.iter().map(|&(_, segment)| segment));
    }

    fn text(&mut self, ids: &[u32], segment: u32) {
        self.ids.extend_from_slice(ids);
        self.segments.resize(self.ids.len(), segment);
    }
}

fn wrong(path: &Path, found: &str) -> Error {
    Error::file(path, "a post-processor that puts special tokens around one text or two", found)
}
