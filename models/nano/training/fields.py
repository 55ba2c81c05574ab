"""Random names, values and JSON schemas, for tools' parameters and for answers in JSON. One name and one word in ten are
held out, by themselves: the model has to copy, not to know them."""

import re

from phrasing import is_reserved_word

WORDS = (
    """apple arrow bird blue boat book box bread bridge brown cake camera candle car chair city cloud coat coffee cold
copper corner dark desk door dream engine fast field film fire fish flag flower forest frame garden glass gold green grey
guitar hammer happy heavy honey hotel house island key kitchen lamp large leather letter light lion long lunch map metal
milk mirror moon morning music new night north notebook ocean office old onion orange paper park pepper piano picture pink
plain plant pocket quick quiet rain red ribbon river road roof room rose round salt sand school shadow ship shirt shoe
silver small soap soft song south spring square star stone storm strong sugar summer table tall tea ticket tiger tower
train tree urgent velvet violet wagon warm water white wide window winter wood wool yellow young""".split()
)

CITIES = re.split(
    r",\s+",
    """Paris, London, Berlin, Rome, Madrid, Tokyo, Beijing, Delhi, Cairo, Lima, Oslo, Vienna, Dublin, Sydney, Boston,
    Chicago, Moscow, Athens, Prague, Lisbon, New York, San Francisco, Los Angeles, Seattle, Dallas, Houston, Denver, Miami,
    Toronto, Montreal, Vancouver, Havana, Bogota, Santiago, Buenos Aires, Rio de Janeiro, Casablanca, Tunis, Lagos, Nairobi,
    Cape Town, Istanbul, Ankara, Dubai, Tehran, Mumbai, Kolkata, Bangkok, Hanoi, Singapore, Jakarta, Manila, Seoul, Busan,
    Osaka, Kyoto, Shanghai, Hangzhou, Shenzhen, Hong Kong, Taipei, Melbourne, Perth, Auckland, Helsinki, Stockholm, Malmo,
    Copenhagen, Hamburg, Munich, Cologne, Dresden, Zurich, Geneva, Basel, Milan, Turin, Naples, Venice, Barcelona, Valencia,
    Porto, Lyon, Nice, Brussels, Antwerp, Amsterdam, Utrecht, Edinburgh, Glasgow, Leeds, Bristol, Belfast, Warsaw, Krakow,
    Budapest, Bucharest, Sofia, Belgrade, Zagreb, Riga, Vilnius, Tallinn, Kyiv, Tbilisi, Reykjavik, Austin, Portland, Phoenix""",
)
REGIONS = "CA, TX, NY, France, Italy, Spain, Japan, Brazil, Germany, England, Kenya, India, China, UK".split(", ")
PEOPLE = (
    """Tom Anna Ben Lily Max Emma Sam Mia Leo Nora Jack Ella Paul Ruth Tim Sara Dan Kate Alex Lena Bob Jane Mark Rosa
Peter Ivy Omar Clara Hugo Maria Alice John Linda Oscar Greta Felix Helen Victor Yuki Chen Ali Fatima Ravi Priya Igor Olga
Pierre Marie Carlos Lucia""".split()
)
KEYS = """title name path user priority count limit color size email subject note quantity price tag urgent active id url
language level code room date topic label kind mode source target format amount owner team city value width height speed
days hours page order item comment status state key group channel version branch format style verbose public dry_run
max_results user_id order_id file_name start_date end_date item_count is_public first_name last_name phone_number""".split()
KEYS = list(dict.fromkeys(KEYS))


NEVER_HELD_OUT = "get_weather get_current_weather get_time add multiply search send_message set_timer Paris".split()


def made_up(rng, syllables=None):
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "s", "l"])
        for _ in range(syllables or rng.randint(2, 3))
    )


def draw(rng, held_out, make):
    """Something of `make` that is held out, or not."""
    while True:
        value = make()
        if (is_reserved_word(value) and value not in NEVER_HELD_OUT) == held_out:
            return value


def city(rng, held_out):
    return draw(rng, held_out, lambda: rng.choice(CITIES) if rng.random() < 0.6 else made_up(rng).capitalize()) + (
        ", " + rng.choice(REGIONS) if rng.random() < 0.05 else ""
    )


def person(rng, held_out):
    return draw(rng, held_out, lambda: rng.choice(PEOPLE) if rng.random() < 0.7 else made_up(rng).capitalize())


def word(rng, held_out):
    return draw(rng, held_out, lambda: rng.choice(WORDS) if rng.random() < 0.6 else made_up(rng))


def key(rng, held_out):
    """A parameter's name: a word, a made-up one, or two in snake or camel case."""

    def make():
        choice = rng.random()
        if choice < 0.55:
            return rng.choice(KEYS)
        first, second = (rng.choice(WORDS) if rng.random() < 0.7 else made_up(rng) for _ in range(2))
        if choice < 0.75:
            return first
        return f"{first}_{second}" if choice < 0.92 else first + second.capitalize()

    return draw(rng, held_out, make)


def keys(rng, held_out, count):
    found = []
    while len(found) < count:
        new = key(rng, held_out)
        if new not in found:
            found.append(new)
    return found


def phrase(rng, held_out):
    """A text value of one to four words."""
    text = " ".join(word(rng, held_out) for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])))
    choice = rng.random()
    if choice < 0.15:
        return text.capitalize()
    if choice < 0.25:
        return person(rng, held_out)
    if choice < 0.32:
        return city(rng, held_out)
    if choice < 0.36:
        return f"{word(rng, held_out)}-{rng.randint(1, 99)}"
    if choice < 0.40:
        return f"{word(rng, held_out)}.{rng.choice(['txt', 'py', 'md', 'json'])}"
    if choice < 0.43:
        return f"{word(rng, held_out)}@{word(rng, held_out)}.com"
    return text


def whole(rng):
    return rng.randint(0, 10 ** rng.randint(1, 4) - 1)


def decimal(rng):
    return round(rng.randint(1, 999) / rng.choice([10, 10, 100]), 2) + 0.0


def field(rng, held_out, depth=1):
    """A random schema of one field, with what it may hold."""
    choice = rng.random()
    if choice < 0.38:
        return {"type": "string"}
    if choice < 0.60:
        return {"type": "integer"}
    if choice < 0.68:
        return {"type": "number"}
    if choice < 0.78:
        return {"type": "boolean"}
    if choice < 0.87:
        values = []
        while len(values) < rng.randint(2, 4):
            values.append(draw(rng, held_out, lambda: word(rng, held_out)))
        values = list(dict.fromkeys(values))
        return {"type": "string", "enum": values} if rng.random() < 0.8 else {"enum": values}
    if choice < 0.94 or not depth:
        return {"type": "array", "items": {"type": rng.choice(["string", "string", "string", "integer"])}}
    return an_object(rng, held_out, rng.randint(1, 3), depth - 1)


def an_object(rng, held_out, num_fields, depth=1, optional=0.0):
    names = keys(rng, held_out, num_fields)
    properties = {name: field(rng, held_out, depth) for name in names}
    required = [name for name in names if rng.random() >= optional]
    schema = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def value(rng, held_out, schema):
    """A value that the schema allows."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"]
    if kind == "string":
        return phrase(rng, held_out)
    if kind == "integer":
        return whole(rng)
    if kind == "number":
        return decimal(rng) if rng.random() < 0.8 else whole(rng)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "array":
        make = (lambda: word(rng, held_out)) if schema["items"]["type"] == "string" else (lambda: whole(rng))
        return [make() for _ in range(rng.randint(1, 3))]
    return {name: value(rng, held_out, part) for name, part in schema["properties"].items()}


def decorated(rng, schema, title=None):
    """The schema as clients write it: further keys, and all in any order."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {
            name: decorated(rng, part, name.replace("_", " ").title()) for name, part in schema["properties"].items()
        }
        if rng.random() < 0.5:
            result["additionalProperties"] = False
    elif "items" in schema:
        result["items"] = decorated(rng, schema["items"])
    if title and rng.random() < 0.2:
        result["title"] = title
    if title and "properties" not in schema and rng.random() < 0.2:
        result["description"] = f"The {title.lower()}."
    if rng.random() < 0.3:
        order = list(result)
        rng.shuffle(order)
        result = {name: result[name] for name in order}
    return result


def listed(texts):
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def said(rng, value):
    """A value as people write it."""
    if isinstance(value, bool):
        return rng.choice(["true", "yes", "on"] if value else ["false", "no", "off"])
    if isinstance(value, list):
        parts = [str(each) for each in value]
        return f"[{', '.join(parts)}]" if rng.random() < 0.3 else listed(parts)
    if isinstance(value, dict):
        return listed([f"{name} {said(rng, part)}" for name, part in value.items()])
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z]+", value)
        return f'"{value}"' if rng.random() < (0.3 if plain else 0.8) else value
    return str(value)
