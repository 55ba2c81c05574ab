#!/usr/bin/env python3
"""Sends the same requests to this server and to a vLLM server, and says in what their answers differ.

  beside_vllm.py OURS VLLM [--only GROUP] [--keep FILE] [--all]

OURS, VLLM: addresses (http://127.0.0.1:8000), or files in which --keep has put what both answered. Compared are statuses,
content types, keys and types of JSON, the kinds and the order of a stream's events, and the values that two servers of
one model give alike: finish reasons, counts, errors' kinds, and texts. Printed is a table of the differences with the reason
for each (beside_vllm_reasons.py); the exit status is 1 where one has none. --all: each request's differences.
docs/beside-vllm.md says how both servers are started.
"""

import argparse
import http.client
import json
import re
import sys
import urllib.parse
from collections import defaultdict
from pathlib import Path

from beside_vllm_reasons import REASONS
from beside_vllm_requests import ABSENT, GROUPS, HEADERS, METHOD, PATH, PREVIOUS

SECONDS = 300
SHOWN_BODY = 200_000
NEAR = 0.2  # logarithms of probabilities, both computed in bf16


def words_of(change):
    return change if isinstance(change, str) else json.dumps(change, ensure_ascii=False)[1:-1]


def requests():
    """Yields (group, name, method, path, headers, body)."""
    for group, path, base, changes in GROUPS:
        for i, change in enumerate(changes):
            name = words_of(change)
            if len(name) > 300:
                name = f"{name[:200]}... ({i})"
            if isinstance(change, str):
                yield group, f"body {change!r}", "POST", path, {}, change
                continue
            body = {key: value for key, value in {**base, **change}.items()
                    if value != ABSENT and not (key.startswith("$"))}  # fmt: skip
            method = change.get(METHOD, "POST")
            text = "" if method in ("GET", "HEAD", "DELETE", "OPTIONS") else json.dumps(body)
            yield group, name, method, change.get(PATH, path), change.get(HEADERS, {}), text


def ask(address, method, path, headers, body):
    url = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=SECONDS)
    connection.request(method, path, body.encode(), {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    text = response.read().decode("utf-8", "replace")
    kind = (response.getheader("Content-Type") or "").split(";")[0]
    answer = {"status": response.status, "kind": kind, "body": text[:SHOWN_BODY]}
    answer["allow"] = ", ".join(sorted(re.split(r",\s*", response.getheader("Allow") or ""))) or None
    connection.close()
    return answer


class Side:
    """One server, or what it has answered."""

    def __init__(self, where, number):
        self.address = where if where.startswith("http") else None
        self.kept = None if self.address else json.loads(Path(where).read_text())
        self.number, self.previous, self.count = number, "none", 0

    def answer(self, group, name, method, path, headers, body):
        if self.kept is not None:
            return self.kept[f"{group}: {name}"][self.number]
        path, body = path.replace(PREVIOUS, self.previous), body.replace(PREVIOUS, self.previous)
        answer = ask(self.address, method, path, headers, body)
        if found := re.match(r'\{"id": ?"(resp_[^"]+)"', answer["body"]):
            self.previous = found.group(1)
        return answer


def kind_of(value):
    names = {bool: "bool", int: "integer", float: "number", str: "text", list: "list", dict: "object"}
    return "null" if value is None else names[type(value)]


def shape(value, path="", into=None):
    """{path: kinds} of all that a JSON value holds; keys that are tokens or ids are one."""
    into = defaultdict(set) if into is None else into
    into[path].add(kind_of(value))
    if isinstance(value, list):
        for item in value:
            shape(item, path + "[]", into)
    elif isinstance(value, dict):
        is_map = re.search(r"(top_logprobs|prompt_logprobs)\[\]$", path) and "token" not in value
        is_map = is_map or re.search(r"prompt_logprobs\[\]$", path)
        for key, item in value.items():
            name = "*" if is_map else key
            shape(item, f"{path}.{name}" if path else name, into)
    return into


def compare_shapes(ours, theirs, prefix=""):
    ours, theirs = shape(ours), shape(theirs)
    for path in sorted(set(ours) | set(theirs)):
        parent = re.sub(r"(\[\]|\.?[^.\[\]]+)$", "", path)
        if (parent != path and parent not in ours) or parent not in theirs:
            continue  # told with the parent
        mine, its = (side.get(path, set()) - {"integer"} if "number" in side.get(path, ()) else side.get(path, set())
                     for side in (ours, theirs))  # fmt: skip
        if mine != its and not (path.endswith("[]") and (not mine or not its)):
            yield f"{prefix}{path or 'the answer'}: {' or '.join(sorted(mine)) or 'absent'} | {' or '.join(sorted(its)) or 'absent'}"


def events_of(text):
    """(name, data) of a stream."""
    events = []
    for part in re.split(r"\r?\n\r?\n", text):
        name, data = "", []
        for line in part.splitlines():
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].strip())
        if data:
            events.append((name, "\n".join(data)))
    return events


def word_of(name, data):
    """What kind of event it is, for the order."""
    if name or data == "[DONE]":
        return name or data
    chunk = json.loads(data)
    if "error" in chunk:
        return "error"
    if not chunk.get("choices"):
        return "usage" if chunk.get("usage") else "empty"
    choice = chunk["choices"][0]
    parts = [key for key, value in choice.get("delta", {"text": choice.get("text")}).items() if value not in (None, [])
             and key != "reasoning_content"]  # fmt: skip
    if choice.get("finish_reason"):
        parts.append("finish")
    return "+".join(parts) or "nothing"


def order(events):
    """The kinds one after the other, each once where it repeats."""
    words = []
    for name, data in events:
        word = word_of(name, data)
        if not words or words[-1] != word:
            words.append(word)
    return words


VALUES = [  # of whole answers, where both have them
    r"object$", r"type$", r"status$", r"role$", r"finish_reason$", r"stop_reason$", r"^usage\.(prompt_tokens|input_tokens)$", r"^count$",
    r"^tokens$", r"^token_strs$", r"^prompt$", r"prompt_token_ids$", r"\.index$", r"^error\.(param|code)$", r"tool_calls\[\d+\]\.function\.name$",
    r"stop_sequence$", r"max_model_len$", r"^input_tokens$", r"incomplete_details\.reason$", r"text_offset$",
]  # fmt: skip
TEXTS = [r"\.(content|text|arguments|reasoning)$", r"tokens\[\]$", r"\.token_ids$", r"completion_tokens$", r"output_tokens$"]


def leaves(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")
    else:
        yield path, value


def compare_values(ours, theirs):
    mine, its = dict(leaves(ours)), dict(leaves(theirs))
    for path, value in mine.items():
        if path not in its or value == its[path] or kind_of(value) != kind_of(its[path]):
            continue
        where = re.sub(r"\[\d+\]", "[]", path)
        if any(re.search(pattern, path) for pattern in VALUES):
            yield f"{where} is {short(value)} | {short(its[path])}"
        elif isinstance(value, float) and re.search("logprob", path):
            if abs(value - its[path]) > NEAR * max(1, abs(value) / 10):
                yield f"{where}: another number"
        elif any(re.search(pattern, path) for pattern in TEXTS):
            yield f"{where}: another text"


def short(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 40 else text[:37] + "..."


def parsed(answer):
    try:
        return json.loads(answer["body"])
    except ValueError:
        return None


def told_text(events):
    """All that a stream has said, in its fields."""
    texts = defaultdict(str)
    for _, data in events:
        if data == "[DONE]":
            continue
        chunk = json.loads(data)
        for choice in chunk.get("choices") or []:
            for key in ("content", "reasoning"):
                texts[f"{choice['index']} {key}"] += choice.get("delta", {}).get(key) or ""
            texts[f"{choice['index']} text"] += choice.get("text") or ""
            for call in choice.get("delta", {}).get("tool_calls") or []:
                texts[f"{choice['index']} call"] += call["function"].get("arguments") or ""
        if isinstance(chunk.get("delta"), str):
            texts[chunk["type"]] += chunk["delta"]
        elif isinstance(chunk.get("delta"), dict):
            for key in ("text", "thinking", "partial_json"):
                texts[key] += chunk["delta"].get(key) or ""
    return {key: text for key, text in texts.items() if text}


def compare_streams(ours, theirs):
    ours, theirs = events_of(ours["body"]), events_of(theirs["body"])
    mine, its = order(ours), order(theirs)
    if mine != its:
        yield f"events: {' '.join(mine)} | {' '.join(its)}"
    by_name = [defaultdict(list), defaultdict(list)]
    for side, events in zip(by_name, (ours, theirs), strict=True):
        for name, data in events:
            if data != "[DONE]":
                side[name if name else ("usage" if word_of(name, data) == "usage" else "chunk")].append(json.loads(data))
    for name in sorted(set(by_name[0]) & set(by_name[1])):
        # All of a kind as one list, so that what only some of them hold counts as there.
        for difference in compare_shapes(by_name[0][name], by_name[1][name]):
            yield f"{name}: {difference.replace('[].', '', 1)}"
    if told_text(ours) != told_text(theirs):
        yield "the stream's text: another text"


def compare(ours, theirs):
    if ours["status"] != theirs["status"]:
        yield f"status {ours['status']} | {theirs['status']}"
        return
    if ours["kind"] != theirs["kind"]:
        yield f"Content-Type {ours['kind'] or 'absent'} | {theirs['kind'] or 'absent'}"
        return
    if ours["allow"] != theirs["allow"]:
        yield f"Allow {ours['allow']} | {theirs['allow']}"
    if ours["kind"] == "text/event-stream":
        yield from compare_streams(ours, theirs)
        return
    mine, its = parsed(ours), parsed(theirs)
    if (mine is None) != (its is None):
        yield f"the body: {'JSON' if mine is not None else short(ours['body'])} | {'JSON' if its is not None else short(theirs['body'])}"
    elif mine is not None and ours["kind"] == "application/json" and "openapi" not in mine:
        yield from compare_shapes(mine, its)
        yield from compare_values(mine, its)


def reason_of(group, name, difference):
    for i, reason in enumerate(REASONS):
        if re.search(reason["in"], f"{group}: {name}") and re.search(reason["what"], difference):
            return i
    return None


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("vllm")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    ours, vllm = Side(options.ours, 0), Side(options.vllm, 1)
    kept, found, counts = {}, defaultdict(lambda: defaultdict(list)), defaultdict(int)
    for group, name, *request in requests():
        if not re.match(options.only, group):
            continue
        key = f"{group}: {name}"
        try:
            pair = [side.answer(group, name, *request) for side in (ours, vllm)]
        except (OSError, http.client.HTTPException) as error:
            sys.exit(f"{key}: {error}")
        if key in kept:
            sys.exit(f"two requests are called {key}")
        kept[key] = pair
        if options.keep and len(kept) % 50 == 0:
            options.keep.write_text(json.dumps(kept, ensure_ascii=False, indent=0))
        differences = list(dict.fromkeys(compare(*pair)))
        counts["requests"] += 1
        counts["equal"] += not differences
        counts["equal but for nulls"] += all(re.search(r": (absent \| null|null \| absent)$", d) for d in differences)
        counts["same status"] += pair[0]["status"] == pair[1]["status"]
        counts["other texts"] += any("another text" in difference for difference in differences)
        for difference in differences:
            found[reason_of(group, name, difference)][difference].append(key)
        if options.all and differences:
            print(f"{key}: {pair[0]['status']} | {pair[1]['status']}")
            for difference in differences:
                print(f"    {difference}")
    if options.keep:
        options.keep.write_text(json.dumps(kept, ensure_ascii=False, indent=0))
    print(f"{counts['requests']} requests: {counts['same status']} with the same status, "
          f"{counts['equal but for nulls']} alike but for keys that are null, {counts['equal']} alike in all; "
          f"{counts['other texts']} with another text.\n")  # fmt: skip
    print("| Here | Requests | What (here, vLLM) | Why |\n|---|---|---|---|")
    for i, reason in enumerate(REASONS):
        if i in found:
            num = len({key for keys in found[i].values() for key in keys})
            print(f"| {reason['verdict']} | {num} | {cell(reason['title'])} | {cell(reason['why'])} |")
    if None not in found:
        return 0
    print("\nWithout a reason:")
    for difference, keys in sorted(found[None].items(), key=lambda item: -len(item[1])):
        print(f"  {difference}   [{len(keys)}: {'; '.join(keys[:3])}]")
    return 1


if __name__ == "__main__":
    sys.exit(main())
