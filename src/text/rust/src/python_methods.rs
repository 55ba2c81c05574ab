//! Methods of Python's strings that minijinja's pycompat lacks or reads differently.

use minijinja::value::{Value, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

pub fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
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
