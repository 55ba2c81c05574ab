//! The tokenizer of a tiktoken.model, as Kimi's own code (tokenization_kimi.py, over the `tiktoken` package) runs it: a
//! line of the file is the base64 of a token's bytes, a blank and its rank, which is its id and the order of merges.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;

use crate::tokenizer::{Kind, find_added};

/// Of texts, as Kimi's code splits them, but for `\s+(?!\S)` in front of the last `\s+`: see end_of_blanks().
const PATTERN: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// Ids behind the ranks, each with a name of its own or as a reserved one.
const NUM_SPECIAL: u32 = 256;
/// A text is cut there, and where a run of blanks or of others passes the second, whatever that does to tokens.
const MAX_CHARS: usize = 400_000;
const MAX_RUN: usize = 25_000;
const NO_RANK: u32 = u32::MAX;

pub struct Tiktoken {
    ranks: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    tokens: Vec<Box<[u8]>>, // by id, special ones behind the ranks
    is_special: Vec<bool>,  // by id: skipped where special tokens are
    special_finder: AhoCorasick,
    pattern: Regex,
}

/// Of tokenizer_config.json's added_tokens_decoder.
pub struct AddedToken<'a> {
    pub id: u32,
    pub text: &'a str,
    pub is_special: bool,
}

impl Tiktoken {
    /// `num_ids`: named tokens at or above it are refused, as no model knows them.
    pub fn new(model: &[u8], added: &[AddedToken], num_ids: u32) -> Result<Tiktoken, String> {
        let mut tokens = read_ranks(model)?;
        let num_ranks = tokens.len() as u32;
        if num_ranks > num_ids {
            return Err(format!("it has {num_ranks} ranks; ids must be below the vocabulary's size, {num_ids}"));
        }
        let ranks: HashMap<_, _, _> = tokens.iter().cloned().zip(0..).collect();
        if let Some(byte) = (0..=u8::MAX).find(|byte| !ranks.contains_key([*byte].as_slice())) {
            return Err(format!("no token is the single byte 0x{byte:02x}; there must be one for each of the 256"));
        }
        let named: HashMap<u32, &AddedToken> = added.iter().map(|token| (token.id, token)).collect();
        let end = num_ranks.saturating_add(NUM_SPECIAL);
        let mut is_special = vec![false; tokens.len()];
        let mut texts = HashSet::new();
        for id in num_ranks..end {
            let token = named.get(&id);
            if id >= num_ids {
                let Some(token) = token else { continue };
                let text = token.text;
                return Err(format!(
                    "the special token {text:?} has the id {id}; ids must be below the vocabulary's size, {num_ids}"
                ));
            }
            let text = token.map_or(format!("<|reserved_token_{id}|>"), |token| token.text.to_string());
            if text.is_empty() || !texts.insert(text.clone()) {
                return Err(format!("the special token of id {id}, {text:?}, is empty or another's name, too"));
            }
            tokens.push(text.into_bytes().into());
            is_special.push(token.is_none_or(|token| token.is_special));
        }
        let special_finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&tokens[num_ranks as usize..])
            .map_err(|error| error.to_string())?;
        let pattern = Regex::new(PATTERN).map_err(|error| error.to_string())?;
        Ok(Tiktoken { ranks, tokens, is_special, special_finder, pattern })
    }

    /// `guards`: places in the text, in order, that no special token goes over.
    pub fn encode(&self, text: &str, guards: &[usize]) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in pieces(text) {
            let offset = piece.as_ptr() as usize - text.as_ptr() as usize;
            let guards: Vec<usize> = guards.iter().filter_map(|guard| guard.checked_sub(offset)).collect();
            let mut begin = 0;
            for (start, end, special) in find_added(&self.special_finder, piece, &guards) {
                self.encode_ordinary(&piece[begin..start], &mut ids);
                ids.push(self.num_ranks() + special);
                begin = end;
            }
            self.encode_ordinary(&piece[begin..], &mut ids);
        }
        ids
    }

    fn encode_ordinary(&self, text: &str, ids: &mut Vec<u32>) {
        let mut begin = 0;
        while let Some(found) = self.pattern.find_at(text, begin) {
            let end = found.start() + end_of_blanks(&text[found.start()..], found.len());
            self.merge(&text.as_bytes()[found.start()..end], ids);
            begin = end;
        }
    }

    /// The pair of neighbours whose bytes have the least rank becomes one, the first of equals, until none has any.
    fn merge(&self, piece: &[u8], ids: &mut Vec<u32>) {
        if let Some(id) = self.ranks.get(piece) {
            ids.push(*id);
            return;
        }
        let num_bytes = piece.len();
        // By the place where a part begins: where the next and the one before do, and the rank of it with the next.
        let mut next: Vec<usize> = (1..=num_bytes).collect();
        let mut before: Vec<usize> = (0..num_bytes).map(|begin| begin.wrapping_sub(1)).collect();
        let rank_of_pair = |next: &[usize], begin: usize| {
            let end = next.get(next[begin]);
            end.and_then(|end| self.ranks.get(&piece[begin..*end])).copied().unwrap_or(NO_RANK)
        };
        let mut pair_ranks: Vec<u32> = (0..num_bytes).map(|begin| rank_of_pair(&next, begin)).collect();
        let ranked = pair_ranks.iter().enumerate().filter(|(_, rank)| **rank != NO_RANK);
        let mut queue: BinaryHeap<_> = ranked.map(|(begin, rank)| Reverse((*rank, begin))).collect();
        while let Some(Reverse((rank, begin))) = queue.pop() {
            if pair_ranks[begin] != rank {
                continue; // the pair has grown, or its first part is gone
            }
            let middle = next[begin];
            next[begin] = next[middle];
            pair_ranks[middle] = NO_RANK;
            if let Some(place) = before.get_mut(next[begin]) {
                *place = begin;
            }
            for changed in [begin, before[begin]] {
                let Some(pair_rank) = pair_ranks.get_mut(changed) else { continue };
                *pair_rank = rank_of_pair(&next, changed);
                if *pair_rank != NO_RANK {
                    queue.push(Reverse((*pair_rank, changed)));
                }
            }
        }
        let mut begin = 0;
        while begin < num_bytes {
            ids.extend(self.ranks.get(&piece[begin..next[begin]]));
            begin = next[begin];
        }
    }

    fn num_ranks(&self) -> u32 {
        self.ranks.len() as u32
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        let special = self.tokens[self.ranks.len()..].iter().position(|text| **text == *token.as_bytes());
        special.map(|place| self.num_ranks() + place as u32).or_else(|| self.ranks.get(token.as_bytes()).copied())
    }

    pub fn is_added(&self, id: u32) -> bool {
        (self.num_ranks()..self.tokens.len() as u32).contains(&id)
    }

    pub fn visit_tokens(&self, mut visit: impl FnMut(u32, &[u8], Kind)) {
        for (id, token) in self.tokens.iter().enumerate() {
            visit(id as u32, token, Kind::of(self.is_added(id as u32), self.is_special[id]));
        }
    }
}

/// The tokens by their ranks, of which each from 0 on stands there once.
fn read_ranks(model: &[u8]) -> Result<Vec<Box<[u8]>>, String> {
    let lines: Vec<(usize, &[u8])> = (1..).zip(model.split(|byte| *byte == b'\n')).collect();
    let lines: Vec<_> = lines.into_iter().filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
    if lines.is_empty() {
        return Err("it has no tokens".into());
    }
    let mut tokens: Vec<Option<Box<[u8]>>> = vec![None; lines.len()];
    let mut line_of_token: HashMap<Box<[u8]>, usize, ahash::RandomState> = HashMap::default();
    for (number, line) in &lines {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let token = words.next().and_then(|word| base64::decode(word).ok()).filter(|token| !token.is_empty());
        let rank = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<usize>().ok());
        let (Some(token), Some(rank), None) = (token, rank, words.next()) else {
            let shown: String = String::from_utf8_lossy(line).chars().take(40).collect();
            return Err(format!(
                "line {number} is {shown:?}; a line must be base64 of a token's bytes, a blank, a rank"
            ));
        };
        let place = tokens.get_mut(rank).ok_or_else(|| {
            format!(
                "line {number} has the rank {rank}; {} tokens must have the ranks below that, each once",
                lines.len()
            )
        })?;
        if place.is_some() {
            return Err(format!("line {number} has the rank {rank}, which another line has, too"));
        }
        let token: Box<[u8]> = token.into();
        if let Some(other) = line_of_token.insert(token.clone(), *number) {
            return Err(format!("line {number} has the token of line {other}; each must stand there once"));
        }
        *place = Some(token);
    }
    Ok(tokens.into_iter().flatten().collect())
}

/// Where a match really ends: `\s+(?!\S)` leaves the last of several blanks to the word behind them. Blanks that hold a
/// line break end in one and stay whole.
fn end_of_blanks(text: &str, match_len: usize) -> usize {
    let matched = &text[..match_len];
    if match_len == text.len() || matched.ends_with(['\r', '\n']) || !matched.chars().all(char::is_whitespace) {
        return match_len;
    }
    match matched.char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => match_len,
    }
}

/// What Kimi's code gives to tiktoken, which it keeps from long texts.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    // As Python's str.isspace.
    let is_space = |character: char| character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character);
    let mut cuts = vec![0];
    let (mut run_len, mut run_is_space) = (0, false);
    for (number, (at, character)) in text.char_indices().enumerate() {
        let starts_part = number % MAX_CHARS == 0;
        let is_same = !starts_part && is_space(character) == run_is_space;
        run_len = if is_same { run_len + 1 } else { 1 };
        run_is_space = is_space(character);
        if run_len > MAX_RUN || (starts_part && number > 0) {
            cuts.push(at);
            run_len = 1;
        }
    }
    let ends: Vec<usize> = cuts.iter().skip(1).copied().chain([text.len()]).collect();
    cuts.into_iter().zip(ends).map(|(begin, end)| &text[begin..end])
}
