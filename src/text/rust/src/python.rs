//! What templates expect of Python: its strings' methods and its json.dumps.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use crate::bounds;

/// Methods of strings that minijinja's pycompat lacks or reads differently, and pycompat's.
pub fn call_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        if value.kind() == ValueKind::Seq && !args.is_empty() {
            bounds::pay(state, value)?; // whose items are compared with it
        }
        return pycompat::unknown_method_callback(state, value, method, args);
    };
    // Lists of pieces take many times the bytes of their text; what is made is paid for before.
    if matches!(method, "split" | "rsplit" | "splitlines") {
        let separator = args.first().and_then(|separator| separator.as_str()).unwrap_or(" ");
        state.consume_fuel(text.matches(separator).count() as u64)?;
    }
    // A width makes as many blanks.
    if method == "format" && text.as_bytes().windows(5).any(|digits| digits.iter().all(u8::is_ascii_digit)) {
        return Err(Error::new(ErrorKind::InvalidOperation, "format: a width is at most 9999"));
    }
    match method {
        "title" => {
            let () = from_args(args)?;
            Ok(Value::from(title(text)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(list(text.split_once(separator).map_or([text, "", ""], |(head, tail)| [head, separator, tail])))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(list(text.rsplit_once(separator).map_or(["", "", text], |(head, tail)| [head, separator, tail])))
        }
        "rsplit" => {
            let (separator, max_splits): (&str, Option<usize>) = from_args(args)?;
            let mut parts: Vec<&str> = match max_splits {
                Some(max_splits) => text.rsplitn(max_splits + 1, separator).collect(),
                None => text.rsplit(separator).collect(),
            };
            parts.reverse();
            Ok(list(parts))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn list<'a>(parts: impl IntoIterator<Item = &'a str>) -> Value {
    parts.into_iter().map(Value::from).collect()
}

/// Upper case after anything that has no case, lower case elsewhere; the `title` filter only looks for white space.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut after_cased = false;
    for character in text.chars() {
        if after_cased {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        after_cased = character.is_lowercase() || character.is_uppercase();
    }
    titled
}

/// How json.dumps writes, byte for byte, for the templates' `tojson`: minijinja's own escapes for HTML.
pub struct Style {
    pub indent: Option<usize>,
    pub ensure_ascii: bool,
    pub sort_keys: bool,
    /// Between items, and between key and value; Python's defaults depend on `indent`.
    pub separators: Option<(String, String)>,
}

pub fn dumps(state: &State, value: &Value, style: &Style) -> Result<String, Error> {
    bounds::pay(state, value)?;
    let defaults = if style.indent.is_some() { (",", ": ") } else { (", ", ": ") };
    let (item, key) = style.separators.as_ref().map_or(defaults, |(item, key)| (item.as_str(), key.as_str()));
    let mut writer = Writer { style, item_separator: item, key_separator: key, depth: 0, out: String::new() };
    writer.value(value)?;
    Ok(writer.out)
}

struct Writer<'a> {
    style: &'a Style,
    item_separator: &'a str,
    key_separator: &'a str,
    depth: usize,
    out: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.map(value)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                self.container('[', ']', &items, |writer, item| writer.value(item))?;
            }
            kind => {
                return Err(Error::new(ErrorKind::InvalidOperation, format!("{kind} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn map(&mut self, map: &Value) -> Result<(), Error> {
        let mut keys = map.try_iter()?.collect::<Vec<_>>();
        if self.style.sort_keys {
            keys.sort();
        }
        self.container('{', '}', &keys, |writer, key| {
            writer.string(&key.to_string());
            writer.out.push_str(writer.key_separator);
            writer.value(&map.get_item(key)?)
        })
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        mut write_item: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        self.depth += 1;
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.out.push_str(self.item_separator);
            }
            self.line_break();
            write_item(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.line_break();
        }
        self.out.push(close);
        Ok(())
    }

    fn line_break(&mut self) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => self.out.push_str(&float_repr(number)),
            _ => self.out.push_str(&value.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                ' '..='~' => self.out.push(character),
                '\u{7f}'.. if !self.style.ensure_ascii => self.out.push(character),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
            }
        }
        self.out.push('"');
    }
}

/// Python's repr of a float: the shortest digits that read back, in exponent form below 1e-4 and from 1e16 on.
fn float_repr(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}
