"""The strings of the tokenizer fixture: many scripts and every kind of trouble, the same ones in every run.

Only code points are named here, never properties of a Unicode version, so the strings do not change with Python's."""

import random

PHRASES = """The quick brown fox jumps over the lazy dog|Don't you think it's we'll they've I'd? He'S SHOUTING, ISN'T he
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich|Voix ambiguë d’un cœur qui au zéphyr préfère les jattes
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia|Příliš žluťoučký kůň úpěl ďábelské ódy
Pchnąć w tę łódź jeża lub ośm skrzyń fig|Árvíztűrő tükörfúrógép|Pijamalı hasta yağız şoföre çabucak güvendi
Съешь же ещё этих мягких французских булок|Щастям б’єш жук їх глицю в фон й ґедзь пріч|Жълтата дюля беше щастлива
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία|Μῆνιν ἄειδε θεὰ Πηληϊάδεω Ἀχιλῆος|דג סקרן שט בים מאוכזב|בְּרֵאשִׁית בָּרָא אֱלֹהִים
نص حكيم له سر قاطع وذو شأن عظيم|بِسْمِ ٱللَّهِ ٱلرَّحْمَـٰنِ|اردو زبان کی تاریخ|فارسی شیرین است و می‌خواهم بدانم
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा|আমি বাংলায় গান গাই|தமிழ் மொழி மிகவும் பழமையானது|తెలుగు భాష|ಕನ್ನಡ ನುಡಿ|മലയാളം ഭാഷ
ગુજરાતી ભાષા|ਪੰਜਾਬੀ ਬੋਲੀ|සිංහල භාෂාව|เป็นมนุษย์สุดประเสริฐเลิศคุณค่า|ພາສາລາວ|မြန်မာဘာသာစကား|ភាសាខ្មែរ|བོད་སྐད་ཡིག
Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau|ქართული ენა|Հայերեն լեզու|አማርኛ ቋንቋ ነው።|ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ|ᠮᠣᠩᠭᠣᠯ
人工智能正在改变世界，深度求索|天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。|いろはにほへと ちりぬるを|東京特許許可局、カタカナとひらがなのテスト。|ﾊﾝｶｸ ｶﾅ
키스의 고유조건은 입술끼리 만나야 하고|대한민국 헌법 제1조|ㄅㄆㄇㄈ ㄚㄛㄜ|ＦＵＬＬ－ＷＩＤＴＨ １２３！|㈱㍿㌔㎏ ①②③ Ⅳ Ⅻ ½ ⅓ x² H₂O""".replace("\n", "|").split("|")

# Inclusive ranges of code points, by block; some hold unassigned points, and some points newer than any tokenizer.
BLOCKS = {
    "latin": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)],
    "greek and cyrillic": [(0x370, 0x3FF), (0x400, 0x52F), (0x1F00, 0x1FFF)],
    "right to left": [(0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x74F), (0x7C0, 0x7FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)],
    "indic": [(0x900, 0xDFF)],
    "southeast asian": [(0xE00, 0xFFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1A20, 0x1AAF)],
    "other scripts": [(0x10A0, 0x10FF), (0x1200, 0x139F), (0x13A0, 0x13FF), (0x1400, 0x167F), (0x16A0, 0x16FF), (0x1800, 0x18AF), (0x2C00, 0x2DFF), (0xA000, 0xA4CF), (0xAB30, 0xABBF)],
    "kana and hangul": [(0x3040, 0x30FF), (0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7A3), (0x31F0, 0x31FF)],
    "han": [(0x4E00, 0x9FA5), (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x30000, 0x3134F), (0xF900, 0xFAFF)],
    "combining": [(0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE2F), (0x61, 0x7A)],
    "symbols": [(0x20A0, 0x20CF), (0x2100, 0x23FF), (0x2500, 0x27BF), (0x2900, 0x2BFF), (0x1F000, 0x1F0FF), (0x1D400, 0x1D7FF)],
    "punctuation": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x205E), (0x3001, 0x303F), (0xFF00, 0xFFEF)],
    "numbers": [(0x30, 0x39), (0x660, 0x669), (0x6F0, 0x6F9), (0x966, 0x96F), (0xB2, 0xB9), (0x2070, 0x2089), (0x2150, 0x218B), (0x2460, 0x249B), (0x3220, 0x3229), (0xFF10, 0xFF19), (0x1D7CE, 0x1D7FF), (0x10107, 0x10133)],
    "astral": [(0x10000, 0x100FA), (0x10280, 0x103FF), (0x10400, 0x104FF), (0x10900, 0x1093F), (0x11000, 0x1107F), (0x12000, 0x1209F), (0x13000, 0x1342F), (0x16800, 0x16A3F), (0x1E900, 0x1E95F), (0x1FB00, 0x1FBFF)],
    "new or unassigned": [(0x378, 0x379), (0x1C80, 0x1C8F), (0x2FE0, 0x2FFF), (0xA7C0, 0xA7FF), (0x10D40, 0x10D8F), (0x11B00, 0x11BFF), (0x1E4D0, 0x1E5FF), (0x31350, 0x323AF), (0x2EBF0, 0x2EE5D), (0xE0000, 0xE01EF), (0x50000, 0x50010)],
    "private and noncharacters": [(0xE000, 0xF8FF), (0xFDD0, 0xFDEF), (0xFFF0, 0xFFFF), (0xF0000, 0xF00FF), (0x10FF00, 0x10FFFF)],
    "controls": [(0x00, 0x1F), (0x7F, 0x9F), (0x200B, 0x200F), (0x2028, 0x202F), (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xAD, 0xAD)],
}

SPACES = [" "] * 8 + ["\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2003", "\u2009", "\u2028", "\u2029", "\u0085", "\u200b", "\x0b", "\x0c", "\x1c", "\u1680", "\ufeff"]

EMOJI = "😀 😂 🤖 🐳 ❤️ ❤ ☺️ 👍 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 👩🏿‍🚀 🇩🇪 🇯🇵 🇨🇳 1️⃣ #️⃣ ✈️ ⚡ 🫠 🪿 🫩 🧑‍🤝‍🧑 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ♾️ ▶️ ‼️ 〰️ Ⓜ️ 🈚".split()

CODE = [
    "def fibonacci(n: int) -> int:\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    "#include <vector>\nint main() {\n\tstd::vector<int> v{1, 2, 3};\n\treturn v[0] != 1 ? -1 : 0;\n}\n",
    "fn main() {\n    let s: &'static str = \"héllo\\n\";\n    println!(\"{s:?} {}\", 0x_ff_u8);\n}\n",
    "SELECT a.id, COUNT(*) FROM `users` a WHERE a.name LIKE '%O''Brien%' GROUP BY 1;\r\n",
    "<div class=\"a b\" data-x='1'>\n  <!-- comment --><br/>&nbsp;&lt;\n</div>",
    "{\"key\": [1, 2.5e-10, null, true], \"π\": \"\\u03c0\\ud83d\\ude00\"}",
    "$ curl -sSL https://example.com/a/b?c=d&e=%20f#g | grep -E '^[a-z]+\\.?$' >> /dev/null 2>&1",
    "\\begin{equation}\\int_{0}^{\\infty} e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}\\end{equation}",
    "const f = async (x) => { await x?.y ?? `t${x}e`; } // TODO_not_really\n\n\n",
    "| a | b |\n|---|:-:|\n| **bold** | _it_ |\n\n- [ ] item\n  1. sub\n```python\nx=1\n```\n> quote",
    "ACGTACGTTAGC__init__CamelCaseAndSnake_case-kebab.dotted.path::scope->arrow=>fat!=ne===eq",
    "if(a&&b||!c){i++;j--;k<<=2;l>>>=1;m**=n;o//=p}#pragma once@decorator%s%d%%",
]


def from_block(rng, block, length):
    ranges = BLOCKS[block]
    return "".join(chr(rng.randint(*ranges[rng.randrange(len(ranges))])) for _ in range(length))


def pick(rng, items):
    return items[rng.randrange(len(items))]


def phrase(rng):
    words = pick(rng, PHRASES).split(" ")
    begin = rng.randrange(len(words))
    return " ".join(words[begin : begin + rng.randint(1, 8)])


def block_text(rng):
    block = pick(rng, list(BLOCKS))
    return from_block(rng, block, rng.randint(1, 12))


def spaced(rng):
    return "".join(pick(rng, SPACES) * rng.randint(1, 5) for _ in range(rng.randint(1, 4)))


def emoji(rng):
    return "".join(pick(rng, EMOJI) + pick(rng, ["", "", " ", "!", "a"]) for _ in range(rng.randint(1, 5)))


def code(rng):
    snippet = pick(rng, CODE)
    begin = rng.randrange(len(snippet))
    return " " * rng.choice([0, 0, 1, 3, 4, 8]) + snippet[begin : begin + rng.randint(5, 60)]


def digits(rng):
    text = "".join(pick(rng, "0123456789") for _ in range(rng.randint(1, 20)))
    return pick(rng, ["", "-", "+", "$", " ", "v", "0x", "1."]) + text + pick(rng, ["", ".", "," + text[:3], "e" + text[:2], "%", "th", "年", "."+text])


def punctuated(rng):
    marks = "".join(pick(rng, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randint(1, 4)))
    word = pick(rng, ["s", "re", "include", "A", "über", "x1", "the", "ll", "слово", "中文", "é"])
    return pick(rng, ["", " ", "\n", "a"]) + marks + word + pick(rng, ["", marks, "\n", "\r\n\n", " "])


def special(rng, added):
    token = pick(rng, added)
    if rng.random() < 0.25:  # not quite the token
        cut = rng.randrange(len(token))
        token = pick(rng, [token[:cut], token[cut:], token[:cut] + " " + token[cut:], token.lower(), token.replace("｜", "|")])
    return pick(rng, ["", "", " ", "\n", "a", "。"]) + token + pick(rng, ["", "", " ", "\n", "b", token])


def long_strings(rng):
    yield "a" * 6000
    yield "ab" * 3000
    yield " " * 5000
    yield " " * 3000 + "x"
    yield "\n" * 4000
    yield "\t \n" * 1500
    yield "9" * 5000
    yield "=" * 5000 + "\n"
    yield "中" * 4000
    yield "ああ漢字" * 1000
    yield "e\u0301" * 2500
    yield "\u0301" * 3000
    yield "👨‍👩‍👧‍👦" * 500
    yield "\x00" * 3000
    yield "".join(pick(rng, "acgt") for _ in range(8000))
    yield "".join(CODE) * 4
    yield " ".join(PHRASES)
    yield from ("".join(compound(rng, []) for _ in range(40)) for _ in range(8))


def compound(rng, added):
    kinds = [phrase, phrase, block_text, spaced, emoji, code, digits, punctuated]
    pieces = [pick(rng, kinds)(rng) for _ in range(rng.randint(1, 4))]
    if added and rng.random() < 0.3:
        pieces.insert(rng.randrange(len(pieces) + 1), special(rng, added))
    return pick(rng, ["", "", " "]).join(pieces)


def make_strings(added_tokens, count=10_500):
    """`count` different strings; `added_tokens`: the texts that the tokenizer knows as whole tokens."""
    rng = random.Random(20250120)
    strings = dict.fromkeys(["", " ", "\n", "\r\n", "a", " a", "  a", "\u0000", "\ufffd", "<think>", "</think>"])
    strings.update(dict.fromkeys(PHRASES + CODE + EMOJI + added_tokens))
    strings.update(dict.fromkeys(long_strings(rng)))
    # Each code point of the blocks where tokenizers differ most, between letters, once.
    for block in ("controls", "combining", "numbers", "punctuation"):
        for first, last in BLOCKS[block]:
            strings.update(dict.fromkeys("a" + chr(point) + "b 1" + chr(point) + "2" for point in range(first, last + 1)))
    singles = [block_text, spaced, emoji, digits, punctuated, lambda rng: special(rng, added_tokens)]
    while len(strings) < count:
        maker = pick(rng, singles) if rng.random() < 0.4 else lambda rng: compound(rng, added_tokens)
        strings[maker(rng)] = None
    return list(strings)
