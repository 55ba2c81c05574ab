#!/usr/bin/env python3
"""style_test.py SOURCE_FOLDER

Holds the house's style, as far as lines of text show it: what clang-format does not do and a compiler does not say.
Each rule is first broken on purpose in a small tree: a check that cannot fail proves nothing.
"""

import re
import sys
import tempfile
from pathlib import Path

MAX_COLUMNS = 120

# What is not written here, and what stands in its place.
BANNED = {
    r"\bstd::endl\b": "'\\n': endl flushes",
    r"\bs?n?printf *\(": "fmt",
    r"\bstr(?:cpy|cat|tok) *\(": "std::string",
    r"\bato[ilf] *\(": "parse_number",
    r"\bstd::stoi?[ldf]? *\(|\bstd::stoul?l? *\(": "parse_number",
    r"(?<![\w:.>])(?:std::)?s?rand *\(": "a seeded generator",
    r"(?<!_)\bassert *\(": "CHECK, which holds in a release too",
    r"\busing namespace (?!std::(?:string|chrono)(?:_view)?_literals|cachalot|(?:boost::)?asio::experimental)": "names",
    r"\bNULL\b": "nullptr",
    r"\btypedef\b": "using",
    r"^#ifndef \w+_H_?$": "#pragma once",
}
BANNED_IN_THE_PROGRAM = {
    r"\bsystem *\(": "a process of base/",
    r"\bstd::(?:regex|sregex_iterator)\b": "a small parser, or a library that is linear in its input",
}

# State machines, which the simulator runs (tests/simulation): events in, messages out. Their drivers have the rest.
STATE_MACHINES = r"src/(scheduler/|placement/|agents/|comm/membership/|router/|engine/lockstep\.|serve/leader\.)"
DRIVERS = r"/(state_folder|rank_link|running_agent|membership|asio_network|member|proxy|health_watch|cluster_look|running_router)\.(cc|h)$"
BANNED_IN_STATE_MACHINES = {
    r"\w*(?:[cC]lock)::now *\(": "a time that is passed in",
    r"\bstd::j?thread\b|\bsleep_(?:for|until) *\(|#include <thread>": "an event that is passed in",
    r"\brandom_device\b|\bgetrandom *\(|\bRAND_bytes *\(": "a number that is passed in",
    r"\bsteady_timer\b|\bsystem_timer\b|#include <(?:boost/asio|sys/socket)": "an interface that is passed in",
}


def banned_in(path):
    if is_test(path):
        return BANNED
    name = path.as_posix()
    is_state_machine = re.match(STATE_MACHINES, name) and not re.search(DRIVERS, name)
    return {**BANNED, **BANNED_IN_THE_PROGRAM, **(BANNED_IN_STATE_MACHINES if is_state_machine else {})}


def is_test(path):
    return bool(re.search(r"_test(_util)?\.(cc|h)$", path.name)) or path.parts[0] == "tests"


def sources(root):
    found = []
    for top in ("src", "tests"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".cc", ".h", ".rs") and "target" not in path.parts:
                found.append(path.relative_to(root))
    return found


def code_of(line):
    """A line without its strings' contents and its comment."""
    line = re.sub(r'"(?:\\.|[^"\\])*"', '""', line)
    return re.sub(r"//.*", "", line)


def check_lines(path, text):
    raw_string = False
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MAX_COLUMNS and not raw_string and 'R"' not in line and " " in line.strip():
            yield f"{path}:{number}: {len(line)} columns of {MAX_COLUMNS}"
        if 'R"' in line and ')"' not in line.split('R"', 1)[1]:
            raw_string = True
        elif raw_string:
            raw_string = not re.search(r'\)\w*"', line)
            continue
        if path.suffix == ".rs" or 'extern "C"' in text:
            continue
        code = code_of(line)
        for pattern, instead in banned_in(path).items():
            if re.search(pattern, code) :
                yield f"{path}:{number}: '{re.search(pattern, code).group(0).strip()}': here it is {instead}"


def check_includes(path, text, files):
    """Own header first; headers have #pragma once and say what they are for."""
    includes = re.findall(r'^#include ([<"][^>"]*)', text, re.M)
    if path.suffix == ".h":
        if "#pragma once" not in text:
            yield f"{path}: no #pragma once"
        if not re.search(r"^\s*//", text, re.M):
            yield f"{path}: no comment says what it is for"
    own = path.with_name(path.name.removesuffix(".cc").removesuffix("_test") + ".h")
    names = ('"' + "/".join(own.parts[1:]), '"' + own.name)
    wanted = own in files and (any(name in includes for name in names) or not path.name.endswith("_test.cc"))
    if path.suffix == ".cc" and wanted and includes and includes[0] not in names:
        yield f"{path}: its own header is not its first include"


def check_test_helpers(path, text):
    """Helpers of tests are named *_test_util, so that no library takes them and nobody looks for a test in them."""
    if path.parts[0] != "src" or path.suffix == ".rs" or re.search(r"_test(_util)?\.cc$|_test_util\.h$", path.name):
        return
    if re.search(r"#include <g(test|mock)/", text) or re.search(r'#include "[^"]*_test(_util)?\.h"', text):
        yield f"{path}: includes what is for tests only; a test's helper is named *_test_util.h"
    elif re.search(r"_test\.h$|(^|_)(fake|testing|fixture)(_|\.)", path.name):
        yield f"{path}: a test's helper is named *_test_util.h"


def declared_functions(text):
    """Names of free functions that a header declares without defining them."""
    for match in re.finditer(r"^(?:[A-Za-z_][\w:<>,&*\s\[\]]*?[\s&*>])(\w+)\([^;{}]*\)(?: noexcept)?;", text, re.M):
        before = text[: match.start()].rsplit("\n", 1)[-1]
        if not before.strip() and not match.group(0).lstrip().startswith(("return", "using", "friend", "extern", "static_assert")):
            yield match.group(1), text[: match.start(1)].count("\n") + 1


def check_dead(texts):
    """A function that a header declares is named somewhere besides its declaration and its definition."""
    words = {}
    for path, text in texts.items():
        for word, count in count_words(text).items():
            words.setdefault(word, {})[path] = count
    for path, text in texts.items():
        if path.suffix != ".h" or path.parts[0] != "src" or is_test(path):
            continue
        for name, line in declared_functions(text):
            uses = dict(words[name])
            in_header, in_source = uses.pop(path), uses.pop(path.with_suffix(".cc"), 0)
            if not uses and in_header < 2 and in_source < 2:
                yield f"{path}:{line}: nothing calls {name}()"


def count_words(text):
    counts = {}
    text = re.sub(r"//.*", "", text)
    for word in re.findall(r"\b[A-Za-z_]\w*\b", text):
        counts[word] = counts.get(word, 0) + 1
    return counts


def check(root):
    files = sources(root)
    texts = {path: (root / path).read_text(errors="replace") for path in files}
    known = set(files)
    complaints = []
    for path, text in texts.items():
        complaints += check_lines(path, text)
        if path.suffix != ".rs":
            complaints += check_includes(path, text, known)
            complaints += check_test_helpers(path, text)
    complaints += check_dead(texts)
    return complaints


def self_check():
    sound = {
        "src/base/good.h": "// Says what it is for: printf(\n#pragma once\n\nint good(int value);\n",
        "src/base/good.cc": '#include "base/good.h"\n\n#include <vector>\nint good(int value) { return value; }\n',
        "src/base/good_test.cc": '#include "base/good.h"\n#include <gtest/gtest.h>\n',
        "src/cli/main.cc": '#include "base/good.h"\nint main() { return good(0); }  // "atoi(" is quoted\n',
    }
    broken = [
        ("src/base/long.cc", "int x = 1;" + " " * 120 + "int y = 2;\n", "columns of 120"),
        ("src/base/bad.cc", 'int x = atoi("1");\n', "'atoi('"),
        ("src/base/bad.cc", "std::cout << std::endl;\n", "'std::endl'"),
        ("src/base/bad.cc", "int x = std::stoi(text);\n", "'std::stoi('"),
        ("src/base/bad.cc", "assert(x);\n", "'assert('"),
        ("src/base/bad.cc", "int x = rand();\n", "'rand('"),
        ("src/base/bad.cc", "using namespace std;\n", "'using namespace"),
        ("src/base/bad.cc", 'system("ls");\n', "'system('"),
        ("src/router/table.cc", "const auto now = std::chrono::steady_clock::now();\n", "passed in"),
        ("src/serve/leader.cc", "std::jthread watch;\n", "passed in"),
        ("src/comm/membership/hub.h", "// Rank 0's.\n#pragma once\n#include <boost/asio/io_context.hpp>\n", "passed in"),
        ("src/scheduler/order.cc", "std::random_device random;\n", "passed in"),
        ("src/base/bare.h", "#pragma once\nstruct Bare {};\n", "no comment says"),
        ("src/base/twice.h", "// Says.\nstruct Twice {};\n", "no #pragma once"),
        ("src/base/good.cc", '#include <vector>\n#include "base/good.h"\n', "not its first include"),
        ("src/base/fake_thing.h", "// A fake.\n#pragma once\n", "*_test_util.h"),
        ("src/base/linked.cc", "#include <gtest/gtest.h>\n", "for tests only"),
        ("src/base/dead.h", "// Says.\n#pragma once\nint unused_thing(int value);\n", "nothing calls unused_thing()"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in sound.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if complaints := check(root):
            return f"a sound tree is refused: {complaints}"
        for name, text, expected in broken:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            before = (root / name).read_text() if (root / name).exists() else None
            (root / name).write_text(text)
            complaints = check(root)
            if not any(expected in complaint for complaint in complaints):
                return f"{text!r} in {name} gives {complaints}, not '{expected}'"
            (root / name).unlink() if before is None else (root / name).write_text(before)
    return None


def main():
    if fault := self_check():
        print("the self-check failed:", fault)
        return 1
    complaints = check(Path(sys.argv[1]))
    print("\n".join(complaints))
    print(f"{len(complaints)} complaints")
    return 1 if complaints else 0


sys.exit(main())
