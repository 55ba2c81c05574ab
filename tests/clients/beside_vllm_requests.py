"""The requests of beside_vllm.py, as data: groups of (name, path, body that all have, what each changes in it).

A change replaces keys; ABSENT takes one away; a text is the whole body instead. METHOD, PATH and HEADERS are no keys
of the body.
"""

ABSENT, METHOD, PATH, HEADERS, PREVIOUS = "$absent", "$method", "$path", "$headers", "$previous"

USER = {"role": "user", "content": "Hi there!"}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"],
        "additionalProperties": False}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": CITY}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
CALLED = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"],
          "additionalProperties": False}  # fmt: skip
OF_SCHEMA = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR}}
TAG = {"structures": [{"begin": "<a>", "schema": COLOUR, "end": "</a>"}], "triggers": ["<a>"]}
DEEP = {"type": "object"}
for _ in range(70):
    DEEP = {"type": "object", "properties": {"a": DEEP}}

CHAT = {"model": "nano", "messages": [USER], "temperature": 0, "max_tokens": 60}
SHORT = CHAT | {"max_tokens": 4}
COMPLETION = {"model": "nano", "prompt": "What is", "temperature": 0, "max_tokens": 8, "add_special_tokens": False}
RESPONSE = {"model": "nano", "input": "Hi there!", "temperature": 0, "max_output_tokens": 60}
MESSAGE = {"model": "nano", "messages": [USER], "temperature": 0, "max_tokens": 60}
FLAT_TOOL = {"type": "function", "name": "get_weather", "description": "The weather", "parameters": CITY}
OWN_TOOL = {"name": "get_weather", "description": "The weather", "input_schema": CITY}
SEEN = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Rome"}'}
TOLD = {"type": "function_call_output", "call_id": "call_1", "output": "Rain."}
USED = [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather",
                                                  "input": {"city": "Rome"}}]}]  # fmt: skip
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "Rain."}


def each(name, *values):
    return [{name: value} for value in values]


def roles(*messages):
    return [{"messages": list(message) if isinstance(message, (list, tuple)) else message} for message in messages]


GROUPS = [
    ("chat", "/v1/chat/completions", CHAT, [
        {}, {"n": 2}, {"n": 2, "temperature": 1, "seed": 7}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 0}, {"logprobs": False}, {"stop": "help"}, {"stop": ["help", "Hello"]},
        {"stop": "help", "include_stop_str_in_output": True}, {"stop": []}, {"stop": None}, {"stop_token_ids": [501]},
        {"presence_penalty": 1.5}, {"frequency_penalty": -1.5}, {"repetition_penalty": 1.2},
        {"seed": 5}, {"seed": -5}, {"logit_bias": {"39": -100}}, {"logit_bias": {}}, {"max_tokens": 5},
        {"max_completion_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 60}, {"max_tokens": ABSENT},
        {"max_tokens": None}, {"temperature": 1, "top_p": 0.5, "seed": 1}, {"temperature": 1, "top_k": 3, "seed": 1},
        {"temperature": 1, "min_p": 0.2, "seed": 1}, {"top_k": -1}, {"min_tokens": 3}, {"ignore_eos": True},
        {"user": "me"}, {"model": ABSENT}, {"metadata": {"a": "b"}, "store": True}, {"service_tier": "default"},
        {"return_token_ids": True, "max_tokens": 4}, {"prompt_logprobs": 1, "max_tokens": 4},
        {"prompt_logprobs": 0, "max_tokens": 4}, {"skip_special_tokens": False},
        {"return_tokens_as_token_ids": True, "logprobs": True, "max_tokens": 4}, {"request_id": "mine"},
        {"include_reasoning": False}, {"reasoning_effort": "low"}, {"chat_template_kwargs": {"thinking": False}},
        {"bad_words": ["Hello"]}, {"allowed_token_ids": [39, 40, 501], "max_tokens": 4}, {"priority": 0},
        {"cache_salt": "salt"}, {"truncate_prompt_tokens": 4}, {"truncate_prompt_tokens": -1}, {"echo": True},
        {"add_generation_prompt": False}, {"parallel_tool_calls": False}, {"modalities": ["text"]},
        {"unknown_field": 1}, {"thinking_token_budget": 3}, {"verbosity": "low"}, {"return_prompt_text": True},
        {HEADERS: {"X-Request-Id": "abc"}}, {HEADERS: {"Content-Type": "text/plain"}},
        {HEADERS: {"Content-Type": "application/json; charset=utf-8"}}, {HEADERS: {"Authorization": "Bearer x"}},
    ]),
    ("chat: messages", "/v1/chat/completions", SHORT, roles(
        [{"role": "system", "content": "Be short."}, USER], [{"role": "developer", "content": "Be short."}, USER],
        [USER, {"role": "assistant", "content": "Hello!"}, USER], [USER | {"name": "me"}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there!"}]}],
        [USER, {"role": "assistant", "content": "Hello!", "reasoning": "greet"}, USER],
        [USER, {"role": "assistant", "content": None}, USER], [USER, {"role": "assistant"}, USER],
        [{"role": "user", "content": ""}], [{"role": "user", "content": "ünï 你好 🙂"}],
        [USER | {"unknown": 1}], [{"role": "assistant", "content": "Hello"}], [{"role": "system", "content": "Hi"}],
        ABSENT, None, [], {}, "Hi", 7, [7], ["Hi"], [{}], [{"role": "user"}], [{"role": "user", "content": None}],
        [{"role": "user", "content": 7}], [{"role": "user", "content": {}}], [{"role": "user", "content": [7]}],
        [{"role": "user", "content": []}], [{"role": "user", "content": ["Hi"]}], [{"content": "Hi"}],
        [{"role": 7, "content": "Hi"}], [{"role": "robot", "content": "Hi"}],
        [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"text": "Hi"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}],
        [{"role": "user", "content": "word " * 5000}],
    ) + [
        {"messages": [USER, {"role": "assistant", "content": "Hello"}], "continue_final_message": True,
         "add_generation_prompt": False},
        {"continue_final_message": True, "add_generation_prompt": True},
    ]),
    ("chat: bad values", "/v1/chat/completions", SHORT, [
        *each("model", "other", 7, "", None, []), *each("temperature", -1, 2.1, "hot", None, True, []),
        *each("top_p", 0, -0.1, 1.1, "x"), *each("top_k", -2, 1.5, "x", 0), *each("min_p", -0.1, 1.1),
        *each("n", 0, -1, 1.5, "2", "x", 100000), *each("max_tokens", 0, -1, 1.5, "5", "x", 10**6, 10**20),
        *each("max_completion_tokens", 0, -1, "x", 10**6), *each("presence_penalty", -2.1, 2.1, "x"),
        *each("frequency_penalty", -2.1, 2.1), *each("repetition_penalty", 0, -1, "x"),
        *each("seed", 1.5, "x", 2**64), *each("stop", 7, [7], "", [""], ["x"] * 5, {}),
        *each("stop_token_ids", 7, ["x"], [-1], [100000]), *each("logit_bias", 7, [], {"x": 1}, {"100000": 1}, {"5": "x"}),
        *each("logit_bias", {"5": 101}, {"-1": 1}), *each("logprobs", "x", 1, 7), {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": -2}, {"logprobs": True, "top_logprobs": 21}, {"logprobs": True, "top_logprobs": "x"},
        *each("prompt_logprobs", -2, 21, "x"), {"prompt_logprobs": 1, "stream": True},
        *each("min_tokens", -1, 100, "x"), *each("stream", "x", 7, None, "true"), *each("stream_options", 7, {}, None),
        {"stream_options": {"include_usage": True}}, {"stream": True, "stream_options": 7},
        {"stream": True, "stream_options": {"include_usage": "x"}}, *each("priority", "x", 1.5),
        *each("cache_salt", "", 7, "a/b"), *each("truncate_prompt_tokens", -2, 0, "x"), *each("bad_words", "x", [7], [""]),
        *each("allowed_token_ids", [], [-1], [100000], "x"), *each("chat_template_kwargs", 7, "x"),
        *each("chat_template", "{{ messages }}", 7), *each("reasoning_effort", "huge", 7), *each("documents", 7, ["x"]),
        *each("service_tier", "gold"), *each("ignore_eos", "x"), *each("add_generation_prompt", "x"),
        {"use_beam_search": True}, {"use_beam_search": True, "n": 2}, {"logprob_token_ids": [5], "logprobs": True},
        {"thinking_token_budget": -2}, {"return_token_ids": "x"}, {"audio": {"voice": "x"}}, {"modalities": ["audio"]},
        {"length_penalty": 2}, {"best_of": 2}, {"functions": [], "function_call": "none"},
    ]),
    ("chat: tools", "/v1/chat/completions", CHAT | {"tools": [TOOL]}, [
        {}, *each("tool_choice", "auto", "none", "required", NAMED, None), {"tool_choice": "required", "n": 2},
        {"tool_choice": "required", "parallel_tool_calls": False}, {"tool_choice": "required", "logprobs": True},
        {"tool_choice": "required", "max_tokens": 30}, {"tools": [TOOL, {**TOOL, "function": {"name": "now"}}], "tool_choice": NAMED},
        {"tools": [{**TOOL, "function": TOOL["function"] | {"strict": True}}]},
        *roles([*CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}],
               [*CALLED, {"role": "tool", "content": "Rain."}], [*CALLED, {"role": "tool", "tool_call_id": "call_1"}],
               [USER, {"role": "tool", "tool_call_id": "call_9", "content": "Rain."}],
               [*CALLED, {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain."}]}],
               [USER, {"role": "assistant", "tool_calls": [{"id": "x"}]}, USER],
               [USER, {"role": "assistant", "tool_calls": []}, USER], [USER, {"role": "assistant", "tool_calls": 7}, USER],
               [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}, USER]),
        *each("tools", [], None, 7, {}, [7], [{}], [{"type": "function"}], [{"type": "function", "function": {}}],
              [{"type": "other", "function": {"name": "f"}}], [{"type": "function", "function": {"name": 7}}],
              [{"type": "function", "function": {"name": "f", "parameters": 7}}],
              [{"type": "function", "function": {"name": "a b"}}], [{"function": {"name": "f"}}]),
        *each("tool_choice", "x", 7, {}, {"type": "function"}, {"type": "function", "function": {}},
              {"type": "function", "function": {"name": "other"}}, {"type": "function", "function": {"name": 7}}),
        *({"tools": ABSENT, "tool_choice": choice} for choice in ("auto", "none", "required", NAMED)),
        {"tool_choice": "required", "response_format": {"type": "json_object"}},
        {"response_format": OF_SCHEMA}, {"tool_choice": NAMED, "structured_outputs": {"choice": ["a"]}},
        {"tool_choice": "required", "tools": [{**TOOL, "function": {"name": "f", "parameters": {"type": "nonsense"}}}]},
    ]),
    ("chat: forms", "/v1/chat/completions", CHAT, [
        *each("response_format", {"type": "text"}, {"type": "json_object"}, OF_SCHEMA, None, {"type": "structural_tag", **TAG},
              {"type": "structural_tag", "format": {"type": "const_string", "value": "yes"}}),
        {"response_format": OF_SCHEMA, "n": 2}, {"response_format": OF_SCHEMA, "max_tokens": 30},
        {"response_format": OF_SCHEMA, "logprobs": True},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": COLOUR, "strict": True}}},
        *each("response_format", {}, 7, "json", {"type": "xml"}, {"type": "json_schema"}, {"type": 7},
              {"type": "json_schema", "json_schema": {}}, {"type": "json_schema", "json_schema": {"name": "x"}},
              {"type": "json_schema", "json_schema": {"schema": COLOUR}}, {"type": "json_schema", "json_schema": 7},
              {"type": "json_schema", "json_schema": {"name": "x", "schema": 7}},
              {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
              {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/$defs/none"}}},
              {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "("}}},
              {"type": "json_schema", "json_schema": {"name": "x", "schema": False}},
              {"type": "json_schema", "json_schema": {"name": "x", "schema": DEEP}},
              {"type": "structural_tag"}, {"type": "structural_tag", "structures": 7, "triggers": []}),
        *each("structured_outputs", {"choice": ["red", "blue"]}, {"regex": "[ab]{3}"}, {"json": COLOUR}, {"json_object": True},
              {"grammar": 'root ::= "yes" | "no"'}, None, {"structural_tag": '{"type": "structural_tag", "format": '
              '{"type": "const_string", "value": "yes"}}'}),
        *each("structured_outputs", {}, 7, {"choice": []}, {"choice": "red"}, {"choice": [7]}, {"regex": "("}, {"regex": 7},
              {"regex": ""}, {"json": 7}, {"json": "{"}, {"json": "{}"}, {"grammar": "root ::="}, {"grammar": ""},
              {"choice": ["a"], "regex": "a"}, {"unknown": 1}, {"json_object": False}, {"json_object": "x"}),
        {"guided_choice": ["red", "blue"]}, {"guided_json": COLOUR}, {"guided_regex": "[ab]{3}"},
        {"response_format": OF_SCHEMA, "structured_outputs": {"choice": ["red"]}},
    ]),
    ("chat: streams", "/v1/chat/completions", CHAT | {"stream": True}, [
        {}, {"stream_options": {"include_usage": True}}, {"stream_options": {"include_usage": False}}, {"stream_options": {}},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}, {"n": 2}, {"logprobs": True},
        {"logprobs": True, "top_logprobs": 2}, {"stop": "help"}, {"max_tokens": 5}, {"return_token_ids": True},
        {"include_reasoning": False}, {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": NAMED}, {"tools": [TOOL], "tool_choice": "none"}, {"response_format": OF_SCHEMA},
        {"response_format": {"type": "json_object"}, "max_tokens": 30}, {"structured_outputs": {"choice": ["red", "blue"]}},
        {"tools": [TOOL], "tool_choice": "required", "stream_options": {"include_usage": True}}, {"echo": True},
        {"seed": 3, "temperature": 1}, {"model": "other"}, {"messages": []}, {"temperature": "x"},
        {"messages": [{"role": "user", "content": "word " * 5000}]}, {"stop_token_ids": [501]}, {"min_tokens": 3},
    ]),
    ("chat: batch", "/v1/chat/completions/batch", CHAT | {"messages": [[USER], [{"role": "user", "content": "What is 5 + 4?"}]]}, [
        {}, {"messages": [[USER]]}, {"logprobs": True, "top_logprobs": 1, "max_tokens": 4}, {"response_format": OF_SCHEMA},
        {"return_token_ids": True, "max_tokens": 4}, {"seed": 1, "temperature": 1}, {"structured_outputs": {"choice": ["a", "b"]}},
        {"n": 1}, {"n": 2}, {"stream": True}, {"stream": False}, {"tools": [TOOL]}, {"tool_choice": "auto"}, {"tool_choice": "none"},
        {"messages": []}, {"messages": [[]]}, {"messages": [USER]}, {"messages": ABSENT}, {"messages": [[USER], []]},
        {"messages": [[USER], [{"role": "robot", "content": "x"}]]}, {"messages": 7}, {"temperature": 9}, {"model": "other"},
        {"messages": [[USER], [{"role": "user", "content": "word " * 5000}]]}, {"include_reasoning": False},
        {"use_beam_search": True}, {"prompt_logprobs": 1, "max_tokens": 4}, {"best_of": 2}, {"stop": "help"},
        {METHOD: "GET"}, "{",
    ]),
    ("completions", "/v1/completions", COMPLETION, [
        {}, *each("prompt", ["What is", "Hi"], [5, 6, 7], [[5, 6], [7]], "", [""]), {"n": 2}, {"n": 2, "prompt": ["Hi", "What"]},
        {"best_of": 2, "n": 1, "temperature": 1, "seed": 1}, {"best_of": 1}, {"echo": True}, {"echo": True, "max_tokens": 0},
        {"echo": True, "logprobs": 1}, {"echo": True, "logprobs": 1, "max_tokens": 0}, {"echo": True, "prompt": [5, 6, 7]},
        *each("logprobs", 0, 2, None), {"prompt_logprobs": 1}, {"prompt_logprobs": 0}, {"prompt_logprobs": 1, "prompt": ["Hi", "What"]},
        {"max_tokens": ABSENT}, {"max_tokens": None}, {"max_tokens": 1}, {"stop": " "}, {"suffix": "x"}, {"suffix": None}, {"user": "me"},
        {"return_token_ids": True}, {"add_special_tokens": ABSENT}, {"skip_special_tokens": False}, {"logit_bias": {"39": 100}},
        {"return_tokens_as_token_ids": True, "logprobs": 1}, {"truncate_prompt_tokens": 2}, {"seed": 4, "temperature": 1},
        {"structured_outputs": {"choice": ["red", "blue"]}}, {"response_format": OF_SCHEMA, "max_tokens": 40},
        {"response_format": {"type": "json_object"}, "max_tokens": 20}, {"structured_outputs": {"regex": "[ab]{3}"}},
        {"allowed_token_ids": [39]}, {"ignore_eos": True}, {"min_tokens": 3}, {"echo": True, "n": 2}, {"stop_token_ids": [39]},
    ]),
    ("completions: bad values", "/v1/completions", COMPLETION, [
        *each("prompt", ABSENT, None, [], 7, {}, ["a", 5], [[]], [-1], [100000], [1.5], [[5], "a"], "word " * 5000, [True]),
        *each("max_tokens", 0, -1, "x", 10**6), *each("logprobs", -1, -2, 21, "x", True), *each("echo", "x", 7), *each("best_of", 0, "x"),
        {"best_of": 1, "n": 2}, {"best_of": 2, "stream": True}, {"stream": True, "prompt_logprobs": 1}, {"stream_options": {"include_usage": True}},
        {"model": "other"}, {"n": 0}, {"temperature": -1}, {"prompt_embeds": "x"}, {"use_beam_search": True}, {"prompt_logprobs": -2},
        {"response_format": {"type": "xml"}}, {"structured_outputs": {"regex": "("}}, {"echo": True, "stream": True, "logprobs": 1, "max_tokens": 0},
    ]),
    ("completions: streams", "/v1/completions", COMPLETION | {"stream": True}, [
        {}, {"stream_options": {"include_usage": True}}, {"n": 2}, {"prompt": ["Hi", "What"]}, {"echo": True}, {"logprobs": 1},
        {"echo": True, "logprobs": 1}, {"return_token_ids": True}, {"stop": " "}, {"max_tokens": 1}, {"prompt": []},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}, {"structured_outputs": {"choice": ["red", "blue"]}},
    ]),
    ("responses", "/v1/responses", RESPONSE, [
        {}, {"instructions": "Be short."}, {"input": [USER]}, {"input": [{"type": "message", **USER}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, {"max_output_tokens": 20},
        {"tools": [FLAT_TOOL]}, {"tools": [FLAT_TOOL], "tool_choice": "required"},
        {"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "get_weather"}}, {"tools": [FLAT_TOOL], "tool_choice": "none"},
        {"input": [USER, SEEN, TOLD], "tools": [FLAT_TOOL]}, {"text": {"format": {"type": "json_schema", "name": "c", "schema": COLOUR}}},
        {"text": {"format": {"type": "json_object"}}, "max_output_tokens": 30}, {"text": {"format": {"type": "text"}}},
        {"metadata": {"a": "b"}}, {"reasoning": {"effort": "low"}}, {"top_p": 0.5}, {"truncation": "auto"}, {"user": "me"},
        {"store": True}, {"store": False}, {"include": ["reasoning.encrypted_content"]}, {"top_logprobs": 2},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"parallel_tool_calls": False}, {"service_tier": "auto"},
        {"previous_response_id": PREVIOUS}, {"input": [USER, {"role": "assistant", "content": "Hello!"}, USER]},
        {"structured_outputs": {"choice": ["red", "blue"]}}, {"seed": 5}, {"repetition_penalty": 1.2}, {"stop": "help"},
        {"prompt_cache_key": "k"}, {"unknown_field": 1},
    ]),
    ("responses: bad values", "/v1/responses", RESPONSE, [
        *each("input", ABSENT, None, [], 7, "", [7], [{}], [{"role": "user"}], [{"type": "nonsense"}], {}),
        *each("max_output_tokens", 0, -1, "x", 10**6), *each("temperature", -1, 2.1, "x"), *each("model", "other", 7, ABSENT),
        *each("previous_response_id", "resp_none", 7, "x"), *each("tools", [{"type": "nonsense"}], 7, [{"type": "function"}], [{"type": "web_search"}]),
        *each("tool_choice", "x", "required", {"type": "function", "name": "other"}), {"background": True}, {"background": True, "store": False},
        *each("text", 7, {"format": {"type": "xml"}}, {"format": {"type": "json_schema"}}), {"stream": "x"}, {"truncation": "x"},
        {"reasoning": {"effort": "huge"}}, {"metadata": 7}, {"top_logprobs": 50}, {"include": ["nonsense"]}, {"store": "x"},
        {"input": "word " * 5000}, {"prompt": {"id": "x"}}, {"conversation": "x"}, "{", {METHOD: "PUT"},
    ]),
    ("responses: streams", "/v1/responses", RESPONSE | {"stream": True}, [
        {}, {"max_output_tokens": 5}, {"tools": [FLAT_TOOL]}, {"tools": [FLAT_TOOL], "tool_choice": "required"},
        {"text": {"format": {"type": "json_schema", "name": "c", "schema": COLOUR}}}, {"store": False}, {"input": []},
        {"model": "other"}, {"previous_response_id": PREVIOUS}, {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
        {"reasoning": {"effort": "low", "summary": "auto"}},
    ]),
    ("responses: stored", "/v1/responses/resp_none", {}, [
        {METHOD: "GET"}, {PATH: f"/v1/responses/{PREVIOUS}", METHOD: "GET"}, {PATH: "/v1/responses/x", METHOD: "GET"},
        {PATH: "/v1/responses/resp_none/cancel"}, {METHOD: "DELETE"}, {PATH: f"/v1/responses/{PREVIOUS}/cancel"},
        {PATH: f"/v1/responses/{PREVIOUS}", METHOD: "DELETE"}, {PATH: "/v1/responses/input_tokens", "model": "nano", "input": "Hi"},
    ]),
    ("messages", "/v1/messages", MESSAGE, [
        {}, {"system": "Be short."}, {"system": [{"type": "text", "text": "Be short."}]}, {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "disabled"}}, {"thinking": {"type": "adaptive"}}, {"max_tokens": 5}, {"stop_sequences": ["help"]}, {"top_p": 0.5},
        {"top_k": 3}, {"metadata": {"user_id": "me"}}, {"tools": [OWN_TOOL]}, {"tools": [OWN_TOOL], "tool_choice": {"type": "any"}},
        {"tools": [OWN_TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}}, {"tools": [OWN_TOOL], "tool_choice": {"type": "none"}},
        {"tools": [OWN_TOOL], "messages": [*USED, {"role": "user", "content": [RESULT]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]},
        {"messages": [USER, {"role": "assistant", "content": "Hello"}]}, {"messages": [USER, {"role": "system", "content": "Be short."}]},
        {"output_config": {"format": {"type": "json_schema", "schema": COLOUR}}}, {"output_config": {"effort": "low"}}, {"unknown_field": 1},
        {HEADERS: {"anthropic-version": "2023-06-01", "x-api-key": "x"}}, {"model": "other"}, {"service_tier": "auto"},
    ]),
    ("messages: bad values", "/v1/messages", MESSAGE, [
        *each("messages", ABSENT, None, [], 7, [7], [{}], [{"role": "user"}], [{"role": "robot", "content": "x"}],
              [{"role": "user", "content": 7}], [{"role": "user", "content": [{"type": "nonsense"}]}], [{"role": "user", "content": ""}]),
        *each("max_tokens", ABSENT, 0, -1, "x", 10**6), *each("temperature", -1, 2.1, "x"), *each("top_p", 2), *each("top_k", -2),
        *each("model", ABSENT, 7), *each("system", 7), *each("stop_sequences", "help", [7]), *each("tools", 7, [{}], [{"name": "f"}]),
        {"tool_choice": {"type": "any"}}, {"tools": [OWN_TOOL], "tool_choice": {"type": "tool", "name": "other"}},
        {"tools": [OWN_TOOL], "tool_choice": "any"}, {"thinking": {"type": "x"}}, {"stream": "x"},
        {"messages": [{"role": "user", "content": "word " * 5000}]}, "{", {METHOD: "GET"},
    ]),
    ("messages: streams", "/v1/messages", MESSAGE | {"stream": True}, [
        {}, {"max_tokens": 5}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"stop_sequences": ["help"]}, {"tools": [OWN_TOOL]},
        {"tools": [OWN_TOOL], "tool_choice": {"type": "any"}}, {"tools": [OWN_TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}},
        {"model": "other"}, {"max_tokens": 0}, {"output_config": {"format": {"type": "json_schema", "schema": COLOUR}}},
    ]),
    ("messages: count_tokens", "/v1/messages/count_tokens", {"model": "nano", "messages": [USER]}, [
        {}, {"system": "Be short."}, {"tools": [OWN_TOOL]}, {"messages": []}, {"messages": ABSENT}, {"model": "other"}, "{",
    ]),
    ("tokenize", "/tokenize", {"model": "nano", "add_special_tokens": False}, [
        *each("prompt", "What is 3.8?", "", "ünï 🙂", ABSENT, None, 7, ["a"]), {"prompt": "Hi", "add_special_tokens": ABSENT},
        {"prompt": "Hi", "return_token_strs": True}, {"messages": [USER]}, {"messages": [USER], "add_generation_prompt": False},
        {"messages": [USER], "return_token_strs": True}, {"messages": [USER], "tools": [TOOL]}, {"messages": []}, {"messages": 7},
        {"prompt": "Hi", "model": "other"}, {"prompt": "Hi", "model": ABSENT}, {"prompt": "ü", "return_token_strs": True},
        {"prompt": "Hi", "messages": [USER]}, "{", "[]", "", {METHOD: "GET"},
    ]),
    ("detokenize", "/detokenize", {"model": "nano"}, [
        *each("tokens", [39, 72], [], [496, 39, 497], ABSENT, None, "x", 7, [-1], [100000], ["x"], [1.5], [195]), {"tokens": [39], "model": "other"}, "{",
    ]),
    ("others", "/", {}, [
        *({METHOD: "GET", PATH: path} for path in (
            "/v1/models", "/v1/models/nano", "/v1/models/other", "/version", "/health", "/ping", "/load", "/metrics", "/docs", "/openapi.json",
            "/tokenizer_info", "/v1", "/v1/none", "/", "/v1/chat/completions", "/v1/completions", "/is_sleeping", "/server_info")),
        *({PATH: path} for path in (
            "/ping", "/health", "/v1/models", "/version", "/v1/embeddings", "/v1/audio/transcriptions", "/score", "/rerank", "/v1/rerank", "/pooling",
            "/classify", "/v1/load_lora_adapter", "/sleep", "/inference/v1/generate", "/v1/images/generations", "/v1/moderations", "/v1/none")),
        *({METHOD: method, PATH: "/v1/chat/completions"} for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")),
        {METHOD: "HEAD", PATH: "/health"},
    ]),
    ("bodies", "/v1/chat/completions", SHORT, ["", "{", "[]", "null", "7", '"x"', '{"messages": }', "{} {}", '{"model": "nano",}', "\ufeff{}",
                                              '{"model": "nano", "messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 2}']),
]  # fmt: skip
