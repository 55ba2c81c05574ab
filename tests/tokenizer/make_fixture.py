#!/usr/bin/env python3
"""Writes what HuggingFace's own libraries make of our strings and conversations, for src/text's tests to compare with.

    python3 -m venv .cache/fixture && .cache/fixture/bin/pip install -r tests/tokenizer/requirements.txt
    .cache/fixture/bin/python tests/tokenizer/make_fixture.py [--check]

Ids come from the `tokenizers` package on tokenizer.json, and transformers must agree; texts of chat templates come from
transformers. --check writes nothing, and fails if the fixture is not what it would write."""

import argparse
import gzip
import json
import pathlib
import random
import sys

import chats
import jinja2
import strings
import tokenizers
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "tests/data/tokenizers/deepseek-v3"
NANO = ROOT / "models/nano"
FIXTURE = ROOT / "tests/data/tokenizers/fixture"


def check_versions():
    wanted = (pathlib.Path(__file__).parent / "requirements.txt").read_text()
    for package in (tokenizers, transformers):
        if f"{package.__name__}=={package.__version__}\n" not in wanted:
            sys.exit(f"{package.__name__} is {package.__version__}; requirements.txt wants another")


def encoded_strings(tokenizer, reference):
    added = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    few = [text for text in added if "place▁holder" not in text] + added[3:6]
    bos = reference.bos_token_id
    for text in strings.make_strings(few):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == reference(text, add_special_tokens=False)["input_ids"], f"transformers disagrees about {text!r}"
        assert [bos, *ids] == reference(text)["input_ids"], f"transformers adds no begin-of-sequence token to {text!r}"
        yield {"text": text, "ids": ids}


def decoded_ids(tokenizer, count=1500):
    """Random ids, most of which are parts of characters, so that the text is not valid UTF-8 before it is decoded."""
    rng = random.Random(7)
    size = tokenizer.get_vocab_size()
    byte_ids = [id for token, id in tokenizer.get_vocab().items() if len(token) == 1]
    byte_ids.sort()
    for _ in range(count):
        ids = [rng.choice(byte_ids) if rng.random() < 0.7 else rng.randrange(size + 100) for _ in range(rng.randint(1, 24))]
        yield {"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False), "text_without_special": tokenizer.decode(ids)}


def templates(reference):
    """The folders with a template of their own, and the template files, by path in the repository."""
    yield FOLDER, reference.chat_template
    yield NANO, json.loads((NANO / "tokenizer_config.json").read_text())["chat_template"]
    for path in sorted((ROOT / "tests/data/chat_templates").glob("*.jinja")):
        yield path, path.read_text()


def rendered_chats(tokenizer, reference):
    for path, source in templates(reference):
        for context in chats.make_contexts():
            row = {"template": str(path.relative_to(ROOT)), "context": context}
            try:
                row["text"] = reference.apply_chat_template(**arguments(context), chat_template=source, tokenize=False)
            except jinja2.TemplateError as error:  # what raise_exception raises; or an undefined value was used
                row["error"] = str(error) if type(error) is jinja2.TemplateError else ""
            except TypeError:
                row["error"] = ""
            else:
                row["ids"] = tokenizer.encode(row["text"], add_special_tokens=False).ids
                assert row["ids"] == reference.apply_chat_template(**arguments(context), chat_template=source)
            yield row


def arguments(context):
    return {"conversation": context["messages"], **{key: value for key, value in context.items() if key != "messages"}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare with the fixture that is there")
    check = parser.parse_args().check
    check_versions()
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    reference = transformers.AutoTokenizer.from_pretrained(FOLDER)
    parts = {
        "strings": encoded_strings(tokenizer, reference),
        "decoded": decoded_ids(tokenizer),
        "chats": rendered_chats(tokenizer, reference),
    }
    for name, rows in parts.items():
        path = FIXTURE / f"{name}.jsonl.gz"
        text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(text, mtime=0))
        elif not path.exists() or gzip.decompress(path.read_bytes()) != text:
            sys.exit(f"{path} is stale: run make_fixture.py")
        print(f"{path.name}: {text.count(10)} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
