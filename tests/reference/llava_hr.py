"""LLaVA-HR's vision side and prompt, written out from a checkpoint in the authors' tensor names.

Elementary operations only: sums, matrix products, loops over heads, windows and weights of interpolation. What the authors'
code does in float32 whatever its dtype, is done in float32 here too.
"""

import math
from dataclasses import dataclass

import torch

FAST = "model.vision_tower.fast_vision_tower.vision_tower.vision_model."
SLOW = "model.vision_tower.slow_vision_tower.vision_tower."
LATENT = "model.vision_tower.align_stages_latent."
FINAL = "model.vision_tower.align_stages.0."


@dataclass(frozen=True)
class Sizes:
    """What the tensors' shapes do not tell."""

    heads: int
    depths: tuple[int, ...]
    epsilon: float
    clip_epsilon: float = 1e-5
    frozen: bool = False


def fast_image_size(side):
    return max(int(side / 32 * 14), 336)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def quick_gelu(x):
    return x / (1 + torch.exp(-1.702 * x))


def layer_norm(x, weight, bias, epsilon):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + epsilon) * weight + bias


def linear(weights, name, x):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def patches(weights, name, x, side):
    """A convolution whose stride is its kernel: x (channels, h, w) → (out, h // side, w // side)."""
    kernel = weights[name + ".weight"]
    rows, columns = x.shape[1] // side, x.shape[2] // side
    cut = x[:, : rows * side, : columns * side].reshape(x.shape[0], rows, side, columns, side)
    out = torch.einsum("cyixj,ocij->oyx", cut, kernel)
    return out + weights[name + ".bias"][:, None, None] if name + ".bias" in weights else out


def pointwise(weights, name, x):
    """A 1×1 convolution: (channels, h, w) → (out, h, w)."""
    return torch.einsum("oc,chw->ohw", weights[name + ".weight"][:, :, 0, 0], x) + weights[name + ".bias"][:, None, None]


def depthwise(weights, name, x):
    """A depthwise 7×7 convolution with padding 3."""
    kernel, (channels, height, width) = weights[name + ".weight"], x.shape
    padded = torch.zeros(channels, height + 6, width + 6, dtype=x.dtype)
    padded[:, 3:-3, 3:-3] = x
    out = torch.zeros_like(x)
    for i in range(7):
        for j in range(7):
            out += kernel[:, 0, i, j][:, None, None] * padded[:, i : i + height, j : j + width]
    return out + weights[name + ".bias"][:, None, None]


def bilinear_corners(old, new):
    """Matrix (new, old): linear interpolation with the first and last points in the corners; places in float32 too."""
    matrix = torch.zeros(new, old)
    step = torch.tensor((old - 1) / (new - 1) if new > 1 else 0.0, dtype=torch.float32)
    for i in range(new):
        place = i * step
        left = min(int(place), old - 1)
        right = min(left + 1, old - 1)
        matrix[i, left] += 1 - (place - left)
        matrix[i, right] += place - left
    return matrix


def cubic_antialiased(old, new):
    """Matrix (new, old): Keys' cubic with a = -1/2, as wide as the step when shrinking; what falls off the edge is left out
    and the rest scaled up to a sum of one (plain bicubic takes a = -3/4 and repeats the edge)."""
    scale = old / new
    stretch = max(scale, 1.0)
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = (i + 0.5) * scale
        for j in range(old):
            distance = abs(j + 0.5 - centre) / stretch
            if distance < 1:
                matrix[i, j] = 1.5 * distance**3 - 2.5 * distance**2 + 1
            elif distance < 2:
                matrix[i, j] = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        matrix[i] /= matrix[i].sum()
    return matrix.float()


def resize(x, size, weights_of):
    """(channels, h, w) → (channels, *size), in float32; `weights_of(old, new)` is the matrix of one axis."""
    rows, columns = (weights_of(old, new) for old, new in zip(x.shape[1:], size, strict=True))
    return (rows @ x.float() @ columns.T).to(x.dtype)


def as_tokens(x, grid):
    """(channels, h, w) → (rows · columns, channels), enlarged or averaged as needed."""
    if x.shape[1] > grid[0] or x.shape[2] > grid[1]:
        window = x.shape[1] // grid[0], x.shape[2] // grid[1]
        x = x.reshape(x.shape[0], grid[0], window[0], grid[1], window[1]).mean((2, 4))
    elif x.shape[1:] != grid:
        x = resize(x, grid, bilinear_corners)
    return x.reshape(x.shape[0], -1).T


def slow_branch(weights, sizes, x):
    """Image (3, S, S) → (C, S/32, S/32)."""

    def over_channels(name, y):
        normed = layer_norm(y.permute(1, 2, 0), weights[name + ".weight"], weights[name + ".bias"], sizes.epsilon)
        return normed.permute(2, 0, 1)

    x = over_channels(SLOW + "stem.1", patches(weights, SLOW + "stem.0", x, 4))
    for stage, depth in enumerate(sizes.depths):
        if stage:
            down = f"{SLOW}stages.{stage}.downsample."
            x = patches(weights, down + "1", over_channels(down + "0", x), 2)
        for block in range(depth):
            name = f"{SLOW}stages.{stage}.blocks.{block}"
            y = over_channels(name + ".norm", depthwise(weights, name + ".conv_dw", x)).permute(1, 2, 0)
            y = linear(weights, name + ".mlp.fc2", gelu(linear(weights, name + ".mlp.fc1", y)))
            x = x + (y * weights[name + ".weight"]).permute(2, 0, 1)
    return x


def clip_layer(weights, sizes, layer, x):
    name = f"{FAST}encoder.layers.{layer}."

    def norm(which, y):
        return layer_norm(y, weights[f"{name}{which}.weight"], weights[f"{name}{which}.bias"], sizes.clip_epsilon)

    normed = norm("layer_norm1", x)
    query, key, value = (linear(weights, f"{name}self_attn.{part}_proj", normed) for part in "qkv")
    width = x.shape[1] // sizes.heads
    heads = []
    for head in range(sizes.heads):
        own = slice(head * width, (head + 1) * width)
        scores = query[:, own] @ key[:, own].T / math.sqrt(width)
        heads.append(torch.softmax(scores, -1) @ value[:, own])
    x = x + linear(weights, name + "self_attn.out_proj", torch.cat(heads, -1))
    return x + linear(weights, name + "mlp.fc2", quick_gelu(linear(weights, name + "mlp.fc1", norm("layer_norm2", x))))


def latent_adapter(weights, index, fast, slow, grid):
    name = f"{LATENT}{index}."
    slow = as_tokens(pointwise(weights, name + "slow_proj", gelu(pointwise(weights, name + "slow_conv", slow))), grid)
    laid = fast.T.reshape(-1, *grid)
    laid = laid + pointwise(weights, name + "fast_proj", gelu(depthwise(weights, name + "fast_conv", laid)))
    fast = laid.reshape(laid.shape[0], -1).T
    gate = linear(weights, name + "gate.2", gelu(linear(weights, name + "gate.0", torch.cat([fast, slow], -1).mean(0))))
    return fast + torch.tanh(gate) * slow


def tower(weights, sizes, image, fast_size=None, grid=None):
    """Image (3, S, S) → features (N, D). `grid`: rows and columns of tokens of a smaller image (3, h, w), which the slow
    branch sees enlarged to whole strides of 32 pixels."""
    patch = weights[FAST + "embeddings.patch_embedding.weight"].shape[-1]
    side = (fast_size or fast_image_size(image.shape[-1])) // patch
    rows, columns = grid or (side, side)
    small = resize(image, (rows * patch, columns * patch), bilinear_corners)
    fast = patches(weights, FAST + "embeddings.patch_embedding", small, patch)
    fast = fast.reshape(fast.shape[0], -1).T
    table = weights[FAST + "embeddings.position_embedding.weight"][1:]
    old = math.isqrt(len(table))
    if (old, old) != (rows, columns):
        table = resize(table.T.reshape(-1, old, old), (rows, columns), cubic_antialiased).reshape(table.shape[1], -1).T
    norm = FAST + "pre_layrnorm."
    fast = layer_norm(fast + table, weights[norm + "weight"], weights[norm + "bias"], sizes.clip_epsilon)
    if grid:
        image = resize(image, tuple(math.ceil(length / 32) * 32 for length in image.shape[1:]), bilinear_corners)
    slow = slow_branch(weights, sizes, image)
    layers = 1 + max(int(name.split(".")[7]) for name in weights if name.startswith(FAST + "encoder.layers."))
    for group in range(4):
        for layer in range(group * layers // 4, (group + 1) * layers // 4):
            fast = clip_layer(weights, sizes, layer, fast)
        if group < 3 and not sizes.frozen:
            fast = latent_adapter(weights, group, fast, slow, (rows, columns))
    slow = as_tokens(slow, (rows, columns))
    return linear(weights, FINAL + "fast_proj", fast) + linear(weights, FINAL + "slow_proj", slow)


def project(weights, features):
    """Features (N, D) → visual tokens (N, H)."""
    return linear(weights, "model.mm_projector.2", gelu(linear(weights, "model.mm_projector.0", features)))


def prompt_ids(tokenizer, text, image_id, count):
    """Token ids of a prompt: the texts between `<image>` each by itself, the later ones without their BOS."""
    ids = []
    for place, chunk in enumerate(text.split("<image>")):
        own = tokenizer(chunk).input_ids
        assert own[0] == tokenizer.bos_token_id
        ids += own if place == 0 else [image_id] * count + own[1:]
    return ids
