"""Questions that are answered with the help of tools: calls in DeepSeek-V3.1's format, and answers from what tools gave.

Tools of a few kinds come under many names, and beside them stand tools of any name and any parameters, so that names and
keys are copied from the declaration; several are declared, and the one that fits is to be called, or none."""

import dataclasses
import json
import re

import arithmetic_phrasings
import families
import fields
import structured
import tool_phrasings
from families import Turn
from phrasing import Phrasings, Problem, is_reserved

CALLS, CALLS_END, CALL, CALL_END, SEPARATOR = (
    f"<｜tool▁{mark}｜>" for mark in ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")
)
OUTPUT, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"

PHRASINGS = {
    "tool." + kind: phrasings
    for kind, phrasings in {
        **tool_phrasings.PHRASINGS,
        "add": arithmetic_phrasings.PHRASINGS["add"],
        "multiply": arithmetic_phrasings.PHRASINGS["multiply"],
    }.items()
}


def calls_text(*calls):
    """What the model writes to call tools. calls: pairs of a name and its arguments."""
    bodies = (f"{CALL}{name}{SEPARATOR}{json.dumps(given, ensure_ascii=False)}{CALL_END}" for name, given in calls)
    return CALLS + "".join(bodies) + CALLS_END


def calls_of(text):
    """The inverse: names and arguments, these as they stand."""
    found = re.findall(f"{CALL}(.*?){SEPARATOR}(.*?){CALL_END}", text, re.DOTALL)
    return [{"name": name, "arguments": given} for name, given in found]


@dataclasses.dataclass(frozen=True)
class Tool:
    kind: str
    name: str
    description: str
    parameters: dict
    words: tuple = ()  # of a tool that is asked for by what it does: verb and noun
    told: tuple = ()  # of a tool that takes what a text says: the text and the arguments

    @property
    def keys(self):
        return list(self.parameters["properties"])

    def declaration(self, rng):
        """As clients send it."""
        description = self.description
        while rng.random() < 0.15:
            description += rng.choice([" ", "\n", "\n\n"]) + rng.choice(MORE).format(word=fields.word(rng, False))
        function = {"name": self.name, "description": description}
        if not description and rng.random() < 0.5:
            del function["description"]
        if self.keys or rng.random() < 0.7:
            function["parameters"] = fields.decorated(rng, self.parameters)
        if rng.random() < 0.1:
            function["strict"] = rng.random() < 0.5
        return {"type": "function", "function": function}


def camel(name):
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def tool_name(rng, held_out, verbs, nouns):
    """ "get_weather", "weather", "fetchCurrentWeather"."""

    def make():
        name = "_".join(filter(None, [rng.choice(verbs.split("|")), rng.choice(nouns.split("|"))]))
        return camel(name) if rng.random() < 0.15 else name

    return fields.draw(rng, held_out, make)


def schema(required, optional=None):
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def weather_tool(rng, held_out):
    name = tool_name(
        rng,
        held_out,
        "get|get|get_current|fetch|check|show|current|lookup|",
        "weather|weather|weather_report|forecast|temperature|weather_in_city|city_weather",
    )
    optional = {}
    if rng.random() < 0.3:
        optional["unit"] = {
            "type": "string",
            "enum": rng.choice([["celsius", "fahrenheit"], ["fahrenheit", "celsius"]]),
        }
    description = rng.choice(
        [
            "Get the weather of a city.",
            "Get the current weather in a given location.",
            "Returns the weather.",
            "Weather for a place.",
            "Get the current temperature and conditions of a city",
            "Look up the weather report for a city.",
            "",
        ]
    )
    place = rng.choice(["city", "city", "location", "location", "place", "town", "city_name"])
    return Tool("weather", name, description, schema({place: TEXT}, optional))


def time_tool(rng, held_out):
    name = tool_name(
        rng,
        held_out,
        "get|get|get_current|fetch|check|current|local|",
        "time|time|local_time|time_in_city|city_time|clock",
    )
    description = rng.choice(
        [
            "Get the time in a city.",
            "Get the current local time of a place.",
            "Returns the time of day.",
            "Tells what time it is in a city",
            "",
        ]
    )
    return Tool(
        "time",
        name,
        description,
        schema({rng.choice(["city", "city", "location", "place", "town", "timezone_city"]): TEXT}),
    )


def operation_tool(rng, held_out, kind, verbs, description):
    keys = rng.choice([("a", "b"), ("a", "b"), ("x", "y"), ("first", "second"), ("num1", "num2"), ("left", "right")])
    kind_of_number = rng.choice([WHOLE, WHOLE, NUMBER])
    name = tool_name(rng, held_out, verbs, "numbers||two_numbers|integers|values")
    return Tool(kind, name, description, schema({key: kind_of_number for key in keys}))


def add_tool(rng, held_out):
    description = rng.choice(["Add two numbers.", "Adds a and b.", "Returns the sum of two numbers", "Addition", ""])
    return operation_tool(rng, held_out, "add", "add|add|sum|plus|get_sum", description)


def multiply_tool(rng, held_out):
    description = rng.choice(
        ["Multiply two numbers.", "Multiplies a and b.", "Returns the product of two numbers", "Multiplication", ""]
    )
    return operation_tool(rng, held_out, "multiply", "multiply|multiply|times|product|get_product|mul", description)


def search_tool(rng, held_out):
    name = tool_name(rng, held_out, "search|search|web_search|lookup|find|look_up", "|web|internet|topic|info|online")
    description = rng.choice(
        ["Search the web.", "Look up a topic.", "Finds information on the internet", "Search for a query", ""]
    )
    return Tool(
        "search", name, description, schema({rng.choice(["query", "query", "q", "topic", "text", "search_term"]): TEXT})
    )


def message_tool(rng, held_out):
    name = tool_name(rng, held_out, "send|send|write|post|deliver", "message|message|text|note|mail|text_message")
    description = rng.choice(
        ["Send a message to a person.", "Sends a text.", "Write someone a message", "Deliver a message.", ""]
    )
    to = rng.choice(["to", "to", "recipient", "person", "receiver", "name"])
    text = rng.choice(["text", "text", "message", "body", "content"])
    order = [to, text] if rng.random() < 0.8 else [text, to]
    return Tool("message", name, description, schema({key: TEXT for key in order}))


def timer_tool(rng, held_out):
    name = tool_name(rng, held_out, "set|set|start|create|new", "timer|timer|alarm|countdown|kitchen_timer")
    description = rng.choice(["Set a timer.", "Starts a timer that rings.", "Start a countdown", "Set a timer", ""])
    key = rng.choice(["minutes", "minutes", "minutes", "seconds", "hours"])
    return Tool("timer", name, description, schema({key: WHOLE}))


def record_tool(rng, held_out):
    """Takes the fields of a text, as clients ask for answers of a certain form."""
    text, given = structured.told(rng, held_out)
    name = tool_name(
        rng,
        held_out,
        "final|save|record|submit|store|give|return|extract",
        "result|answer|data|info|fields|entry|response",
    )
    description = rng.choice(
        ["Give the final answer.", "Saves the data of a text.", "The final response which ends this conversation", ""]
    )
    parameters = schema({key: structured.type_of(value) for key, value in given.items()})
    return Tool("record", name, description, parameters, told=(text, given))


PROPERTIES = (
    """price status address score balance weight owner size color phone_number stock_price exchange_rate population
release_date account_balance order_status flight_status delivery_date humidity rating distance version birthday salary
opening_hours room_number page_count battery_level speed_limit air_quality traffic menu schedule profile summary
definition""".split()
)


def property_tool(rng, held_out):
    """Tells one thing of what it is given."""
    noun = fields.draw(rng, held_out, lambda: rng.choice(PROPERTIES) if rng.random() < 0.7 else fields.made_up(rng))
    name = "_".join(
        filter(None, [rng.choice(["get", "get", "get", "fetch", "check", "find", "lookup", "read", ""]), noun])
    )
    name = camel(name) if rng.random() < 0.2 else name
    words = noun.replace("_", " ")
    description = rng.choice(
        [f"Get the {words}.", f"Returns the {words} of something.", f"Looks up the {words}", "", ""]
    )
    key = fields.key(rng, held_out)
    parameters = schema(
        {key: rng.choice([TEXT, TEXT, TEXT, WHOLE])}, {"verbose": {"type": "boolean"}} if rng.random() < 0.1 else None
    )
    return Tool("property", name, description, parameters, (words,))


# What clients write below or behind the first words of a description.
MORE = [
    "Returns JSON.",
    "Use this when the user asks for it.",
    "Do not call it twice.",
    "Needs no more than its arguments.",
    "The result is a text.",
    "Only for known values.",
    "Args: see below.",
    "This is a tool.",
    "Example: {word}.",
    "It is fast and {word}.",
]


VERBS = """create delete update open close find list show start stop move copy rename check book cancel order print save load
share archive assign approve reject export import pause resume reset lock unlock upload download track ship refund rate
schedule review test build deploy merge sort filter mark pin mute block invite remove""".split()
NOUNS = (
    """ticket file user order task event note account invoice report server job room table flight hotel document folder
photo song playlist contact meeting project issue branch card package payment profile product recipe record session channel
device light door lamp robot printer backup message_queue database page post comment review game team group""".split()
)


def random_tool(rng, held_out):
    choice = rng.random()
    parameters = (
        {"type": "object", "properties": {}}
        if rng.random() < 0.08
        else fields.an_object(rng, held_out, rng.choice([1, 1, 2, 2, 3, 4]), optional=rng.choice([0, 0, 0.4]))
    )
    verb = fields.draw(rng, held_out, lambda: rng.choice(VERBS))
    noun = fields.draw(rng, held_out, lambda: rng.choice(NOUNS) if rng.random() < 0.7 else fields.made_up(rng))
    description = rng.choice(
        [f"{verb.capitalize()} a {noun}.", f"{verb.capitalize()}s the {noun}", f"To {verb} a {noun}."]
    )
    if choice < 0.4:
        name = f"{verb}_{noun}"
        return Tool(
            "random",
            camel(name) if rng.random() < 0.2 else name,
            rng.choice([description, description, ""]),
            parameters,
            (verb, noun),
        )
    name = fields.key(rng, held_out) if choice < 0.8 else fields.draw(rng, held_out, lambda: fields.made_up(rng))
    if choice < 0.6:
        return Tool("random", name, description, parameters, (verb, noun))
    description = rng.choice(["", "", f"Does {fields.word(rng, held_out)}.", f"The {fields.word(rng, held_out)} tool."])
    return Tool("random", name, description, parameters)


MAKERS = {
    "weather": weather_tool,
    "time": time_tool,
    "add": add_tool,
    "multiply": multiply_tool,
    "search": search_tool,
    "message": message_tool,
    "timer": timer_tool,
    "record": record_tool,
    "property": property_tool,
}
# What families of questions a tool takes over: with it these are not drawn.
TAKEN_OVER = {kind: {"fallback"} for kind in ("weather", "time", "search", "message", "timer", "property")} | {
    "add": {"add"},
    "multiply": {"multiply"},
    "record": set(),
    "random": {"fallback"},
}


def telling(output):
    """What a tool gave, in words: "temperature 21, sky clear"."""
    try:
        value = json.loads(output)
    except ValueError:
        return output.rstrip(".")
    if isinstance(value, dict):
        parts = [(name, part if isinstance(part, str) else json.dumps(part)) for name, part in value.items()]
        return parts[0][1] if len(parts) == 1 else ", ".join(f"{name} {part}" for name, part in parts)
    return value if isinstance(value, str) else output


def weather_output(rng, place, unit):
    degrees = rng.randint(-12, 38) if unit != "fahrenheit" else rng.randint(10, 100)
    sky = rng.choice("sunny|cloudy|rain|snow|clear|windy|fog|light rain|heavy snow|storm|partly cloudy".split("|"))
    return rng.choice(
        [
            f"{degrees} degrees, {sky}",
            f"{sky}, {degrees} degrees",
            f"{sky.capitalize()}, {degrees}°C",
            f"{degrees} degrees and {sky}.",
            json.dumps({"temperature": degrees, "condition": sky}),
            json.dumps({"city": place, "temperature": degrees}),
            json.dumps({"location": place, "temperature": str(degrees), "unit": unit or "celsius", "forecast": sky}),
            json.dumps({"temp": degrees, "unit": unit or "celsius", "sky": sky}),
            f"{degrees}",
            f"It is {sky} in {place}.",
            f"It's {degrees} degrees in {place}.",
        ]
    )


def time_output(rng, place):
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    time = f"{hour:02}:{minute:02}"
    return rng.choice(
        [
            time,
            time,
            json.dumps({"time": time}),
            json.dumps({"city": place, "time": time}),
            f"{hour % 12 + 1}:{minute:02} pm",
        ]
    )


def other_output(rng, held_out):
    words = " ".join(fields.word(rng, held_out) for _ in range(rng.randint(1, 6)))
    return rng.choice(
        [
            words,
            words.capitalize() + ".",
            str(fields.whole(rng)),
            json.dumps({fields.key(rng, held_out): fields.whole(rng)}),
            json.dumps({fields.key(rng, held_out): words}),
            json.dumps({"status": words, fields.key(rng, held_out): fields.whole(rng)}),
            f"{words}: {fields.whole(rng)}",
        ]
    )


DONE = ["ok", "OK", "sent", "done", "Done.", "success", '{"status": "ok"}', '{"success": true}', "true", '{"ok": true}']


@dataclasses.dataclass(frozen=True)
class Call:
    """One call, with what the tool then gives and what of it is to be said."""

    tool: Tool
    given: dict
    output: str
    answer: str

    @property
    def pair(self):
        return self.tool.name, self.given


def with_failure(rng, held_out, call):
    """Now and then a tool fails."""
    if rng.random() > 0.07:
        return call
    reason = " ".join(fields.word(rng, held_out) for _ in range(rng.randint(1, 3))) + rng.choice(
        [" not found", " failed", ""]
    )
    output = rng.choice([f"Error: {reason}", json.dumps({"error": reason})])
    return dataclasses.replace(call, output=output, answer=f"Sorry, {call.tool.name} failed: {reason}.")


def place_call(rng, held_out, tool, place, unit=None):
    given = {tool.keys[0]: place} | ({"unit": unit} if unit else {})
    output = weather_output(rng, place, unit) if tool.kind == "weather" else time_output(rng, place)
    return with_failure(rng, held_out, Call(tool, given, output, f"The {tool.kind} in {place}: {telling(output)}."))


def operation_call(tool, first, second):
    result = str(first + second if tool.kind == "add" else first * second)
    return Call(tool, dict(zip(tool.keys, (first, second))), result, f"The result is {result}.")


def message_call(rng, tool, person, text):
    given = {key: person if key in ("to", "recipient", "person", "receiver", "name") else text for key in tool.keys}
    return Call(tool, given, rng.choice(DONE), f"The message to {person} is sent.")


def random_call(rng, held_out, tool):
    """Optional parameters are given only now and then. Also what is said of the arguments in the question."""
    required = tool.parameters.get("required", [])
    names = [name for name in tool.keys if name in required or rng.random() < 0.5]
    given = {name: fields.value(rng, held_out, tool.parameters["properties"][name]) for name in names}
    style = rng.choice(["{} {}", "{} {}", "{} = {}", "{}: {}", "{} is {}", "{}={}"])
    shown = [name.replace("_", " ") if style == "{} {}" and rng.random() < 0.4 else name for name in names]
    arguments = [style.format(name, fields.said(rng, given[real])) for name, real in zip(shown, names)]
    if len(arguments) > 1 and rng.random() < 0.1:
        rng.shuffle(arguments)
    arguments = ", ".join(arguments) if rng.random() < 0.5 or not arguments else fields.listed(arguments)
    output = other_output(rng, held_out)
    call = Call(tool, given, output, f"{tool.name} says: {telling(output)}.")
    return with_failure(rng, held_out, call), arguments


def ask(rng, held_out, kind, slots, noise=True):
    return PHRASINGS["tool." + kind].ask(rng, held_out, slots, noise)


def ask_random(rng, held_out, call, arguments):
    tool = call.tool
    if tool.words and rng.random() < 0.6:
        verb, noun = tool.words
        slots = {"verb": verb.capitalize(), "verb_small": verb, "noun": noun.replace("_", " "), "arguments": arguments}
        return ask(rng, held_out, "task" if arguments else "task.bare", slots)
    return ask(rng, held_out, "named" if arguments else "named.bare", {"tool": tool.name, "arguments": arguments})


def numbers(rng, held_out, kind, *ranges):
    """Numbers for a problem that is held out, or not."""
    while True:
        drawn = [rng.randint(0, 10 ** rng.randint(1, digits) - 1) for digits in ranges]
        if is_reserved(Problem(kind, dict(enumerate(drawn)), "", "")) == held_out:
            return drawn


def search_topic(rng, held_out):
    if rng.random() < 0.4:
        return " ".join(fields.word(rng, held_out) for _ in range(rng.randint(1, 3)))
    return rng.choice(families.unknown.SUBJECTS[rng.choice(["topic", "thing", "person", "country"])])


def single(rng, held_out, tool):
    """A question for one call of this tool."""
    if tool.kind in ("weather", "time"):
        place = fields.city(rng, held_out)
        unit = rng.choice(["celsius", "fahrenheit"]) if "unit" in tool.keys and rng.random() < 0.5 else None
        said = place + (rng.choice([" in {}", ", in {}", " ({})"]).format(unit) if unit else "")
        return ask(rng, held_out, tool.kind, {"place": said}), place_call(rng, held_out, tool, place, unit)
    if tool.kind in ("add", "multiply"):
        first, second = numbers(rng, held_out, tool.kind, 5, 5 if tool.kind == "add" else 3)
        return ask(rng, held_out, tool.kind, {"a": first, "b": second}), operation_call(tool, first, second)
    if tool.kind == "search":
        topic = fields.draw(rng, held_out, lambda: search_topic(rng, held_out))
        topic = topic.removeprefix("the ").removeprefix("a ").removeprefix("an ")
        output = other_output(rng, held_out)
        call = Call(tool, {tool.keys[0]: topic}, output, f"I found this: {telling(output)}.")
        return ask(rng, held_out, "search", {"topic": topic}), with_failure(rng, held_out, call)
    if tool.kind == "message":
        person = fields.person(rng, held_out)
        text = message_text(rng, held_out)
        return ask(rng, held_out, "message", {"person": person, "text": text}), message_call(rng, tool, person, text)
    if tool.kind == "timer":
        (count,) = numbers(rng, held_out, "timer", 3)
        unit = tool.keys[0]
        slots = {"n": count, "unit": unit if count != 1 else unit[:-1], "single": unit[:-1]}
        call = Call(tool, {unit: count}, rng.choice(DONE), f"The timer is set for {count} {slots['unit']}.")
        return ask(rng, held_out, "timer", slots), call
    if tool.kind == "property":
        value = fields.value(rng, held_out, tool.parameters["properties"][tool.keys[0]])
        said = value if not isinstance(value, str) or rng.random() < 0.7 else f'"{value}"'
        output = other_output(rng, held_out)
        call = Call(tool, {tool.keys[0]: value}, output, f"The {tool.words[0]} of {value}: {telling(output)}.")
        return ask(rng, held_out, "property", {"noun": tool.words[0], "value": said}), with_failure(rng, held_out, call)
    if tool.kind == "record":
        text, given = tool.told
        return text, Call(tool, given, rng.choice(DONE), "Done.")
    call, arguments = random_call(rng, held_out, tool)
    return ask_random(rng, held_out, call, arguments), call


TEXTS = """I am late|See you soon|Happy birthday|Call me|Dinner is ready|Good night|I am at home|We are here|Come home|
Thank you|Where are you?|I love you|The train is late|Bring milk|Lunch at noon|Are you ready?|Hello|Good luck|I will wait|
Do not forget the keys|The door is open|I need help|Meet me at {n}|{n} minutes left|See you in {city}|I am in {city}|
Buy {words}|The {words} is ready|{words}|{words} and {words}|Bring the {words}|Do you have {words}?|Room {n}""".replace(
    "\n", ""
).split("|")


def message_text(rng, held_out):
    def make():
        template = rng.choice(TEXTS)
        return template.format(n=rng.randint(2, 99), city=fields.city(rng, held_out), words=fields.word(rng, held_out))

    return fields.draw(rng, held_out, make)


def answered(family, question, steps, last_thought="I have the output."):
    """The turns of a question whose tools are called in these steps, all of a step at once; the last is the answer."""
    turns, outputs = [], ()
    for number, (thought, calls) in enumerate(steps):
        turns.append(
            Turn(
                family[0] if number == 0 else family[-1],
                "" if outputs else question,
                thought,
                calls_text(*(call.pair for call in calls)),
                outputs,
            )
        )
        outputs = tuple(call.output for call in calls)
    finals = [call for _, calls in steps for call in calls]
    if family[-1] == "tool_loop" and finals[-1].tool.kind in ("multiply", "message"):
        finals = finals[-1:]
    turns.append(Turn(family[-1], "", last_thought, " ".join(call.answer for call in finals), outputs))
    return turns


class Toolbox:
    """The tools of a dialogue."""

    def __init__(self, rng, held_out, wanted=(), everyday=False):
        """`wanted`: kinds that are among them."""
        self.rng, self.held_out = rng, held_out
        count = max(len(wanted), rng.choice([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, rng.randint(6, 12)]))
        others = [kind for kind in MAKERS if kind not in wanted]
        rng.shuffle(others)
        kinds = [*wanted]
        while len(kinds) < count:
            kinds.append(others.pop() if others and rng.random() < (0.75 if everyday else 0.4) else "random")
        rng.shuffle(kinds)
        self.tools = []
        for kind in kinds:
            tool = MAKERS.get(kind, random_tool)(rng, held_out)
            if not any(tool.name == each.name or (tool.words and tool.words == each.words) for each in self.tools):
                self.tools.append(tool)

    def declarations(self):
        return [tool.declaration(self.rng) for tool in self.tools]

    def of_kind(self, *kinds):
        return [tool for tool in self.tools if tool.kind in kinds]

    def exchange(self, family):
        """The turns of a question of this family, or nothing where no tool is for it."""
        return getattr(self, family)()

    def tool_call(self):
        tools = self.of_kind(*MAKERS)
        return tools and self.called_once(self.rng.choice(tools), "tool_call")

    def tool_any(self):
        tools = self.of_kind("random")
        return tools and self.called_once(self.rng.choice(tools), "tool_any")

    def called_once(self, tool, family):
        question, call = single(self.rng, self.held_out, tool)
        return answered([family, "tool_answer"], question, [(f"I use {tool.name}.", [call])])

    def tool_two(self):
        """Two calls at once, which do not need each other."""
        rng, held_out = self.rng, self.held_out
        places, others = self.of_kind("weather", "time"), self.of_kind("random")
        if places and (rng.random() < 0.8 or len(others) < 2):
            tools_used = rng.sample(places, 2) if len(places) > 1 else [rng.choice(places)]
            kind = tools_used[0].kind + ("_" + tools_used[1].kind if len(tools_used) > 1 else ".two")
            where = [fields.city(rng, held_out) for _ in range(2 if len(tools_used) > 1 or rng.random() < 0.85 else 3)]
            question = ask(rng, held_out, kind, {"place": ", ".join(where[:-1]), "other": where[-1]})
            pairs = zip(tools_used if len(tools_used) > 1 else tools_used * len(where), where)
            calls = [place_call(rng, held_out, tool, each) for tool, each in pairs]
            names = fields.listed([tool.name for tool in tools_used])
            thought = f"I use {names} for {fields.listed(where)}."
            return answered(["tool_two", "tool_answer"], question, [(thought, calls)])
        return self.of_two(others, "two") if len(others) > 1 else []

    def of_two(self, tools, how):
        rng, held_out = self.rng, self.held_out
        (first, arguments), (second, more) = (random_call(rng, held_out, tool) for tool in rng.sample(tools, 2))
        if not arguments or not more:
            return []
        slots = {
            "tool": first.tool.name,
            "arguments": arguments,
            "other_tool": second.tool.name,
            "other_arguments": more,
        }
        question = ask(rng, held_out, "named." + how, slots)
        names = first.tool.name, second.tool.name
        if how == "two":
            steps = [("I use {} and {}.".format(*names), [first, second])]
            return answered(["tool_two", "tool_answer"], question, steps)
        steps = [(f"First I use {names[0]}.", [first]), (f"Next I use {names[1]}.", [second])]
        return answered(["tool_any", "tool_loop"], question, steps, "I have all outputs.")

    def tool_loop(self):
        """Calls one after another."""
        rng, held_out = self.rng, self.held_out
        by_kind = {tool.kind: tool for tool in self.tools}
        choices = []
        if {"add", "multiply"} <= by_kind.keys():
            first, second, factor = numbers(rng, held_out, "add_multiply", 4, 4, 2)
            question = ask(rng, held_out, "add_multiply", {"a": first, "b": second, "c": factor})
            calls = operation_call(by_kind["add"], first, second), operation_call(
                by_kind["multiply"], first + second, factor
            )
            choices.append((question, calls))
        if {"weather", "message"} <= by_kind.keys():
            place, person = fields.city(rng, held_out), fields.person(rng, held_out)
            question = ask(rng, held_out, "weather_message", {"place": place, "person": person})
            output = weather_output(rng, place, None)
            weather = Call(by_kind["weather"], {by_kind["weather"].keys[0]: place}, output, "")
            choices.append((question, (weather, message_call(rng, by_kind["message"], person, telling(output)))))
        if not choices:
            others = self.of_kind("random")
            return self.of_two(others, "then") if len(others) > 1 else []
        question, (first, second) = rng.choice(choices)
        steps = [(f"First I use {first.tool.name}.", [first]), (f"Next I use {second.tool.name}.", [second])]
        return answered(["tool_call", "tool_loop"], question, steps, "I have all outputs.")

    def forced(self):
        """A call that must come, though nothing asks for it: the usual values."""
        tool = self.rng.choice(self.tools)
        (turn,) = self.tool_none()
        given = structured.example(tool.parameters)
        return [dataclasses.replace(turn, answer=calls_text((tool.name, given)), family="forced")]

    def tool_none(self):
        """A question that no tool is for."""
        taken = set().union(*(TAKEN_OVER[tool.kind] for tool in self.tools))
        while True:
            turn = families.make_turn(self.rng, self.held_out)
            if turn.family not in taken:
                return [dataclasses.replace(turn, family="tool_none")]


# Family, how often it is drawn, how often where tools are everyday ones, the kinds of tools that it needs.
FAMILIES = {
    "tool_call": (2.0, 3.0, [[kind] for kind in MAKERS]),
    "tool_any": (2.5, 1.6, [["random"]]),
    "tool_two": (1.0, 1.3, [["weather"], ["weather"], ["time"], ["weather", "time"], ["random", "random"]]),
    "tool_answer": (0.7, 2.0, [[kind] for kind in [*MAKERS, "random", "random"]]),
    "tool_loop": (0.8, 1.2, [["add", "multiply"], ["weather", "message"], ["random", "random"]]),
    "tool_none": (0.9, 1.2, [[]]),
}
EVERYDAY = "weather weather weather weather time time time add multiply search search message timer property".split()


def draw_family(rng, everyday=False):
    return rng.choices(list(FAMILIES), [weights[everyday] for *weights, _ in FAMILIES.values()])[0]


def make_exchange(rng, held_out, family, whole=False, everyday=False):
    """Tools, and the turns of a question of this family, the last of which is of it; or all of them, up to the answer.
    `everyday`: mostly what people try first, beside others of that kind."""
    while True:
        likely = everyday and family in ("tool_call", "tool_answer") and rng.random() < 0.8
        wanted = [rng.choice(EVERYDAY)] if likely else rng.choice(FAMILIES[family][-1])
        box = Toolbox(rng, held_out, wanted, everyday)
        asked = box.of_kind(*wanted) if likely else box.tools
        turns = box.called_once(rng.choice(asked), "") if family == "tool_answer" else box.exchange(family)
        ends = [number for number, turn in enumerate(turns, 1) if turn.family == family]
        if ends:
            return box, turns if whole else turns[: rng.choice(ends)]
