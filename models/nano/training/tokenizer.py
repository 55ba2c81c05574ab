"""Trains the tokenizer: DeepSeek-V3's pre-tokenizer and special names, and a vocabulary of 512 in which every digit, and
every letter of a quoted lower-case word, is a token of its own.

256 bytes, the blank line, a space with each lower-case letter, merges learned from generated text, 16 special tokens. A
merge only lengthens the start of a piece that begins with a space or a capital, by one letter, so that the inside of
quoted words and numbers stays in letters and digits."""

import collections
import json
import pathlib
import random

import families
import tokenizers

VOCAB_SIZE = 512
NUM_SPECIAL = 16
PATTERNS = [  # DeepSeek-V3's, as in its tokenizer.json
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]
TOOL_MARKS = [
    *("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep"),
    *("outputs▁begin", "outputs▁end", "output▁begin", "output▁end"),
]
SPECIAL = [  # content, and whether decoding hides it
    ("<｜begin▁of▁sentence｜>", True),
    ("<｜end▁of▁sentence｜>", True),
    ("<｜▁pad▁｜>", True),
    ("<｜User｜>", False),
    ("<｜Assistant｜>", False),
    ("<think>", False),
    ("</think>", False),
    *((f"<｜tool▁{name}｜>", False) for name in TOOL_MARKS),
]
CHAT_TEMPLATE = pathlib.Path(__file__).parent / "chat_template.jinja"


def byte_letters():
    """GPT-2's printable character for each byte, which byte-level tokenizers use in their vocabularies."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + idx) for idx, byte in enumerate(others)}
    return [letters[byte] for byte in [*printable, *others]]


def pre_tokenizer():
    split = tokenizers.pre_tokenizers.Split
    return tokenizers.pre_tokenizers.Sequence(
        [split(tokenizers.Regex(pattern), behavior="isolated") for pattern in PATTERNS]
        + [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def piece_counts(seed, num_dialogues):
    """How often each piece that may be merged occurs in generated text."""
    rng = random.Random(seed)
    split = pre_tokenizer()
    counts = collections.Counter()
    for _ in range(num_dialogues):
        turn = families.make_turn(rng)
        for text in (turn.question, turn.thought, turn.answer):
            for piece, _ in split.pre_tokenize_str(text):
                if len(piece) > 1 and (piece[0] == "Ġ" or piece[0].isupper()):
                    counts[piece] += 1
    return counts


def learn_merges(counts, num_merges):
    """Always lengthens the most frequent start of a piece that is not a token yet by the letter that follows it most."""
    merges = [("Ċ", "Ċ")] + [("Ġ", letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokens = {left + right for left, right in merges} | set(byte_letters())
    starts = collections.Counter()
    for piece, count in counts.items():
        for length in range(2, len(piece) + 1):
            starts[piece[:length]] += count
    while len(merges) < num_merges:
        candidates = [start for start in starts if start not in tokens and start[:-1] in tokens]
        best = max(candidates, key=lambda start: (starts[start], start))
        merges.append((best[:-1], best[-1]))
        tokens.add(best)
    return merges


def build(merges):
    vocab = {token: idx for idx, token in enumerate([*byte_letters(), *(left + right for left, right in merges)])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    for content, hidden in SPECIAL:
        token = tokenizers.AddedToken(content, special=hidden, normalized=False)
        (tokenizer.add_special_tokens if hidden else tokenizer.add_tokens)([token])
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    return tokenizer


def tokenizer_config(max_length):
    added = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    begin, end = ({**added, "content": SPECIAL[idx][0]} for idx in (0, 1))
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": begin,
        "eos_token": end,
        "pad_token": end,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": max_length,
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
        "chat_template": CHAT_TEMPLATE.read_text().rstrip("\n"),
    }


def train(folder, seed, max_length, num_dialogues=60000):
    """Writes tokenizer.json and tokenizer_config.json."""
    merges = learn_merges(piece_counts(seed, num_dialogues), VOCAB_SIZE - 256 - NUM_SPECIAL)
    folder = pathlib.Path(folder)
    text = json.loads(build(merges).to_str())
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n")
    config = json.dumps(tokenizer_config(max_length), ensure_ascii=False, indent=1)
    (folder / "tokenizer_config.json").write_text(config + "\n")


def load(folder):
    return tokenizers.Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
