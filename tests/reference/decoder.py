"""A pruned prefill and greedy continuation, one sample at a time, in plain loops over a LLaVA's own weights.

Layer l: attention over every token that entered; visual tokens that the rule names leave the attention output (before
o_proj) and the residual; o_proj and the FFN see the survivors. Survivors keep their position ids. A decoded token's id
continues from the unpruned length.
"""

import math
from dataclasses import dataclass, field

import torch


@dataclass
class Scores:
    """One layer's statistics over the n visual tokens that entered it; `original` are their indices in the prompt."""

    original: list[int]
    cross: list[float]
    own: list[float]
    last_row: list[float]


@dataclass
class Run:
    """What the reference did; lists have one entry per layer unless said otherwise."""

    kept: list[list[int]] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    kv_lengths: list[int] = field(default_factory=list)
    hidden: torch.Tensor | None = None  # (survivors, hidden): after the last layer and the final norm
    logits: torch.Tensor | None = None  # (survivors, vocabulary)
    tokens: list[int] = field(default_factory=list)  # greedy continuation, one entry per new token
    decode_positions: list[int] = field(default_factory=list)
    closest: float = math.inf  # smallest relative gap between a kept and a dropped score


class Reference:
    """The model's weights, in float64 unless told otherwise."""

    def __init__(self, model, dtype=torch.float64):
        self.model, self.dtype = model, dtype
        self.config = model.config.text_config
        decoder = model.get_decoder()
        self.weights = {name: value.detach().to(dtype) for name, value in decoder.state_dict().items()}
        self.head = model.lm_head.weight.detach().to(dtype)
        self.heads = self.config.num_attention_heads
        self.kv_heads = self.config.num_key_value_heads
        self.width = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.heads
        self.layers = self.config.num_hidden_layers
        self.scaling = self.width**-0.5

    def embed(self, inputs):
        """The prompt of one unpadded sample: embeddings (tokens, hidden) and, per token, whether it stands for what is seen."""
        kinds = self.kinds(inputs)
        features = {kind: self.encoded(inputs, kind).pooler_output for kind in set(kinds) - {None}}
        seen = {kind: iter(torch.cat(list(own)).to(self.dtype)) for kind, own in features.items()}
        words = [self.weights["embed_tokens.weight"][token] for token in inputs["input_ids"][0].tolist()]
        rows = [next(seen[kind]) if kind else word for word, kind in zip(words, kinds, strict=True)]
        return torch.stack(rows), [kind is not None for kind in kinds]

    def kinds(self, inputs):
        """Per token of an unpadded prompt "image", "video", or None for text."""
        config = self.model.config
        kinds = {config.image_token_id: "image", getattr(config, "video_token_id", None): "video"}
        return [kinds.get(token) for token in inputs["input_ids"][0].tolist()]

    def encoded(self, inputs, kind):
        """What the model makes of the images or the videos of a prompt."""
        wanted = {
            "image": ("pixel_values", "pixel_attention_mask", "image_sizes", "image_grid_thw", "batch_num_images"),
            "video": ("pixel_values_videos", "video_grid_thw"),
        }
        with torch.no_grad():
            encode = getattr(self.model.model, f"get_{kind}_features")
            return encode(**{name: inputs[name] for name in wanted[kind] if name in inputs})

    def pool(self, inputs):
        """Which tokens of an unpadded prompt are visual tokens."""
        return self.visual(inputs, [kind is not None for kind in self.kinds(inputs)])

    def visual(self, inputs, image):
        """Which of the image's places hold visual tokens; `image` says, per token of the prompt, which places these are."""
        return image

    def positions(self, inputs, length):
        """The position of every token of the prompt, and that of the first token decoded."""
        return list(range(length)), length

    def norm(self, x, name):
        variance = (x * x).mean(-1, keepdim=True)
        return x / torch.sqrt(variance + self.config.rms_norm_eps) * self.weights[name + ".weight"]

    def linear(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

    def theta(self, layer):
        """The base of the rotary frequencies in a layer."""
        return self.config.rope_parameters["rope_theta"]

    def sees(self, row, key, names):
        """Whether a row of a prompt sees a later one; `names` are the indices of visual tokens, None for text."""
        return False

    def project(self, output, layer):
        """What a layer's attention adds to the residual stream."""
        return self.linear(output, f"layers.{layer}.self_attn.o_proj")

    def rotated(self, x, part, positions):
        """Queries or keys (rows, heads, width) of normed rows, by the part's name up to its letter, normed where they are."""
        states = self.linear(x, part + "_proj").view(len(x), -1, self.width)
        states = self.norm(states, part + "_norm") if part + "_norm.weight" in self.weights else states
        return self.rotate(states, positions, self.theta(int(part.split(".")[1])))

    def rotate(self, x, positions, theta):
        """Rotary embedding of x (tokens, heads, width) at the given positions."""
        half = self.width // 2
        angles = [[self.axis(position, i) * theta ** (-2 * i / self.width) for i in range(half)] for position in positions]
        angles = torch.tensor(angles, dtype=torch.float64).to(self.dtype)[:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)

    def deepen(self, x, layer, names):
        """The rows after a layer, with what a family adds to visual tokens there; `names` are their indices, None for text."""
        return x

    def axis(self, position, frequency):
        """The coordinate that the rotary embedding turns by at this frequency."""
        return position

    def attend(self, x, layer, positions, cache, names=None):
        """Adds x's keys and values to this layer's cache; gives (rows, heads·width) before o_proj, maps (heads, rows, keys)."""
        block = f"layers.{layer}.self_attn."
        x = self.norm(x, f"layers.{layer}.input_layernorm")
        queries, keys = (self.rotated(x, block + part, positions) for part in "qk")
        values = self.linear(x, block + "v_proj").view(len(x), self.kv_heads, self.width)
        past = len(cache)
        cache.extend(zip(keys, values, strict=True))
        all_keys = torch.stack([key for key, _ in cache])
        all_values = torch.stack([value for _, value in cache])
        rows = range(len(x))
        unseen = torch.tensor([[later > row and not self.sees(row, later, names) for later in rows] for row in rows])
        maps, outputs = [], []
        for head in range(self.heads):
            shared = head // (self.heads // self.kv_heads)
            logits = queries[:, head] @ all_keys[:, shared].T * self.scaling
            logits = logits + self.bias(layer, positions, past + len(x))
            logits[:, past:][unseen] = -math.inf
            maps.append(torch.softmax(logits, -1))
            outputs.append(maps[-1] @ all_values[:, shared])
        return torch.cat(outputs, -1), torch.stack(maps)

    def bias(self, layer, positions, keys):
        """What is added to the logits of queries at these positions, and so many keys."""
        return 0

    def feed_forward(self, x, layer):
        y = self.norm(x, f"layers.{layer}.post_attention_layernorm")
        gate = self.linear(y, f"layers.{layer}.mlp.gate_proj")
        gate = gate * torch.sigmoid(gate)
        return x + self.linear(gate * self.linear(y, f"layers.{layer}.mlp.up_proj"), f"layers.{layer}.mlp.down_proj")

    def prefill(self, inputs, choose_after_attention=None, choose_between=None, only=None):
        """The rules take (layer, Scores) and give the original indices to drop, before o_proj or between two layers.

        `only` are the original indices of those that enter the decoder; None for all.
        """
        x, image = self.embed(inputs)
        visual = self.visual(inputs, image)
        positions, next_position = self.positions(inputs, len(x))
        places = list(range(len(x)))
        original = [sum(visual[:i]) if is_visual else None for i, is_visual in enumerate(visual)]
        last_image = max((i for i, is_image in enumerate(image) if is_image), default=len(x))
        if only is not None:
            places = [place for place in places if original[place] is None or original[place] in only]
            x, positions, original = x[places], [positions[row] for row in places], [original[row] for row in places]
        caches = [[] for _ in range(self.layers)]
        run = Run()
        for layer in range(self.layers):
            output, maps = self.attend(x, layer, positions, caches[layer], original)
            question = [row for row, place in enumerate(places) if place > last_image]
            scores = statistics(maps, original, question)
            run.scores.append(scores)
            if choose_after_attention is not None:
                gone = set(choose_after_attention(layer, scores))
                rows = [row for row, index in enumerate(original) if index not in gone]
                x, output = x[rows], output[rows]
                positions, original = [positions[row] for row in rows], [original[row] for row in rows]
                places = [places[row] for row in rows]
            x = self.feed_forward(x + self.project(output, layer), layer)
            x = self.deepen(x, layer, original)
            run.kept.append([index for index in original if index is not None])
            run.kv_lengths.append(len(caches[layer]))
            if choose_between is not None:
                gone = set(choose_between(layer, scores))
                rows = [row for row, index in enumerate(original) if index not in gone]
                x, positions, original = x[rows], [positions[row] for row in rows], [original[row] for row in rows]
                places = [places[row] for row in rows]
        run.hidden = self.norm(x, "norm")
        run.logits = run.hidden @ self.head.T
        return run, caches, next_position

    def decode(self, run, caches, next_position, new_tokens):
        """Greedy continuation; nothing is pruned any more."""
        logits = run.logits[-1]
        for step in range(new_tokens):
            top = logits.topk(2).values
            run.closest = min(run.closest, float(top[0] - top[1]))
            run.tokens.append(int(logits.argmax()))
            if step == new_tokens - 1:
                break
            position = next_position + step
            run.decode_positions.append(position)
            x = self.weights["embed_tokens.weight"][run.tokens[-1]][None]
            for layer in range(self.layers):
                output, _ = self.attend(x, layer, [position], caches[layer])
                x = self.feed_forward(x + self.project(output, layer), layer)
            logits = (self.norm(x, "norm") @ self.head.T)[0]
        return run


# Families whose prompts have another layout or other positions, by model type.
KINDS = {}


def reference_of(model, dtype=torch.float64):
    """The reference for this model's family."""
    return KINDS.get(model.config.model_type, Reference)(model, dtype)


def statistics(maps, original, text):
    """Of the head maximum, cross: mean over the `text` rows (after the images); own: sum over visual rows, divided by n."""
    heads, rows, _ = maps.shape
    columns = [row for row, index in enumerate(original) if index is not None]
    n = len(columns)
    cross, own, last_row = [], [], []
    maximum, last = maps.max(0).values.tolist(), maps[:, rows - 1].tolist()
    for column in columns:
        cross.append(sum(maximum[row][column] for row in text) / len(text) if text else 0.0)
        own.append(sum(maximum[row][column] for row in columns) / n)
        last_row.append(sum(last[head][column] for head in range(heads)) / heads)
    return Scores([original[column] for column in columns], cross, own, last_row)


def lowest(scores, values, count):
    """The `count` original indices of the lowest values, and the relative gap to the lowest value that stays."""
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    count = min(count, len(order))
    gap = math.inf
    if 0 < count < len(order):
        gap = (values[order[count]] - values[order[count - 1]]) / max(values[order[count]], 1e-30)
    return [scores.original[i] for i in order[:count]], gap


def fitprune(model, inputs, drop, new_tokens=0, dtype=torch.float64):
    """FitPrune's rule with `drop[l]` tokens dropped in layer l, on one unpadded sample."""
    gaps = []

    def rule(layer, scores):
        product = [cross * own for cross, own in zip(scores.cross, scores.own, strict=True)]
        gone, gap = lowest(scores, product, drop[layer])
        gaps.append(gap)
        return gone

    reference = reference_of(model, dtype)
    run, caches, position = reference.prefill(inputs, choose_after_attention=rule)
    run.closest = min(gaps, default=math.inf)
    return reference.decode(run, caches, position, new_tokens)
