//! The C ABI declared in cachalot_text.h: handles, views and sinks in, the modules' results out. Views, sinks and
//! out-pointers are valid for the call; handles come from this file and live, until they are freed (null may be).
#![allow(clippy::missing_safety_doc)]

mod bounds;
mod ffi;
mod python;
mod template;
mod tokenizer;

use ffi::{Bytes, IdsSink, Status, TextSink, TokenVisitor, guard};
use template::ChatTemplate;
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
    ids: IdsSink,
    error: TextSink,
) -> Status {
    guard(error, || {
        let encoded = unsafe { &*tokenizer }.encode(text.as_str()?, post_process != 0)?;
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
        unsafe { &*tokenizer }.visit_tokens(|id, bytes, is_special| visitor.visit(id, bytes, is_special));
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
