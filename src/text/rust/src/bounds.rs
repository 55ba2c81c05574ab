//! Bounds for what a template does with the lists and maps that it builds. One that holds another twice, which holds
//! another twice, and so on, is small in memory and has no end once it is compared, hashed or written out, and the
//! crate's fuel pays for its outermost items only; a deep one, or a lazy one over a lazy one, ends the stack. So the
//! compiled instructions are led through guards: what looks at whole values pays for all their items first, and what is
//! stored is made plain and is at most MAX_DEPTH deep.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, functions};

/// Of lists and maps: far more than any context has; deeper ones would run out of stack.
const MAX_DEPTH: usize = 200;
/// To look at an item takes as long as so many instructions of a template.
const FUEL_OF_ITEM: u64 = 4;
/// A text is compared in so many bytes a fuel.
const BYTES_PER_FUEL: usize = 4096;

// The guards are filters: of the values on the stack, which they give back.
const PAY: &str = "__pay";
const PAY_EACH: &str = "__pay_each";
const STORE: &str = "__store";
const STORE_INSIDE: &str = "__store_inside";
/// Filters that do not look into the items of what they get.
const SHALLOW: [&str; 15] = [
    "length", "count", "first", "last", "default", "d", "items", "list", "reverse", "safe", "bool", "abs", "int",
    "float", "tojson",
];
/// Filters that give their other arguments to a filter or a test with each item of the first.
const FOR_EACH: [&str; 5] = ["map", "select", "reject", "selectattr", "rejectattr"];

pub fn add_to(environment: &mut Environment) {
    environment.add_filter(PAY, |state: &State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        args.iter().try_for_each(|arg| pay(state, arg))?;
        Ok::<_, Error>(handed_on(args))
    });
    environment.add_filter(PAY_EACH, |state: &State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        pay(state, &args[0])?;
        let before = fuel_left(state);
        args[1..].iter().try_for_each(|arg| pay(state, arg))?;
        let num_items = args[0].len().unwrap_or(1).max(1) as u64;
        state.consume_fuel((before - fuel_left(state)).saturating_mul(num_items - 1))?;
        Ok::<_, Error>(handed_on(args))
    });
    environment
        .add_filter(STORE, |state: &State, value: Value| Ok::<_, Error>(stored(state, &value, 0)?.unwrap_or(value)));
    environment.add_filter(STORE_INSIDE, |state: &State, value: Value, namespace: Value| {
        let value = stored(state, &value, 1)?.unwrap_or(value);
        Ok::<_, Error>(handed_on(vec![value, namespace]))
    });
    environment.add_function("namespace", |state: &State, values: Option<ValueOrKwargs>| {
        let Some(values) = values.map(ValueOrKwargs::into_value) else { return functions::namespace(None) };
        let kept = stored(state, &values, 0)?.unwrap_or(values);
        functions::namespace(Some(ValueOrKwargs::from(kept)))
    });
    environment.remove_global("debug"); // writes out whatever there is
    environment.remove_filter("pprint"); // quadratic
}

/// Leads the instructions that look at whole values, or store them, through guards.
pub fn guard(instructions: &mut Instructions) {
    let num_instructions = (0..).find(|at| instructions.get(*at).is_none()).unwrap_or(0);
    // The guards stand behind the program, which must not run into them.
    let leap = instructions.add(Instruction::Jump(num_instructions));
    for at in 0..num_instructions {
        let Some(instruction) = instructions.get(at).cloned() else { return };
        let (guard, num_args) = match instruction {
            Instruction::StoreLocal(_) => (STORE, 1),
            Instruction::SetAttr(_) => (STORE_INSIDE, 2),
            Instruction::GetItem => (PAY, 1), // the key
            Instruction::Eq | Instruction::Ne | Instruction::Gt | Instruction::Gte => (PAY, 2),
            Instruction::Lt | Instruction::Lte | Instruction::In | Instruction::StringConcat => (PAY, 2),
            Instruction::CompareAndPreserve(_) => (PAY, 2),
            Instruction::BuildMap(num_pairs) => (PAY, 2 * num_pairs),
            // The arguments of calls with `*` and `**`.
            Instruction::UnpackLists(num_lists) => (PAY, num_lists),
            Instruction::MergeKwargs(num_maps) => (PAY, num_maps),
            Instruction::ApplyFilter(name, Some(num_args), _) if FOR_EACH.contains(&name) => {
                (PAY_EACH, num_args.into())
            }
            Instruction::ApplyFilter(name, Some(num_args), _) if !SHALLOW.contains(&name) => (PAY, num_args.into()),
            Instruction::PerformTest(_, Some(num_args), _) if num_args > 1 => (PAY, num_args.into()),
            Instruction::CallFunction(_, Some(num_args)) => (PAY, num_args.into()),
            // What a method is called on lies below them.
            Instruction::CallMethod(_, Some(num_args)) | Instruction::CallObject(Some(num_args)) => {
                (PAY, usize::from(num_args).saturating_sub(1))
            }
            _ => continue,
        };
        let Ok(num_filter_args) = u16::try_from(num_args) else { continue }; // a literal of that size is a constant
        if num_args == 0 {
            continue;
        }
        let line = instructions.get_line(at).map_or(0, |line| line as u16);
        const NO_LOCAL: u8 = !0;
        let begin = instructions.add_with_line(Instruction::ApplyFilter(guard, Some(num_filter_args), NO_LOCAL), line);
        if num_args > 1 {
            instructions.add(Instruction::UnpackList(num_args));
        }
        instructions.add(instruction);
        instructions.add(Instruction::Jump(at + 1));
        if let Some(place) = instructions.get_mut(at) {
            *place = Instruction::Jump(begin);
        }
    }
    let end = (leap..).find(|at| instructions.get(*at).is_none()).unwrap_or(leap);
    if let Some(place) = instructions.get_mut(leap) {
        *place = Instruction::Jump(end);
    }
}

/// Back on the stack in their order: the first that is unpacked lies on top.
fn handed_on(mut args: Vec<Value>) -> Value {
    if args.len() == 1 {
        return args.remove(0);
    }
    args.reverse();
    Value::from(args)
}

fn fuel_left(state: &State) -> u64 {
    state.fuel_levels().map_or(0, |(_, left)| left)
}

/// Pays for all items of a value, and theirs, before it is looked at as a whole.
pub fn pay(state: &State, value: &Value) -> Result<(), Error> {
    pay_at(state, value, 0)
}

fn pay_at(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    match value.kind() {
        ValueKind::String => {
            state.consume_fuel(FUEL_OF_ITEM + (value.as_str().map_or(0, str::len) / BYTES_PER_FUEL) as u64)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            state.consume_fuel(FUEL_OF_ITEM)?;
            value.try_iter()?.try_for_each(|item| pay_at(state, &item, depth + 1))
        }
        ValueKind::Map => {
            state.consume_fuel(FUEL_OF_ITEM)?;
            value.try_iter()?.try_for_each(|key| {
                pay_at(state, &key, depth + 1)?;
                pay_at(state, &value.get_item(&key)?, depth + 1)
            })
        }
        _ => state.consume_fuel(FUEL_OF_ITEM),
    }
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, "the value is nested too deeply"))
}

/// What is stored in place of the value; None: itself. Lazy lists and maps are made plain ones, so that none stands on
/// another; and nothing that is assigned to, as a namespace is, lies inside another value, so that none holds itself.
fn stored(state: &State, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
    let Some(object) = value.as_object() else { return Ok(None) };
    check_depth(depth)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let mut is_plain = value.is_tuple() || object.downcast_ref::<Vec<Value>>().is_some();
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                let item = item?;
                state.consume_fuel(1)?;
                let changed = stored(state, &item, depth + 1)?;
                is_plain &= changed.is_none();
                items.push(changed.unwrap_or(item));
            }
            let made = |items| if value.is_tuple() { Value::from(Tuple::new(items)) } else { Value::from(items) };
            Ok((!is_plain).then(|| made(items)))
        }
        ValueKind::Map if is_of(value, "Map<") || is_of(value, "Kwargs") || is_of(value, "MergeDict") => {
            let mut is_plain = !is_of(value, "MergeDict");
            let mut pairs = Vec::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let item = value.get_item(&key)?;
                state.consume_fuel(1)?;
                stored(state, &key, depth + 1)?;
                let changed = stored(state, &item, depth + 1)?;
                is_plain &= changed.is_none();
                pairs.push((key, changed.unwrap_or(item)));
            }
            Ok((!is_plain).then(|| Value::from_iter(pairs)))
        }
        ValueKind::Map if depth > 0 => Err(Error::new(
            ErrorKind::InvalidOperation,
            "a namespace or a loop cannot be kept in a list, a map or a namespace",
        )),
        _ => Ok(None),
    }
}

fn is_of(value: &Value, type_name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().contains(type_name))
}
