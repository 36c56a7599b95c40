"""The published fit as its authors run it (github.com/ywh187/FitPrune, statistical_analysis.py), for LLaVAs of transformers.

Batch 1, eager attention, all maps of a sample at once in the statistics pass; then, for each alpha, layer by layer over all
samples. `read_again`: every image is decoded and preprocessed anew for every sample in every layer. `loops`: the largest
removable set is found by summing a growing prefix in a Python loop; without it, by one cumulative sum. Its budget, sizes and
stop are the published ones; its stale count is not (nothing goes where no prefix qualifies).
"""

import io
import math

import torch
from PIL import Image
from torch.nn.functional import softmax
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from .fitting import cost


class PublishedFit:
    """`samples`: (PNG bytes, question) pairs; `encode`: from a PIL image and a question to the model's inputs, batch 1."""

    def __init__(self, model, samples, encode, *, loops=True, read_again=True):
        self.model, self.samples, self.encode = model, samples, encode
        self.loops, self.read_again = loops, read_again
        self.decoder = model.model.language_model
        text = model.config.text_config
        self.sizes = (text.hidden_size, text.intermediate_size)
        self.prompts = [None] * len(samples)
        self.passes = 0

    def prompt(self, place):
        """Embeddings (1, T, hidden) and the visual tokens' first row and number."""
        if self.read_again or self.prompts[place] is None:
            png, question = self.samples[place]
            self.prompts[place] = self.encode(Image.open(io.BytesIO(png)).convert("RGB"), question)
        return self.prompts[place]

    def embed(self, place):
        inputs = self.prompt(place)
        visual = (inputs["input_ids"][0] == self.model.config.image_token_id).nonzero()[:, 0]
        embeds = self.model.get_input_embeddings()(inputs["input_ids"])
        features = torch.cat(list(self.model.model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output))
        embeds[0, visual] = features.to(embeds.dtype)
        return embeds, int(visual[0]), len(visual)

    def attend(self, layer, x, positions):
        """Attention maps (heads, T, T) and their product with the values (heads, T, d)."""
        block = layer.self_attn
        x = layer.input_layernorm(x)
        shape = (*x.shape[:2], -1, block.head_dim)
        q, k, v = (project(x).view(shape).transpose(1, 2) for project in (block.q_proj, block.k_proj, block.v_proj))
        q, k = apply_rotary_pos_emb(q, k, *self.decoder.rotary_emb(x, positions))
        k, v = repeat_kv(k, block.num_key_value_groups), repeat_kv(v, block.num_key_value_groups)
        mask = torch.full((x.shape[1], x.shape[1]), -math.inf, device=x.device).triu(1)
        maps = softmax(q @ k.transpose(2, 3) / math.sqrt(block.head_dim) + mask, dim=-1, dtype=torch.float32).to(q.dtype)
        return maps[0], (maps @ v)[0]

    def rest(self, layer, residual, attended):
        x = residual + layer.self_attn.o_proj(attended.transpose(0, 1).reshape(1, len(residual[0]), -1))
        return x + layer.mlp(layer.post_attention_layernorm(x))

    @staticmethod
    def importances(maps, first, visual):
        highest = maps.max(0).values
        text = highest.shape[0] - first - visual
        columns = slice(first, first + visual)
        return highest[first + visual :, columns].sum(0) / text, (highest[columns, columns] / visual).sum(0)

    def statistics(self):
        """Wc and Ws: (samples, layers) lists."""
        masses = []
        for place in range(len(self.samples)):
            x, first, visual = self.embed(place)
            positions = torch.arange(x.shape[1], device=x.device)[None]
            maps = []
            for layer in self.decoder.layers:
                of_layer, attended = self.attend(layer, x, positions)
                maps.append(of_layer)
                x = self.rest(layer, x, attended)
            masses.append([[float(part.sum()) for part in self.importances(m, first, visual)] for m in maps])
        return masses

    def removable(self, values, at_least):
        """Places of the largest set of lowest values whose removal leaves at least `at_least`."""
        order = torch.argsort(values, stable=True)
        if not self.loops:
            left = values.double().sum() - values.double()[order].cumsum(0)
            return order[: int((left.clamp(min=0) >= at_least).sum())]
        total, best = values.double().sum(), 0
        for count in range(1, len(order) + 1):
            if (total - values.double()[order[:count]].sum()).clamp(min=0) < at_least:
                break
            best = count
        return order[:best]

    def scheme(self, alpha, masses, reduction):
        """Tokens dropped per layer, (layers, samples), up to the published stop, and whether that was met."""
        layers = self.decoder.layers
        state, visual, counts = {}, {}, []
        for index, layer in enumerate(layers):
            if index and self.within(counts, len(layers), reduction):
                return counts, True
            counts.append([])
            for place in range(len(self.samples)):
                if index == 0:
                    x, first, n = self.embed(place)
                    positions = torch.arange(x.shape[1], device=x.device)[None]
                    visual[place] = n
                else:
                    if self.read_again:
                        self.prompt(place)
                    x, positions, first = state[place]
                n = visual[place]
                maps, attended = self.attend(layer, x, positions)
                cross, own = self.importances(maps, first, n)
                of_cross, of_own = masses[place][index]
                share = 1 - alpha
                both = torch.cat([self.removable(cross, share * of_cross), self.removable(own, share * of_own)])
                found, times = both.unique(return_counts=True)
                gone = found[times > 1]
                stays = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
                stays[gone + first] = False
                x = self.rest(layer, x[:, stays], attended[:, stays])
                state[place] = (x, positions[:, stays], first)
                visual[place] -= len(gone)
                counts[-1].append(len(gone))
        self.passes += 1
        return counts, self.within(counts, len(layers), reduction)

    def within(self, counts, layers, reduction):
        """Whether the mean cost, with nothing dropped from here on, is within the budget."""
        n = self.visual_tokens
        dense = cost([0] * layers, n, *self.sizes)
        samples = zip(*counts, strict=True)
        mean = sum(cost([*one, *[0] * (layers - len(one))], n, *self.sizes) for one in samples) / len(self.samples)
        return mean <= (1 - reduction) * dense

    @torch.no_grad()
    def run(self, reduction):
        """The published result: (alpha, per-layer floors of the mean counts), of the last alpha tried and the last reached."""
        self.visual_tokens = self.embed(0)[2]
        masses = self.statistics()
        low, high, best = 0.0, 1.0, None
        for _ in range(7):
            alpha = (low + high) / 2
            counts, reached = self.scheme(alpha, masses, reduction)
            drop = [sum(layer) // len(self.samples) for layer in counts]
            drop += [0] * (len(self.decoder.layers) - len(drop))
            low, high, best = (low, alpha, (alpha, drop)) if reached else (alpha, high, best)
        return (alpha, drop), best
