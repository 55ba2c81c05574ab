//! Which tokens may come next: llguidance's grammars over the bytes of the tokenizer's own tokens.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher as LlgMatcher, ParserFactory};

use crate::tokenizer::Tokenizer;

/// What all grammars over one vocabulary share.
pub struct Grammars {
    factory: ParserFactory,
    tokenizer: Tokenizer,
}

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// What a grammar forces is written in the tokens that the tokenizer would choose, as the model has learned it.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let encode = |text: &str| self.tokenizer.encode(text, false, &[]).unwrap_or_default();
        self.trie.tokenize_with_greedy_fallback(bytes, encode)
    }
}

impl Grammars {
    /// `vocab_size`: of the model, whose last ids may stand for no token. `end_ids`: those that end an answer.
    pub fn new(tokenizer: &Tokenizer, vocab_size: u32, end_ids: &[u32]) -> Result<Grammars, String> {
        let end_id = *end_ids.first().ok_or("there is no token that ends an answer")?;
        let mut words = vec![Vec::new(); vocab_size as usize];
        // What the tokenizer adds are marks: where a grammar wants text, no such token stands for it.
        tokenizer.visit_tokens(|id, bytes, _| {
            if let Some(word) = words.get_mut(id as usize) {
                if tokenizer.is_added(id) {
                    word.push(TokTrie::SPECIAL_TOKEN_MARKER);
                }
                word.extend_from_slice(bytes);
            }
        });
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size, end_id), &words).with_eos_tokens(end_ids);
        let vocabulary: TokEnv = Arc::new(Vocabulary { trie, tokenizer: tokenizer.clone() });
        let mut factory = ParserFactory::new_simple(&vocabulary).map_err(|error| error.to_string())?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false; // they would show the answer so far
        Ok(Grammars { factory, tokenizer: tokenizer.clone() })
    }

    pub fn lark_of(&self, text: &str) -> Result<String, String> {
        let mut pieces: Vec<String> = Vec::new();
        let mut plain: Vec<u8> = Vec::new();
        let trie = self.factory.tok_env().tok_trie();
        let flush = |plain: &mut Vec<u8>, pieces: &mut Vec<String>| {
            if !plain.is_empty() {
                pieces.push(serde_json::to_string(&String::from_utf8_lossy(plain)).unwrap_or_default());
                plain.clear();
            }
        };
        for id in self.tokenizer.encode(text, false, &[])? {
            if self.tokenizer.is_added(id) {
                flush(&mut plain, &mut pieces);
                pieces.push(format!("<[{id}]>"));
            } else {
                plain.extend_from_slice(trie.token(id));
            }
        }
        flush(&mut plain, &mut pieces);
        Ok(pieces.join(" "))
    }

    /// `kind`: "json_schema", "regex", "lark".
    pub fn compile(&self, kind: &str, text: &str) -> Result<Matcher, String> {
        let grammar = TopLevelGrammar::from_tagged_str(kind, text).map_err(|error| error.to_string())?;
        let matcher = LlgMatcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(error),
            None => Ok(Matcher { inner: matcher.deep_clone() }),
        }
    }
}

/// One answer's place in its grammar.
pub struct Matcher {
    inner: LlgMatcher,
}

impl Matcher {
    /// At the same place, for another answer; shares nothing that is written.
    pub fn copy(&self) -> Matcher {
        Matcher { inner: self.inner.deep_clone() }
    }

    /// Where nothing may follow, only the ends of an answer are allowed. Words beyond the vocabulary become zero.
    pub fn write_mask(&mut self, words: &mut [u32]) -> Result<(), String> {
        let mask = self.inner.compute_mask_or_eos().map_err(|error| error.to_string())?;
        let mask = mask.as_slice();
        let num_shared = words.len().min(mask.len());
        words[..num_shared].copy_from_slice(&mask[..num_shared]);
        words[num_shared..].fill(0);
        Ok(())
    }

    pub fn accept(&mut self, token: u32) -> Result<(), String> {
        if self.inner.is_stopped() && !self.inner.is_error() {
            return Ok(()); // the end of the answer, which is no part of the grammar
        }
        self.inner.consume_token(token).map_err(|error| error.to_string())
    }

    pub fn must_stop(&self) -> bool {
        self.inner.is_stopped()
    }
}
