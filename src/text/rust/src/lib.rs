//! The C ABI declared in cachalot_text.h: handles, views and sinks in, the modules' results out. Views, sinks and
//! out-pointers are valid for the call; handles come from this file and live, until they are freed (null may be).
#![allow(clippy::missing_safety_doc)]

mod bounds;
mod ffi;
mod grammar;
mod python;
mod template;
mod tiktoken;
mod tokenizer;

use ffi::{Bytes, IdsSink, Status, TextSink, TokenVisitor, guard};
use grammar::{Grammars, Matcher};
use template::ChatTemplate;
use tiktoken::AddedToken;
use tokenizer::Tokenizer;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_tokenizer_new(
    json: Bytes,
    num_ids: u32,
    tokenizer: *mut *mut Tokenizer,
    error: TextSink,
) -> Status {
    guard(error, || {
        let loaded = Tokenizer::from_json(json.as_slice(), num_ids)?;
        unsafe { *tokenizer = Box::into_raw(Box::new(loaded)) };
        Ok(())
    })
}

/// cachalot_added_token
#[repr(C)]
pub struct AddedTokenView {
    id: u32,
    text: Bytes,
    is_special: libc::c_int,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_tokenizer_of_tiktoken(
    model: Bytes,
    added: *const AddedTokenView,
    num_added: usize,
    num_ids: u32,
    tokenizer: *mut *mut Tokenizer,
    error: TextSink,
) -> Status {
    guard(error, || {
        let added = if num_added == 0 { &[] } else { unsafe { std::slice::from_raw_parts(added, num_added) } };
        let read = |view: &AddedTokenView| {
            Ok(AddedToken { id: view.id, text: view.text.as_str()?, is_special: view.is_special != 0 })
        };
        let added = added.iter().map(read).collect::<Result<Vec<AddedToken>, String>>()?;
        let loaded = Tokenizer::from_tiktoken(model.as_slice(), &added, num_ids)?;
        unsafe { *tokenizer = Box::into_raw(Box::new(loaded)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(unsafe { Box::from_raw(tokenizer) });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: Bytes,
    post_process: libc::c_int,
    guards: *const usize,
    num_guards: usize,
    ids: IdsSink,
    error: TextSink,
) -> Status {
    guard(error, || {
        let guards = if num_guards == 0 { &[] } else { unsafe { std::slice::from_raw_parts(guards, num_guards) } };
        let encoded = unsafe { &*tokenizer }.encode(text.as_str()?, post_process != 0, guards)?;
        ids.write(&encoded);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_tokenizer_visit_tokens(
    tokenizer: *const Tokenizer,
    visitor: TokenVisitor,
    error: TextSink,
) -> Status {
    guard(error, || {
        unsafe { &*tokenizer }.visit_tokens(|id, bytes, kind| visitor.visit(id, bytes, kind));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_tokenizer_token_id(tokenizer: *const Tokenizer, token: Bytes) -> i64 {
    let mut id = -1;
    guard(TextSink::none(), || {
        id = unsafe { &*tokenizer }.token_id(token.as_str()?).map_or(-1, i64::from);
        Ok(())
    });
    id
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_template_new(
    source: Bytes,
    bos_token: Bytes,
    eos_token: Bytes,
    chat_template: *mut *mut ChatTemplate,
    error: TextSink,
) -> Status {
    guard(error, || {
        let compiled = ChatTemplate::new(source.as_str()?, bos_token.as_str()?, eos_token.as_str()?)?;
        unsafe { *chat_template = Box::into_raw(Box::new(compiled)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_template_free(chat_template: *mut ChatTemplate) {
    if !chat_template.is_null() {
        drop(unsafe { Box::from_raw(chat_template) });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_template_render(
    chat_template: *const ChatTemplate,
    context_json: Bytes,
    text: TextSink,
    error: TextSink,
) -> Status {
    guard(error, || {
        let rendered = unsafe { &*chat_template }.render(context_json.as_slice())?;
        text.write(rendered.as_bytes());
        Ok(())
    })
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_grammars_new(
    tokenizer: *const Tokenizer,
    vocab_size: u32,
    end_ids: *const u32,
    num_end_ids: usize,
    grammars: *mut *mut Grammars,
    error: TextSink,
) -> Status {
    guard(error, || {
        let end_ids = unsafe { std::slice::from_raw_parts(end_ids, num_end_ids) };
        let made = Grammars::new(unsafe { &*tokenizer }, vocab_size, end_ids)?;
        unsafe { *grammars = Box::into_raw(Box::new(made)) };
        Ok(())
    })
}

/// # Safety
/// As above; the handle is gone afterwards. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_grammars_free(grammars: *mut Grammars) {
    if !grammars.is_null() {
        drop(unsafe { Box::from_raw(grammars) });
    }
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_matcher_new(
    grammars: *const Grammars,
    kind: Bytes,
    text: Bytes,
    matcher: *mut *mut Matcher,
    error: TextSink,
) -> Status {
    guard(error, || {
        let compiled = unsafe { &*grammars }.compile(kind.as_str()?, text.as_str()?)?;
        unsafe { *matcher = Box::into_raw(Box::new(compiled)) };
        Ok(())
    })
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_grammars_lark(grammars: *const Grammars, text: Bytes, lark: TextSink) {
    guard(TextSink::none(), || {
        lark.write(unsafe { &*grammars }.lark_of(text.as_str()?)?.as_bytes());
        Ok(())
    });
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_matcher_copy(matcher: *const Matcher) -> *mut Matcher {
    Box::into_raw(Box::new(unsafe { &*matcher }.copy()))
}

/// # Safety
/// As above; the handle is gone afterwards. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_matcher_free(matcher: *mut Matcher) {
    if !matcher.is_null() {
        drop(unsafe { Box::from_raw(matcher) });
    }
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_matcher_mask(
    matcher: *mut Matcher,
    words: *mut u32,
    num_words: usize,
    error: TextSink,
) -> Status {
    guard(error, || unsafe { &mut *matcher }.write_mask(unsafe { std::slice::from_raw_parts_mut(words, num_words) }))
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cachalot_matcher_accept(matcher: *mut Matcher, token: u32, error: TextSink) -> Status {
    guard(error, || unsafe { &mut *matcher }.accept(token))
}
