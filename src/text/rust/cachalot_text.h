#pragma once

// The C ABI of the Rust crate cachalot_text (src/lib.rs). Nothing unwinds through it: a panic becomes a status with its
// message. Texts are UTF-8 with a length, never NUL-terminated. What a function has to say goes through a callback, so
// that no memory changes owner; callbacks run before the function returns, on the caller's thread, and must not throw.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  CACHALOT_TEXT_OK = 0,
  CACHALOT_TEXT_INVALID = 1,   // what was given makes no sense
  CACHALOT_TEXT_INTERNAL = 2,  // a fault of the library
} cachalot_text_status;

typedef struct {
  const char* data;
  size_t size;
} cachalot_text_view;

typedef struct {
  void* context;
  void (*write)(void* context, cachalot_text_view text);
} cachalot_text_sink;

typedef struct {
  void* context;
  void (*write)(void* context, const uint32_t* ids, size_t num_ids);
} cachalot_ids_sink;

typedef enum {
  CACHALOT_TOKEN_OWN = 0,      // the model's
  CACHALOT_TOKEN_ADDED = 1,    // by the tokenizer, wherever its text stands
  CACHALOT_TOKEN_SPECIAL = 2,  // the same, and skipped where special tokens are
} cachalot_token_kind;

typedef struct {
  void* context;
  void (*visit)(void* context, uint32_t id, cachalot_text_view bytes, cachalot_token_kind kind);
} cachalot_token_visitor;

typedef struct {
  uint32_t id;
  cachalot_text_view text;
  int is_special;
} cachalot_added_token;

// Tokenizers and templates are immutable: any number of threads may use one at once.
typedef struct cachalot_tokenizer cachalot_tokenizer;
typedef struct cachalot_template cachalot_template;
// What all grammars of a model share: immutable, too.
typedef struct cachalot_grammars cachalot_grammars;
// One answer's place in its grammar; one thread at a time.
typedef struct cachalot_matcher cachalot_matcher;

// From the text of a tokenizer.json; every id must be below `num_ids`. `*tokenizer` is set on success only.
cachalot_text_status cachalot_tokenizer_new(cachalot_text_view json, uint32_t num_ids, cachalot_tokenizer** tokenizer,
                                            cachalot_text_sink error);
// From the text of a tiktoken.model, with what tokenizer_config.json says of the tokens behind its ranks.
cachalot_text_status cachalot_tokenizer_of_tiktoken(cachalot_text_view model, const cachalot_added_token* added,
                                                    size_t num_added, uint32_t num_ids, cachalot_tokenizer** tokenizer,
                                                    cachalot_text_sink error);
void cachalot_tokenizer_free(cachalot_tokenizer* tokenizer);
// `post_process`: with what the file's post-processor adds around a text; not beside guards. `guards`: places in the
// text, in order, that no added token goes over.
cachalot_text_status cachalot_tokenizer_encode(const cachalot_tokenizer* tokenizer, cachalot_text_view text,
                                               int post_process, const size_t* guards, size_t num_guards,
                                               cachalot_ids_sink ids, cachalot_text_sink error);
// Every token with the bytes that it stands for in a text, in the order of ids.
cachalot_text_status cachalot_tokenizer_visit_tokens(const cachalot_tokenizer* tokenizer,
                                                     cachalot_token_visitor visitor, cachalot_text_sink error);
// The id of a token as the file spells it ("Ġthe"), or -1.
int64_t cachalot_tokenizer_token_id(const cachalot_tokenizer* tokenizer, cachalot_text_view token);

// A Jinja template, as HuggingFace's apply_chat_template would run it.
cachalot_text_status cachalot_template_new(cachalot_text_view source, cachalot_text_view bos_token,
                                           cachalot_text_view eos_token, cachalot_template** chat_template,
                                           cachalot_text_sink error);
void cachalot_template_free(cachalot_template* chat_template);
cachalot_text_status cachalot_template_render(const cachalot_template* chat_template, cachalot_text_view context_json,
                                              cachalot_text_sink text, cachalot_text_sink error);

// Ids from 0 to vocab_size - 1; `end_ids` (at least one) end an answer. The tokenizer may go before it.
cachalot_text_status cachalot_grammars_new(const cachalot_tokenizer* tokenizer, uint32_t vocab_size,
                                           const uint32_t* end_ids, size_t num_end_ids, cachalot_grammars** grammars,
                                           cachalot_text_sink error);
void cachalot_grammars_free(cachalot_grammars* grammars);
// `kind`: "json_schema", "regex" or "lark" (llguidance's). Takes bounded time and memory.
cachalot_text_status cachalot_matcher_new(const cachalot_grammars* grammars, cachalot_text_view kind,
                                          cachalot_text_view text, cachalot_matcher** matcher,
                                          cachalot_text_sink error);
// A text as Lark names it: added tokens by their ids, the rest as strings.
void cachalot_grammars_lark(const cachalot_grammars* grammars, cachalot_text_view text, cachalot_text_sink lark);
cachalot_matcher* cachalot_matcher_copy(const cachalot_matcher* matcher);
void cachalot_matcher_free(cachalot_matcher* matcher);
// A bit a token, from the lowest on: whether it may come next. Where nothing may, the end ids'.
cachalot_text_status cachalot_matcher_mask(cachalot_matcher* matcher, uint32_t* words, size_t num_words,
                                           cachalot_text_sink error);
cachalot_text_status cachalot_matcher_accept(cachalot_matcher* matcher, uint32_t token, cachalot_text_sink error);

#ifdef __cplusplus
}
#endif
