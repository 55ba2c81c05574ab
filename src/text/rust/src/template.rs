//! Chat templates as transformers' apply_chat_template runs them: its Jinja settings, globals and filters.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use minijinja::machinery::{self, CompiledTemplate, TemplateConfig};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, escape_formatter};

use crate::{bounds, python};

const NAME: &str = "chat_template";

/// What one rendering may do, by the size of what it is about: so many steps, and 64 bytes made for each (the crate's
/// fuel). A template without an end is stopped within a second or two, and before it has made 2 GiB of text; none of a
/// published model uses a tenth of it.
const LIMITS: [Limit; 3] = [
    Limit { max_context: 16 << 10, fuel: 2 << 20 },
    Limit { max_context: 256 << 10, fuel: 16 << 20 },
    Limit { max_context: usize::MAX, fuel: 32 << 20 },
];
/// Macros and includes within one another.
const MAX_DEPTH: usize = 64;
const MAX_INDENT: usize = 64;

struct Limit {
    max_context: usize,
    fuel: u64,
}

pub struct ChatTemplate {
    environments: Vec<(usize, Environment<'static>)>, // by LIMITS
    compiled: CompiledTemplate<'static>,              // borrows what follows, which outlives it
    _source: Box<str>,
}

impl ChatTemplate {
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<ChatTemplate, String> {
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| describe(&e))?;
        let mut environment = Environment::new();
        environment.set_debug(false);
        environment.set_recursion_limit(MAX_DEPTH);
        environment.set_unknown_method_callback(python::call_method);
        environment.set_formatter(|out, state, value| {
            bounds::pay(state, value)?;
            escape_formatter(out, state, value)
        });
        environment.add_filter("tojson", to_json);
        bounds::add_to(&mut environment);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        // What a template may test for, though the caller did not give it; the context overrides these.
        environment.add_global("bos_token", bos_token);
        environment.add_global("eos_token", eos_token);
        environment.add_global("tools", ());
        environment.add_global("documents", ());
        environment.add_global("add_generation_prompt", false);
        let source: Box<str> = source.into();
        let text: &'static str = unsafe { &*std::ptr::from_ref(&*source) };
        let config = TemplateConfig { syntax_config: syntax, default_auto_escape: Arc::new(|_| AutoEscape::None) };
        let mut compiled = CompiledTemplate::new(NAME, text, &config).map_err(|error| describe(&error))?;
        bounds::guard(&mut compiled.instructions);
        compiled.blocks.values_mut().for_each(bounds::guard);
        let environments = LIMITS.iter().map(|limit| {
            let mut limited = environment.clone();
            limited.set_fuel(Some(limit.fuel));
            (limit.max_context, limited)
        });
        Ok(ChatTemplate { environments: environments.collect(), compiled, _source: source })
    }

    pub fn render(&self, context_json: &[u8]) -> Result<String, String> {
        let context: Value =
            serde_json::from_slice(context_json).map_err(|error| format!("the context is no JSON: {error}"))?;
        let fits = |(max_context, _): &&(usize, Environment<'static>)| context_json.len() <= *max_context;
        let (_, environment) = self.environments.iter().find(fits).ok_or("the context is too large")?;
        let (instructions, blocks) = (&self.compiled.instructions, &self.compiled.blocks);
        let mut text = String::new();
        let mut output = machinery::make_string_output(&mut text);
        machinery::eval(environment, instructions, context, blocks, &mut output, AutoEscape::None)
            .map_err(|error| describe(&error))?;
        Ok(text)
    }
}

/// A message that the template itself raised, as opposed to a fault while it ran.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn describe(error: &Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return message.clone();
        }
        cause = current.source();
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            let place = error.line().map_or(String::new(), |line| format!(" (line {line} of the template)"));
            return format!("it was stopped, since it loops or writes without an end{place}");
        }
        cause = current.source();
    }
    match (error.detail(), error.line()) {
        (Some(detail), Some(line)) => format!("{}: {detail} (line {line} of the template)", error.kind()),
        (None, Some(line)) => format!("{} (line {line} of the template)", error.kind()),
        _ => error.to_string(),
    }
}

fn to_json(state: &State, value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        None => None,
        Some([item, key]) => Some((item.clone(), key.clone())),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two strings")),
    };
    let style = python::Style {
        indent: indent.or(options.get("indent")?),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators,
    };
    options.assert_all_used()?;
    if style.indent.is_some_and(|indent| indent > MAX_INDENT) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: indent is at most {MAX_INDENT}")));
    }
    python::dumps(state, value, &style)
}

/// datetime.now().strftime(format): the C library's, in local time.
fn strftime_now(format: String) -> Result<String, Error> {
    if format.len() > 1024 {
        return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now: the format is longer than 1024 bytes"));
    }
    let format =
        CString::new(format).map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now: NUL in the format"))?;
    let mut text = vec![0u8; 64 + 64 * format.as_bytes().len()];
    let size = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut local);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &local)
    };
    text.truncate(size);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
