#!/usr/bin/env python3
"""Makes of the built-in model one that vLLM takes on a CPU: vllm_model.py models/nano FOLDER

vLLM's attention wants heads of a multiple of 32 there, without its own MLA (VLLM_MLA_DISABLE=1): the part of queries and keys that
has no position is padded with zeros from 32 to 48, which changes no product. The scale of the softmax, which goes by the heads'
size, is kept by YaRN's mscale. The tokenizer's spare marks get the names of DeepSeek's marks of calls, without which vLLM's
parser of them does not start.
"""

import json
import math
import shutil
import struct
import sys
from pathlib import Path

PADDED = 48
MARKS = ["calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep"]


def pad_rows(raw, shape, num_heads, nope):
    """Of a matrix of bf16 with `nope` rows and others for each head, one under the other."""
    row, per_head = shape[1] * 2, shape[0] // num_heads
    cut, heads = nope * row, [raw[i * per_head * row : (i + 1) * per_head * row] for i in range(num_heads)]
    return b"".join(head[:cut] + bytes((PADDED - nope) * row) + head[cut:] for head in heads)


def main(source, folder):
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    num_heads, nope, rope = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))

    data = (source / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors, pieces, offset = {}, [], 0
    for name, tensor in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        raw, shape = data[8 + size + begin : 8 + size + end], tensor["shape"]
        if name.endswith(("q_b_proj.weight", "kv_b_proj.weight")):
            raw = pad_rows(raw, shape, num_heads, nope)
            shape = [shape[0] + num_heads * (PADDED - nope), shape[1]]
        tensors[name] = {"dtype": tensor["dtype"], "shape": shape, "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        pieces.append(raw)
    head = json.dumps(tensors).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(pieces))

    yarn = config["rope_scaling"]
    tenth = 0.1 * math.log(yarn["factor"])
    wanted = (1 + tenth * yarn["mscale_all_dim"]) * ((PADDED + rope) / (nope + rope)) ** 0.25
    yarn["mscale"] = yarn["mscale_all_dim"] = (wanted - 1) / tenth
    config["qk_nope_head_dim"] = PADDED
    (folder / "config.json").write_text(json.dumps(config, indent=1))

    tokenizer = (source / "tokenizer.json").read_text()
    if "<｜tool▁calls▁begin｜>" not in tokenizer:
        for i, mark in enumerate(MARKS):
            tokenizer = tokenizer.replace(f"<｜reserved▁{7 + i}｜>", f"<｜tool▁{mark}｜>")
    (folder / "tokenizer.json").write_text(tokenizer)
    for name in ("generation_config.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
