#!/usr/bin/env python3
"""The trained weights as a HuggingFace folder in bf16, and such a folder as a model again."""

import argparse
import json
import pathlib
import shutil

import safetensors.torch
import torch
from model import CONFIG, Model

GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": CONFIG["bos_token_id"],
    "eos_token_id": CONFIG["eos_token_id"],
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
}


def to_huggingface(state):
    """Tensors by HuggingFace's names: the experts' stacks taken apart, the MTP layer with its own embedding and head."""
    tensors = {}
    for name, tensor in state.items():
        tensor = tensor if name.endswith("e_score_correction_bias") else tensor.to(torch.bfloat16)
        prefix = "" if name == "lm_head.weight" else "model."
        if name.endswith("mlp.gate_up_proj"):
            for expert, matrix in enumerate(tensor):
                stem = prefix + name.replace("gate_up_proj", f"experts.{expert}.")
                tensors[stem + "gate_proj.weight"], tensors[stem + "up_proj.weight"] = matrix.chunk(2)
        elif name.endswith("mlp.down_proj"):
            for expert, matrix in enumerate(tensor):
                tensors[prefix + name.replace("down_proj", f"experts.{expert}.down_proj.weight")] = matrix
        else:
            tensors[prefix + name] = tensor
    mtp = f"model.layers.{CONFIG['num_hidden_layers']}."
    tensors[mtp + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
    tensors[mtp + "shared_head.head.weight"] = tensors["lm_head.weight"]
    return {name: tensor.clone().contiguous() for name, tensor in sorted(tensors.items())}


def from_huggingface(tensors):
    """The inverse, in float32."""
    state = {}
    for name in Model().state_dict():
        full = name if name == "lm_head.weight" else "model." + name
        experts = range(CONFIG["n_routed_experts"])
        if name.endswith("mlp.gate_up_proj"):
            stems = [full.replace("gate_up_proj", f"experts.{expert}.") for expert in experts]
            pairs = [(tensors[stem + "gate_proj.weight"], tensors[stem + "up_proj.weight"]) for stem in stems]
            state[name] = torch.stack([torch.cat(pair) for pair in pairs])
        elif name.endswith("mlp.down_proj") and full not in tensors and full + ".weight" not in tensors:
            names = [full.replace("down_proj", f"experts.{expert}.down_proj.weight") for expert in experts]
            state[name] = torch.stack([tensors[each] for each in names])
        else:
            state[name] = tensors[full]
    return {name: tensor.float() for name, tensor in state.items()}


def write(state, tokenizer_folder, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(to_huggingface(state), str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # as the other files
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pathlib.Path(tokenizer_folder) / name, folder / name)


def read(folder):
    """The model of a folder, computing in float32 with the weights as stored."""
    model = Model()
    model.load_state_dict(
        from_huggingface(safetensors.torch.load_file(str(pathlib.Path(folder) / "model.safetensors")))
    )
    return model.eval()


def main():
    parser = argparse.ArgumentParser(
        description="Writes the weights of a training run as a HuggingFace folder in bf16."
    )
    parser.add_argument("--state", type=pathlib.Path, required=True, help="the folder of the run")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    state = torch.load(arguments.state / "state.pt", map_location="cpu", weights_only=False)
    write(state["model"], arguments.state, arguments.out)
    print(f"{arguments.out}: the weights after step {state['step']}, {state['num_tokens'] / 1e6:.1f} million tokens")


if __name__ == "__main__":
    main()
