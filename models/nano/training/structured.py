"""Answers in JSON: other questions' answers, fields read out of a text, an example for a schema."""

import json
import re

import families
import fields
from families import Turn
from phrasing import Phrasings

# Of which families an answer has one value, and where it stands in the sentence.
VALUES = {
    "add": r"= (-?\d+)$",
    "subtract": r"= (-?\d+)$",
    "multiply": r"= (\d+)$",
    "count": r"appears (\d+)",
    "vowels": r"has (\d+)",
    "length": r"has (\d+)",
    "reverse": r'is "(\w+)"',
    "parity": r"is (even|odd)\.$",
    "extreme": r"is (\d+)\.$",
    "sequence": r"is (\d+)\.$",
    "day": r"is (\w+)\.$",
    "unit": r"= (\d+) ",
}
ANSWER_KEYS = ["answer", "result", "value", "output", "solution", "response", "data", "reply"]

PHRASINGS = {
    "json.answer": Phrasings(
        [
            "{question} [Answer|Reply|Respond|Write the answer|Give the answer] [in|as|with] JSON[.|]",
            "{question} [In|As] JSON[.| please.|]",
            "{question} [Use|Only] JSON[.|]",
            "[Answer|Reply|Respond] [in|as|with] JSON[: |. ]{question}",
            "[In|As] JSON: {question}",
            "{question} [I want|I need|I would like] JSON[.|]",
            "{question} [Return|Output|Write|Give me] [JSON|a JSON object|only JSON][.|]",
        ],
        [
            "{question} Please answer as a JSON object.",
            "{question} Say it in JSON.",
            "Please reply in JSON: {question}",
        ],
    ),
    "json.answer.key": Phrasings(
        [
            ('{question} [Answer|Reply|Respond] [in|as|with] JSON with [the|one] key ["{key}"|{key}][.|]'),
            '{question} [Return|Output|Write|Give me] [JSON|a JSON object] with the [key|field] ["{key}"|{key}][.|]',
            '[Answer|Reply] [in|as] JSON with the key ["{key}"|{key}][: |. ]{question}',
            '{question} [JSON|JSON object], [key|with key] ["{key}"|{key}][.|]',
            '{question} [Put|Write] the answer [under|in] the key ["{key}"|{key}] of a JSON object[.|]',
        ],
        [
            '{question} Please answer as a JSON object with the key "{key}".',
            "{question} Say it in JSON and call the key {key}.",
        ],
    ),
    "json.extract": Phrasings(
        [
            "{text} [Give|Write|Return|Show] [it|this|that|the data] [as|in] JSON with the keys {keys}[.|]",
            "{text} [Answer|Reply|Respond] [as|in] JSON with the [keys|fields] {keys}[.|]",
            "{text} [Extract|Read|Find|Take] {keys} [as|in|into] JSON[.|]",
            "[Extract|Read|Find|Take] {keys} [as|in|into] JSON[ from this|]: {text}",
            (
                "[Extract|Read|Find|Take] the [fields|keys|values] {keys} [from this text|from this|here]: {text}[ "
                "Answer in JSON.| JSON only.|]"
            ),
            "{text} [JSON|JSON object|A JSON object] with {keys}[.|]",
            "[Turn this into|Make|Convert this to|Write this as] JSON with the [keys|fields] {keys}: {text}",
            "[Text|Input]: {text} [Keys|Fields]: {keys}[. Answer in JSON.|. JSON:|.]",
        ],
        [
            "{text} Please answer with a JSON object that has the keys {keys}.",
            "What are {keys} here? {text} Say it in JSON.",
            "Please get {keys} out of this text in JSON: {text}",
        ],
    ),
    "json.extract.schema": Phrasings(
        [
            "{text} [Answer|Reply|Respond] [as|in|with] JSON [of|with|in|for] this schema: {schema}",
            "{text} [Use|Follow|Fill] [the|this] [JSON |]schema[: | ]{schema}",
            (
                "[Extract|Read|Take] [the data|what it says|the fields] [as|in] JSON[. Schema: |, schema ]{schema} "
                "[Text: |]{text}"
            ),
            "{text} [Schema|JSON schema]: {schema}",
            "[Answer|Reply|Respond] [in|as] JSON [of|with|for] [this|the] schema {schema}. {text}",
        ],
        [
            "{text} Please answer with JSON that is valid under this schema: {schema}",
            "Please fill this schema: {schema} with what the text says: {text}",
        ],
    ),
    # As a system prompt, before the text alone.
    "json.system": Phrasings(
        [
            (
                "[Extract|Read|Find] {keys} from [the text|the user's text|what the user says]. [Answer in "
                "JSON.|JSON only.|Use JSON.]"
            ),
            (
                "[You extract data.|You are a parser.|You read texts.|] [Answer|Reply|Respond] [only |][in|as] JSON "
                "with the keys {keys}."
            ),
            "[Always|Only] answer [in|as] JSON with the [keys|fields] {keys}.",
        ],
        ["You turn texts into JSON with the keys {keys}.", "Your answer is a JSON object that has the keys {keys}."],
    ),
    "json.system.schema": Phrasings(
        [
            (
                "[You extract data.|You are a parser.|You read texts.|] [Answer|Reply|Respond] [only |][in|as] JSON "
                "[of|with|for] this schema: {schema}"
            ),
            "[Always|Only] answer [in|as] JSON [of|with|for] this schema: {schema}",
            "[Use|Follow] [this|the] [JSON |]schema: {schema}",
        ],
        ["You turn texts into JSON of this schema: {schema}", "Your answer is valid under this schema: {schema}"],
    ),
    "json.example": Phrasings(
        [
            (
                "[Give|Write|Show|Make|Return|Create|Generate] [me |][an example|JSON|an object|an instance|a "
                "value|data] [for|of] [this|the] [JSON |]schema[: | ]{schema}"
            ),
            "{schema} [Give|Write|Show|Make] [me |][an example|JSON|an instance] [for|of] [this|the] schema[.|]",
            "[Schema|JSON schema]: {schema}[ Example?| Write an example.| Instance:|]",
            "[Answer|Reply|Respond] [in|with] JSON [of|for|with] [this|the] schema[: | ]{schema}",
            "[What fits|What is valid for|Fill] this schema[: | ]{schema}",
            "[I need|I want] JSON [for|of] this schema: {schema}",
        ],
        [
            "Please make up an example that is valid under this schema: {schema}",
            "Which JSON would be valid here? {schema}",
            "Say something in JSON that fits this schema: {schema}",
        ],
    ),
}


def as_json(value):
    return json.dumps(value, ensure_ascii=False)


def schema_text(rng, schema):
    style = rng.random()
    if style < 0.5:
        return json.dumps(schema)
    return json.dumps(schema, separators=(",", ":")) if style < 0.95 else json.dumps(schema, indent=2)


def json_answer(rng, held_out):
    """Another family's question."""
    while True:
        turn = families.make_turn(rng, held_out, rng.choice(list(VALUES)), noise=rng.random() < 0.3 and not held_out)
        found = re.search(VALUES[turn.family], turn.answer)
        if found and len(turn.question) < 90:
            break
    value = int(found[1]) if re.fullmatch(r"-?\d+", found[1]) else found[1]
    key, kind = "answer", "json.answer"
    if rng.random() < 0.6:
        key = fields.key(rng, held_out) if held_out or rng.random() < 0.5 else rng.choice(ANSWER_KEYS)
        kind += ".key"
    asked = PHRASINGS[kind].ask(rng, held_out, {"question": turn.question, "key": key}, False)
    return "", Turn("json_answer", asked, turn.thought, as_json({key: value}))


# What is told of things: keys by which it may be asked for, a value, and clauses about the subject.
ABOUT = {
    "person": [
        (
            ["age", "years", "age_in_years"],
            lambda rng, _: rng.randint(1, 99),
            ["is {} years old", "is {}", "has the age of {}"],
        ),
        (
            ["city", "home", "place", "town", "residence"],
            fields.city,
            ["lives in {}", "comes from {}", "has a home in {}"],
        ),
        (
            ["job", "profession", "occupation", "work"],
            lambda rng, _: rng.choice(
                """baker teacher doctor pilot nurse farmer painter lawyer driver cook writer singer engineer tailor judge
                miner sailor dentist plumber actor barber florist gardener librarian""".split()
            ),
            ["works as a {}", "is a {}", "has the job of a {}"],
        ),
        (
            ["married", "is_married"],
            lambda rng, _: rng.random() < 0.5,
            [("is married", "is not married"), ("is married", "is single")],
        ),
        (
            ["children", "num_children", "kids"],
            lambda rng, _: rng.randint(2, 9),
            ["has {} children", "is the parent of {} children"],
        ),
        (
            ["likes", "hobbies", "interests"],
            lambda rng, held_out: [fields.word(rng, held_out) for _ in range(rng.randint(1, 3))],
            ["likes {}", "loves {}"],
        ),
        (
            ["email", "mail", "address"],
            lambda rng, held_out: f"{fields.word(rng, held_out)}@{fields.word(rng, held_out)}.com",
            ["can be reached at {}", "has the email {}"],
        ),
    ],
    "thing": [
        (
            ["price", "cost", "price_in_dollars"],
            lambda rng, _: fields.decimal(rng) if rng.random() < 0.5 else rng.randint(1, 999),
            ["costs {} dollars", "is sold for {} dollars"],
        ),
        (
            ["color", "colour"],
            lambda rng, _: rng.choice(
                "red blue green yellow black white brown pink grey orange purple violet gold silver beige navy".split()
            ),
            ["is {}", "comes in {}"],
        ),
        (
            ["weight", "weight_kg", "kilograms"],
            lambda rng, _: rng.randint(1, 99),
            ["weighs {} kg", "has a weight of {} kg"],
        ),
        (
            ["in_stock", "available"],
            lambda rng, _: rng.random() < 0.5,
            [("is in stock", "is sold out"), ("is available", "is not available")],
        ),
        (
            ["quantity", "count", "amount"],
            lambda rng, _: rng.randint(2, 500),
            ["is there {} times", "has a count of {}"],
        ),
        (["city", "location", "warehouse"], fields.city, ["is stored in {}", "is made in {}"]),
        (
            ["tags", "labels"],
            lambda rng, held_out: [fields.word(rng, held_out) for _ in range(rng.randint(1, 3))],
            ["has the tags {}", "is tagged {}"],
        ),
    ],
    "event": [
        (
            ["day", "weekday"],
            lambda rng, _: rng.choice("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
            ["is on {}", "takes place on {}"],
        ),
        (
            ["time", "start", "hour"],
            lambda rng, _: f"{rng.randint(0, 23):02}:{rng.choice(['00', '15', '30', '45'])}",
            ["starts at {}", "begins at {}"],
        ),
        (["city", "place", "location"], fields.city, ["is in {}", "is held in {}"]),
        (["guests", "num_guests", "people"], lambda rng, _: rng.randint(2, 300), ["has {} guests", "is for {} people"]),
        (["host", "organizer"], fields.person, ["is hosted by {}", "is organized by {}"]),
        (
            ["public", "is_public"],
            lambda rng, _: rng.random() < 0.5,
            [("is public", "is private"), ("is public", "is not public")],
        ),
    ],
}
SUBJECTS = {
    "person": (["name", "name", "person", "full_name", "first_name"], fields.person, "{}"),
    "thing": (["product", "name", "item", "title"], fields.word, "The {}"),
    "event": (["event", "name", "title"], fields.word, "The {} [party|meeting|concert|lesson|talk]"),
}


def type_of(value):
    if isinstance(value, list):
        return {"type": "array", "items": type_of(value[0])}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names[type(value)]}


def told(rng, held_out):
    """A text, and what it says by key."""
    if rng.random() < 0.3:  # in the words of the keys themselves
        schema = fields.an_object(rng, held_out, rng.randint(2, 5), depth=0)
        values = {name: fields.value(rng, held_out, part) for name, part in schema["properties"].items()}
        if any(isinstance(value, list) and len(value) == 1 for value in values.values()):  # it would not be seen
            return told(rng, held_out)
        style = rng.choice(["{} is {}", "{}: {}", "{} {}", "{} = {}", "the {} is {}"])
        parts = [style.format(name.replace("_", " "), fields.said(rng, value)) for name, value in values.items()]
        text = rng.choice([", ".join(parts), fields.listed(parts)]) + "."
        return text[0].upper() + text[1:] if rng.random() < 0.5 else text, values
    kind = rng.choice(list(ABOUT))
    keys, make, shown = SUBJECTS[kind]
    shown = re.sub(r"\[(.*)\]", lambda match: rng.choice(match[1].split("|")), shown)
    subject = make(rng, held_out)
    values = {rng.choice(keys): subject if kind != "event" else shown.removeprefix("The ").format(subject)}
    clauses = []
    for names, make, ways in rng.sample(ABOUT[kind], rng.randint(1, 4)):
        value, way = make(rng, held_out), rng.choice(ways)
        values[rng.choice(names)] = value
        clauses.append(
            way[not value]
            if isinstance(way, tuple)
            else way.format(fields.listed(value) if isinstance(value, list) else value)
        )
    text = f"{shown.format(subject)} {fields.listed(clauses)}."
    if kind == "person" and len(clauses) > 1 and rng.random() < 0.3:
        text = f"{subject} {clauses[0]}. {rng.choice(['He', 'She'])} {fields.listed(clauses[1:])}."
    return text, values


def json_extract(rng, held_out):
    text, values = told(rng, held_out)
    names = list(values)
    if rng.random() < 0.5:
        rng.shuffle(names)
    names = names[: rng.randint(min(2, len(names)), len(names))]
    found = {name: values[name] for name in names}
    by_schema = rng.random() < 0.4
    quote = rng.choice(['"{}"', "{}"])
    slots = {"text": text, "keys": fields.listed([quote.format(name) for name in names])}
    if by_schema:
        schema = {"type": "object", "properties": {name: type_of(value) for name, value in found.items()}}
        if rng.random() < 0.8:
            schema["required"] = names
        slots["schema"] = schema_text(rng, fields.decorated(rng, schema, rng.choice(["Data", "Answer", "Info"])))
    thought = f"Fields: {', '.join(names)}."
    ending = ".schema" if by_schema else ""
    if rng.random() < 0.25:
        system = PHRASINGS["json.system" + ending].ask(rng, held_out, slots, False)
        return system, Turn("json_extract", text, thought, as_json(found))
    question = PHRASINGS["json.extract" + ending].ask(rng, held_out, slots, False)
    return "", Turn("json_extract", question, thought, as_json(found))


def random_schema(rng, held_out, depth):
    """Deeper and with more of JSON schema in it than tools' parameters."""
    choice = rng.random()
    if depth and choice < 0.3:
        count = rng.choice([1, 2, 2, 3, 4])
        names = fields.keys(rng, held_out, count)
        schema = {"type": "object", "properties": {name: random_schema(rng, held_out, depth - 1) for name in names}}
        return {**schema, "required": names} if rng.random() < 0.8 else schema
    if depth and choice < 0.45:
        schema = {"type": "array", "items": random_schema(rng, held_out, depth - 1)}
        least = rng.randint(0, 3)
        if rng.random() < 0.6:
            schema["minItems"] = least
        if rng.random() < 0.4:
            schema["maxItems"] = max(least, 1) + rng.randint(0, 3)
        return schema
    if choice < 0.50:
        return (
            {"type": "null"}
            if rng.random() < 0.4
            else {"const": rng.choice([fields.word(rng, held_out), fields.whole(rng)])}
        )
    if choice < 0.55:
        return {"anyOf": [{"type": kind} for kind in rng.sample(["string", "integer", "number", "boolean", "null"], 2)]}
    schema = fields.field(rng, held_out, depth=0)
    if schema.get("type") in ("integer", "number") and rng.random() < 0.35:
        schema["minimum"] = rng.randint(0, 99)
        if rng.random() < 0.5:
            schema["maximum"] = schema["minimum"] + rng.randint(1, 900)
    return schema


def example(schema):
    """The shortest of what is usual: everything named is there, lists have one item or as many as they must."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0])
    kind = schema["type"]
    if kind == "object":
        return {name: example(part) for name, part in schema["properties"].items()}
    if kind == "array":
        return [example(schema["items"])] * max(1, schema.get("minItems", 1))
    return {
        "string": "text",
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1.5),
        "boolean": True,
        "null": None,
    }[kind]


def json_schema(rng, held_out):
    while True:
        count = rng.choice([1, 2, 2, 3, 3, 4, 5, 6])
        schema = random_schema(rng, held_out, 2) if rng.random() < 0.3 else None
        if schema is None:
            names = fields.keys(rng, held_out, count)
            depth = rng.choice([0, 1, 1, 2])
            schema = {"type": "object", "properties": {name: random_schema(rng, held_out, depth) for name in names}}
            if rng.random() < 0.8:
                schema["required"] = names
        text = schema_text(rng, fields.decorated(rng, schema, rng.choice(["Answer", "Data", "Thing"])))
        answer = as_json(example(schema))
        if len(text) <= rng.choice([300, 450, 600]) and len(answer) <= 200:
            break
    thought = {"object": "An object: {}.", "array": "A list."}.get(schema.get("type"), "A value.")
    question = PHRASINGS["json.example"].ask(rng, held_out, {"schema": text}, False)
    return "", Turn("json_schema", question, thought.format(", ".join(schema.get("properties", []))), answer)


def forced(rng):
    """JSON that must come, though nothing asks for it: what a text says, what is worked out, or the usual values."""
    choice = rng.random()
    if choice < 0.35:
        text, values = told(rng, False)
        return Turn("forced", text, families.unknown.THOUGHT, as_json(values))
    if choice < 0.6:
        plain = families.make_turn(rng, False, rng.choice(list(VALUES)))
        found = re.search(VALUES[plain.family], plain.answer)
        if found:
            value = int(found[1]) if re.fullmatch(r"-?\d+", found[1]) else found[1]
            return Turn("forced", plain.question, plain.thought, as_json({fields.key(rng, False): value}))
    plain = families.make_turn(rng)
    schema = random_schema(rng, False, 2)
    while schema.get("type") != "object" or len(as_json(example(schema))) > 200:
        schema = random_schema(rng, False, 2)
    return Turn("forced", plain.question, plain.thought, as_json(example(schema)))


FAMILIES = {"json_answer": (1.0, json_answer), "json_extract": (2.2, json_extract), "json_schema": (1.6, json_schema)}


def draw_family(rng):
    return rng.choices(list(FAMILIES), [weight for weight, _ in FAMILIES.values()])[0]
