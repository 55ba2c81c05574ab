//! HuggingFace's tokenizer of a tokenizer.json, or one of a tiktoken.model, and the bytes that each of their tokens
//! stands for.

use std::collections::HashMap;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer as HfTokenizer,
};

use crate::tiktoken::{AddedToken, Tiktoken};

#[derive(Clone)]
pub enum Tokenizer {
    HuggingFace(Arc<HfTokenizer>),
    Tiktoken(Arc<Tiktoken>),
}

impl Tokenizer {
    /// `num_ids`: ids at or above it are refused, as no model knows them.
    pub fn from_json(json: &[u8], num_ids: u32) -> Result<Tokenizer, String> {
        let mut inner = HfTokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        if !matches!(inner.get_model(), ModelWrapper::BPE(_)) {
            return Err("its model is not BPE, as that of DeepSeek's tokenizers is; no other is supported".into());
        }
        check_added_ids(json, &inner)?;
        check_ids(&inner, num_ids)?;
        // Only there is a token's text the same wherever it stands, which token-by-token streaming rests on.
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(
                "its decoder is not ByteLevel, as that of DeepSeek's tokenizers is; no other is supported".into()
            );
        }
        // Settings of how the file was once used, which transformers sets anew in every call.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        Ok(Tokenizer::HuggingFace(Arc::new(inner)))
    }

    pub fn from_tiktoken(model: &[u8], added: &[AddedToken], num_ids: u32) -> Result<Tokenizer, String> {
        Ok(Tokenizer::Tiktoken(Arc::new(Tiktoken::new(model, added, num_ids)?)))
    }

    /// `guards`: places in the text, in order, that no added token goes over: it is text there.
    pub fn encode(&self, text: &str, post_process: bool, guards: &[usize]) -> Result<Vec<u32>, String> {
        match self {
            Tokenizer::HuggingFace(inner) if !guards.is_empty() => encode_guarded(inner, text, guards),
            Tokenizer::HuggingFace(inner) => {
                let encoding = inner.encode_fast(text, post_process).map_err(|error| error.to_string())?;
                Ok(encoding.get_ids().to_vec())
            }
            Tokenizer::Tiktoken(inner) => Ok(inner.encode(text, guards)),
        }
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        match self {
            Tokenizer::HuggingFace(inner) => inner.token_to_id(token),
            Tokenizer::Tiktoken(inner) => inner.token_id(token),
        }
    }

    /// Beside the model's own tokens.
    pub fn is_added(&self, id: u32) -> bool {
        match self {
            Tokenizer::HuggingFace(inner) => inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id),
            Tokenizer::Tiktoken(inner) => inner.is_added(id),
        }
    }

    pub fn visit_tokens(&self, mut visit: impl FnMut(u32, &[u8], Kind)) {
        let inner = match self {
            Tokenizer::HuggingFace(inner) => inner,
            Tokenizer::Tiktoken(inner) => return inner.visit_tokens(visit),
        };
        let byte_of_char = byte_level_alphabet();
        let added = inner.get_added_vocabulary();
        let num_ids = inner.get_vocab(true).into_values().max().map_or(0, |largest| largest + 1);
        for id in 0..num_ids {
            if let Some(token) = inner.id_to_token(id) {
                let kind = Kind::of(self.is_added(id), added.is_special_token(&token));
                visit(id, &token_bytes(&token, &byte_of_char), kind);
            }
        }
    }
}

/// cachalot_token_kind: the model's own; beside them; beside them and skipped where special tokens are.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Kind {
    Own = 0,
    Added = 1,
    Special = 2,
}

impl Kind {
    pub fn of(is_added: bool, is_special: bool) -> Kind {
        if is_special { Kind::Special } else if is_added { Kind::Added } else { Kind::Own }
    }
}

/// Where added tokens stand in a text, with their numbers in the finder: the leftmost and longest that goes over no
/// guard, and so on behind it.
pub fn find_added(finder: &AhoCorasick, text: &str, guards: &[usize]) -> Vec<(usize, usize, u32)> {
    let mut found = Vec::new();
    let mut begin = 0;
    while let Some(next) = finder.find(Input::new(text).span(begin..text.len())) {
        let first_guard = guards.partition_point(|guard| *guard <= next.start());
        if guards.get(first_guard).is_some_and(|guard| *guard < next.end()) {
            begin = next.start() + text[next.start()..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        found.push((next.start(), next.end(), next.pattern().as_u32()));
        begin = next.end();
    }
    found
}

/// What stands between added tokens is tokenized as it would be without guards, but for what holds one: there all is
/// text, as the model's own tokens write it.
fn encode_guarded(inner: &HfTokenizer, text: &str, guards: &[usize]) -> Result<Vec<u32>, String> {
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    let finder = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(added.values().map(|token| token.content.as_str()))
        .map_err(|error| error.to_string())?;
    let mut ids = Vec::new();
    let mut take = |encoding: tokenizers::Result<tokenizers::Encoding>| -> Result<(), String> {
        ids.extend_from_slice(encoding.map_err(|error| error.to_string())?.get_ids());
        Ok(())
    };
    let (mut written, mut begin) = (0, 0);
    let ends = find_added(&finder, text, guards).into_iter().map(|(start, end, _)| (start, end));
    for (start, end) in ends.chain([(text.len(), text.len())]) {
        let first_guard = guards.partition_point(|guard| *guard <= begin);
        if guards.get(first_guard).is_some_and(|guard| *guard < start) {
            take(inner.encode_fast(&text[written..begin], false))?;
            take(encode_plain(inner, &text[begin..start]))?;
            written = start;
        }
        begin = end;
    }
    take(inner.encode_fast(&text[written..], false))?;
    Ok(ids)
}

/// Without regard to added tokens.
fn encode_plain(inner: &HfTokenizer, text: &str) -> tokenizers::Result<tokenizers::Encoding> {
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = inner.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    let mut pieces = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    pieces.tokenize(|piece| inner.get_model().tokenize(piece.get()))?;
    pieces.into_encoding(None, 0, OffsetType::None)
}

/// An added token gets the next id behind the model's tokens, whatever the file says: with a hole below, all shift.
fn check_added_ids(json: &[u8], inner: &HfTokenizer) -> Result<(), String> {
    let root: serde_json::Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    for added in root["added_tokens"].as_array().into_iter().flatten() {
        let (Some(token), Some(id)) = (added["content"].as_str(), added["id"].as_u64()) else { continue };
        let real = inner.token_to_id(token).map(u64::from);
        if real.is_some_and(|real| real != id) {
            let real = real.unwrap_or_default();
            return Err(format!(
                "the added token {token:?} has the id {id}, but as the next one it would be {real}: the ids below have \
                 a hole, or another token has that text"
            ));
        }
    }
    Ok(())
}

/// Two tokens of one id would be one in the answers, and the tables are as long as the largest id.
fn check_ids(inner: &HfTokenizer, num_ids: u32) -> Result<(), String> {
    let mut tokens: Vec<(u32, String)> = inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort();
    for pair in tokens.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(format!("the tokens {:?} and {:?} have the same id, {}", pair[0].1, pair[1].1, pair[0].0));
        }
    }
    match tokens.iter().find(|(id, _)| *id >= num_ids) {
        Some((id, token)) => {
            Err(format!("the token {token:?} has the id {id}; ids must be below the vocabulary's size, {num_ids}"))
        }
        None if tokens.is_empty() => Err("it has no tokens".into()),
        None => Ok(()),
    }
}

/// As the ByteLevel decoder reads a token: one byte a character, or, if any character is not of its alphabet (a token
/// with a space in it can only be an added one), the token's own text.
fn token_bytes(token: &str, byte_of_char: &HashMap<char, u8>) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| byte_of_char.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others, in order, for the characters from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let printable = (0..=255u8).filter(is_printable).map(|byte| (char::from(byte), byte));
    let others = ('\u{100}'..).zip((0..=255u8).filter(|byte| !is_printable(byte)));
    printable.chain(others).collect()
}
