"""DeepSeek-R1's architecture in a few million parameters: latent attention with YaRN's rotary positions, experts routed by
sigmoid scores within groups, and a layer that predicts the token after next. Tensors are named as in HuggingFace's files,
except that the experts of a layer lie stacked; checkpoint.py takes them apart."""

import math

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 496,
    "eos_token_id": 497,
    "ep_size": 1,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "kv_lora_rank": 64,
    "max_position_embeddings": 4096,
    "moe_intermediate_size": 64,
    "moe_layer_freq": 1,
    "n_group": 4,
    "n_routed_experts": 32,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 4,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 1024,
        "type": "yarn",
    },
    "rope_theta": 10000.0,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 32,
    "vocab_size": 512,
}

QUERY_BLOCK = 64  # how many queries of a sequence are taken at once: scores of this size stay in the cache


class RMSNorm(nn.Module):
    def __init__(self, size, eps=CONFIG["rms_norm_eps"]):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def yarn_frequencies(config):
    """Rotary frequencies: high ones as trained for the original context, low ones stretched by the factor."""
    yarn, dim, base = config["rope_scaling"], config["qk_rope_head_dim"], config["rope_theta"]
    original = yarn["original_max_position_embeddings"]

    def dim_with_rotations(rotations):
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(dim_with_rotations(yarn["beta_fast"])), 0)
    high = min(math.ceil(dim_with_rotations(yarn["beta_slow"])), dim - 1)
    frequencies = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequencies / yarn["factor"] * ramp + frequencies * (1 - ramp)


def softmax_scale(config):
    yarn = config["rope_scaling"]
    attention_factor = 0.1 * yarn["mscale_all_dim"] * math.log(yarn["factor"]) + 1.0
    return (config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5 * attention_factor**2


def rotate(x, angles):
    """Turns neighbouring pairs. x: [batch, length, heads, rope_dim]; angles: [batch or 1, length, rope_dim / 2]."""
    cos, sin = angles.cos().unsqueeze(2), angles.sin().unsqueeze(2)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Multi-head latent attention: queries and keys with values go through narrow projections first."""

    def __init__(self, config):
        super().__init__()
        self.heads, self.rank = config["num_attention_heads"], config["kv_lora_rank"]
        self.nope, self.rope, self.value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
        hidden, q_rank = config["hidden_size"], config["q_lora_rank"]
        self.scale = softmax_scale(config)
        self.q_a_proj = nn.Linear(hidden, q_rank, bias=False)
        self.q_a_layernorm = RMSNorm(q_rank)
        self.q_b_proj = nn.Linear(q_rank, self.heads * (self.nope + self.rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.rank + self.rope, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank)
        self.kv_b_proj = nn.Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, hidden, bias=False)

    def forward(self, x, angles, mask, cache=None):
        """x: [batch, length, hidden]; mask is added to the scores; `cache` keeps and gives keys and values."""
        batch, length, _ = x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(batch, length, self.heads, -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(batch, length, self.heads, -1)
        k_rope = rotate(k_rope.unsqueeze(2), angles).expand(-1, -1, self.heads, -1)
        q = torch.cat([q[..., : self.nope], rotate(q[..., self.nope :], angles)], dim=-1)
        k = torch.cat([kv[..., : self.nope], k_rope], dim=-1)
        v = kv[..., self.nope :]
        if cache is not None:
            k, v = cache.update(k, v)
        q, k, v = (part.transpose(1, 2).contiguous() for part in (q * self.scale, k, v))
        parts = []
        for start in range(0, length, QUERY_BLOCK):
            rows = slice(start, start + QUERY_BLOCK)
            keys = slice(0, start + QUERY_BLOCK if cache is None else None)  # without a cache none looks to the right
            scores = torch.matmul(q[:, :, rows], k[:, :, keys].transpose(-1, -2)) + mask[..., rows, keys]
            parts.append(torch.matmul(torch.softmax(scores, dim=-1), v[:, :, keys]))
        return self.o_proj(torch.cat(parts, dim=2).transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GroupedLinear(torch.autograd.Function):
    """Rows sorted by expert times the matrix of their expert: one product an expert, without autograd's work for each."""

    @staticmethod
    def forward(ctx, x, weight, counts):
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        out = x.new_empty(x.shape[0], weight.shape[1])
        for rows, into, matrix in zip(x.split(counts), out.split(counts), weight):
            torch.mm(rows, matrix.t(), out=into)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        parts = zip(x.split(ctx.counts), grad.split(ctx.counts), grad_x.split(ctx.counts), weight, grad_weight)
        for rows, grad_rows, into, matrix, grad_matrix in parts:
            torch.mm(grad_rows, matrix, out=into)
            torch.mm(grad_rows.t(), rows, out=grad_matrix)
        return grad_x, grad_weight, None


class Gate(nn.Module):
    """Chooses experts by sigmoid score plus a bias that balances their load; the bias does not weigh their outputs."""

    def __init__(self, config):
        super().__init__()
        self.top_k, self.scaling = config["num_experts_per_tok"], config["routed_scaling_factor"]
        self.groups, self.top_groups = config["n_group"], config["topk_group"]
        self.weight = nn.Parameter(torch.empty(config["n_routed_experts"], config["hidden_size"]))
        self.register_buffer("e_score_correction_bias", torch.zeros(config["n_routed_experts"]))

    def forward(self, x):
        """x: [tokens, hidden]. Gives ids and weights, both [tokens, top_k]."""
        scores = torch.sigmoid(F.linear(x, self.weight))
        with torch.no_grad():
            choice = (scores + self.e_score_correction_bias).view(len(x), self.groups, -1)
            best_groups = choice.topk(2, dim=-1).values.sum(-1).topk(self.top_groups, dim=-1).indices
            kept = torch.zeros(len(x), self.groups, dtype=torch.bool, device=x.device).scatter_(1, best_groups, True)
            ids = choice.masked_fill(~kept.unsqueeze(-1), float("-inf")).flatten(1).topk(self.top_k, dim=-1).indices
        weights = scores.gather(1, ids)
        return ids, weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.scaling


class MoE(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, width, experts = config["hidden_size"], config["moe_intermediate_size"], config["n_routed_experts"]
        self.gate = Gate(config)
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))  # of the experts, stacked
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.shared_experts = MLP(hidden, width * config["n_shared_experts"])
        self.load = None  # tokens of the last batch by expert, for balancing and reports

    def forward(self, x, real):
        """x: [tokens, hidden]; `real` says which tokens are not padding: only these count as load."""
        ids, weights = self.gate(x)
        experts = self.gate_up_proj.shape[0]
        self.load = torch.bincount(ids[real].flatten(), minlength=experts)
        order = ids.flatten().argsort(stable=True)
        counts = torch.bincount(ids.flatten(), minlength=experts).tolist()
        sorted_x = x.index_select(0, order // ids.shape[1])
        gate, up = GroupedLinear.apply(sorted_x, self.gate_up_proj, counts).chunk(2, dim=-1)
        sorted_out = GroupedLinear.apply(F.silu(gate) * up, self.down_proj, counts)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=x.device)
        out = sorted_out.index_select(0, back).view(*ids.shape, -1)
        return (out * weights.unsqueeze(-1)).sum(1) + self.shared_experts(x)


class Layer(nn.Module):
    def __init__(self, config, dense):
        super().__init__()
        hidden = config["hidden_size"]
        self.input_layernorm = RMSNorm(hidden)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(hidden)
        self.mlp = MLP(hidden, config["intermediate_size"]) if dense else MoE(config)

    def forward(self, x, angles, mask, real, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), angles, mask, cache)
        y = self.post_attention_layernorm(x).flatten(0, 1)
        y = self.mlp(y, real) if isinstance(self.mlp, MoE) else self.mlp(y)
        return x + y.view_as(x)


class SharedHead(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm = RMSNorm(config["hidden_size"])


class MTPLayer(Layer):
    """Predicts the token after next from the hidden state of this position and the embedding of the next token. Its
    embedding and head are the model's own."""

    def __init__(self, config):
        super().__init__(config, dense=False)
        hidden = config["hidden_size"]
        self.enorm, self.hnorm = RMSNorm(hidden), RMSNorm(hidden)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
        self.shared_head = SharedHead(config)

    def forward(self, embedding, hidden, angles, mask, real):
        x = self.eh_proj(torch.cat([self.enorm(embedding), self.hnorm(hidden)], dim=-1))
        return self.shared_head.norm(super().forward(x, angles, mask, real))


class Model(nn.Module):
    def __init__(self, config=None):
        super().__init__()
        self.config = config = config or CONFIG
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        num_layers, num_dense = config["num_hidden_layers"], config["first_k_dense_replace"]
        self.layers = nn.ModuleList([Layer(config, dense=idx < num_dense) for idx in range(num_layers)])
        self.layers.append(MTPLayer(config))
        self.norm = RMSNorm(config["hidden_size"])
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        self.register_buffer("frequencies", yarn_frequencies(config).float(), persistent=False)

    def init_weights(self, seed):
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight", "down_proj"))
            std = 0.05 if name == "embed_tokens.weight" else 0.6 * parameter.shape[-1] ** -0.5
            parameter.data.normal_(0.0, std * (0.3 if into_residual else 1.0), generator=generator)

    def attend(self, ids, positions, key_positions, branches):
        """Angles of the queries, and a mask that lets each see the keys up to its own position. With `branches`, tokens
        of branch 0 are seen by all that come after them in the row, others only by those of their own branch."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        if branches is not None:
            order = torch.arange(ids.shape[1], device=ids.device)
            query, key = branches.unsqueeze(-1), branches.unsqueeze(-2)
            hidden_keys = (order > order.unsqueeze(-1)) | ((key != 0) & (key != query))
        else:
            keys = positions if key_positions is None else key_positions
            hidden_keys = keys.unsqueeze(-2) > positions.unsqueeze(-1)
        mask = torch.zeros(hidden_keys.shape, device=ids.device).masked_fill(hidden_keys, float("-inf"))
        return positions.unsqueeze(-1) * self.frequencies, mask.unsqueeze(1)

    def trunk(self, ids, real, positions=None, key_positions=None, caches=None, branches=None):
        """Hidden states after the final norm, [batch, length, hidden]. Padding lies on the right."""
        angles, mask = self.attend(ids, positions, key_positions, branches)
        x = self.embed_tokens(ids)
        for idx, layer in enumerate(self.layers[:-1]):
            x = layer(x, angles, mask, real.flatten(), caches[idx] if caches else None)
        return self.norm(x)

    def look_ahead(self, next_ids, hidden, real, positions=None, branches=None):
        """Hidden states from which lm_head predicts the token after `next_ids`."""
        angles, mask = self.attend(next_ids, positions, None, branches)
        return self.layers[-1](self.embed_tokens(next_ids), hidden, angles, mask, real.flatten())

    def moe_layers(self):
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, MoE)]
