"""The conversations of the chat-template fixture: what each template of tests/data/chat_templates is rendered with."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Das Wetter: <b>heiß & \"kalt\"</b> 天气\n'now' / then",
        "parameters": {
            "type": "object",
            "properties": {"zip": {"type": "string"}, "days": {"type": "integer", "minimum": 0, "default": 1.0}, "area": {"enum": ["a", None, True, 1e-7, 1.5e300, 123456789012345678]}},
            "required": ["zip"],
            "additionalProperties": False,
        },
    },
}


def call(name, arguments):
    return {"type": "function", "id": "call_1", "function": {"name": name, "arguments": arguments}}


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def tool(text):
    return {"role": "tool", "content": text, "tool_call_id": "call_1"}


MESSAGES = {
    "one question": [user("Which one is larger? 3.8 or 3.11")],
    "system": [system("You are helpful.\nAlways."), user("Hi")],
    "two systems": [system("First."), system("Second."), user("Hi")],
    "late system": [user("Hi"), assistant("Hello"), system("Be brief."), user("Go on")],
    "several turns": [user("Hi"), assistant("Hello! 你好"), user("  spaces kept  \n"), assistant("ok\n"), user("bye 👋🏽")],
    "thought in the answer": [user("1+1?"), assistant("<think>\nEasy.\n</think>\n\n2"), user("2+2?")],
    "two closing tags": [user("q"), assistant("<think>a</think>b</think>\n\nc"), user("r")],
    "unclosed thought": [user("q"), assistant("<think>still"), user("r")],
    "ends with an answer": [user("q"), assistant("a")],
    "empty texts": [system(""), user(""), assistant(""), user("")],
    "special tokens in a text": [user("What is <｜User｜> or <｜end▁of▁sentence｜> or </think>?"), assistant("A token: <｜Assistant｜>"), user("{{ bos_token }} {% if %}")],
    "tool call": [user("Weather?"), assistant(None, tool_calls=[call("get_weather", '{"zip": "10115"}')]), tool("22°C ☀️"), assistant("It is 22°C."), user("Thanks")],
    "two tool calls": [user("Weather?"), assistant(None, tool_calls=[call("get_weather", '{"zip": "1"}'), call("get_weather", '{"zip": "2"}')]), tool("1"), tool("2")],
    "tool call with parsed arguments": [user("q"), assistant("", tool_calls=[call("f", {"b": 1, "a": [True, None, "ü"]})]), tool("x")],
    "no role": [{"content": "x"}],
    "no content": [{"role": "user"}],
    "content parts": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
    "two users in a row": [user("a"), user("b")],
    "json in a text": [user('{"a": [1, 2, {"b": "c"}]}\t\\n'), assistant("```json\n{}\n```"), user("</s>&<>'\"")],
}

SETTINGS = [
    {},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "tools": [WEATHER, {"type": "function", "function": {"name": "no_op", "parameters": {}}}]},
    {"add_generation_prompt": False, "enable_thinking": False, "limit": 2},
]


def make_contexts():
    return [{"messages": messages, **settings} for messages in MESSAGES.values() for settings in SETTINGS]
