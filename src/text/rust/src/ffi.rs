//! The plain types that cross the C boundary, and the guard that lets no panic cross it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use libc::c_void;

use crate::tokenizer::Kind;

/// cachalot_text_status
#[repr(C)]
pub enum Status {
    Ok = 0,
    Invalid = 1,
    Internal = 2,
}

/// cachalot_text_view
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    data: *const u8,
    size: usize,
}

impl Bytes {
    fn of(bytes: &[u8]) -> Bytes {
        Bytes { data: bytes.as_ptr(), size: bytes.len() }
    }

    /// The caller keeps the bytes alive for the call that they were given to.
    pub fn as_slice<'call>(self) -> &'call [u8] {
        if self.size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.data, self.size) } }
    }

    pub fn as_str<'call>(self) -> Result<&'call str, String> {
        std::str::from_utf8(self.as_slice())
            .map_err(|error| format!("the text is not valid UTF-8 at byte {}", error.valid_up_to()))
    }
}

/// cachalot_text_sink
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TextSink {
    context: *mut c_void,
    write: Option<extern "C" fn(*mut c_void, Bytes)>,
}

impl TextSink {
    pub fn none() -> TextSink {
        TextSink { context: std::ptr::null_mut(), write: None }
    }

    pub fn write(&self, text: &[u8]) {
        if let Some(write) = self.write {
            write(self.context, Bytes::of(text));
        }
    }
}

/// cachalot_ids_sink
#[repr(C)]
pub struct IdsSink {
    context: *mut c_void,
    write: extern "C" fn(*mut c_void, *const u32, usize),
}

impl IdsSink {
    pub fn write(&self, ids: &[u32]) {
        (self.write)(self.context, ids.as_ptr(), ids.len());
    }
}

/// cachalot_token_visitor
#[repr(C)]
pub struct TokenVisitor {
    context: *mut c_void,
    visit: extern "C" fn(*mut c_void, u32, Bytes, Kind),
}

impl TokenVisitor {
    pub fn visit(&self, id: u32, bytes: &[u8], kind: Kind) {
        (self.visit)(self.context, id, Bytes::of(bytes), kind);
    }
}

thread_local! {
    /// What the panic that is being caught says, with its place in the sources.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What it says and where, without the folders of the machine that built this.
fn describe_panic(panic: &std::panic::PanicHookInfo) -> String {
    let payload = panic.payload();
    let what = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let what = what.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    let place = panic.location().map_or(String::new(), |location| {
        let file = location.file().rsplit('/').next().unwrap_or_default();
        format!(" ({file}:{})", location.line())
    });
    format!("a fault of the library: {}{place}", what.replace('\n', " "))
}

/// Runs the body of a C function; an error or a panic is written to `error` and becomes the status.
pub fn guard(error: TextSink, body: impl FnOnce() -> Result<(), String>) -> Status {
    static KEEP_PANICS: Once = Once::new();
    // Rust's own hook would print what the caller is told anyway.
    KEEP_PANICS.call_once(|| {
        std::panic::set_hook(Box::new(|panic| LAST_PANIC.set(describe_panic(panic))));
    });
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(message)) => {
            error.write(message.as_bytes());
            Status::Invalid
        }
        Err(_) => {
            error.write(LAST_PANIC.take().as_bytes());
            Status::Internal
        }
    }
}
