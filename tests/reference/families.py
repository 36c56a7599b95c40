"""What differs from LLaVA-1.5 in other families: newline tokens among the patches, positions on three axes, DeepStack."""

import math

import torch

from .decoder import KINDS, Reference


def grid(size, pinpoints, tile, side):
    """Rows and columns of patches left of an image (height, width) that is fitted into the best of the pinpoints.

    Best: the most of the image's own pixels, then the least empty area; the fitted image lies in its middle. `side` is the
    number of patches along a tile.
    """
    height, width = size

    def worth(pinpoint):
        scale = min(pinpoint[0] / height, pinpoint[1] / width)
        pixels = min(int(height * scale) * int(width * scale), height * width)
        return pixels, pixels - pinpoint[0] * pinpoint[1]

    best = max(pinpoints, key=worth)
    rows, columns = best[0] // tile * side, best[1] // tile * side
    if width / height > columns / rows:
        rows -= 2 * ((rows - int(round(height * (columns / width), 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(width * (rows / height), 7))) // 2)
    return rows, columns


class Tiled(Reference):
    """LLaVA-NeXT: the whole image in one tile, then its rows of patches, each followed by a newline token."""

    def visual(self, inputs, image):
        layout = [is_patch for size in self.sizes(inputs) for is_patch in self.layout(size, len(self.sizes(inputs)))]
        assert len(layout) == sum(image)
        layout = iter(layout)
        return [is_image and next(layout) for is_image in image]

    def sizes(self, inputs):
        return inputs["image_sizes"].tolist() if "image_sizes" in inputs else []

    def layout(self, size, images):
        """Per token of one image, whether it is a patch."""
        tower = self.model.config.vision_config
        side = tower.image_size // tower.patch_size
        rows, columns = self.grid(size, tower.image_size, side)
        return [True] * side**2 + ([True] * columns + [False]) * rows

    def grid(self, size, tile, side):
        return grid(size, self.model.config.image_grid_pinpoints, tile, side)


class TiledUpToNine(Tiled):
    """LLaVA-OneVision: what is more than nine tiles is scaled down to them; several images get no tiles."""

    def layout(self, size, images):
        if images == 1:
            return super().layout(size, images)
        tower = self.model.config.vision_config
        return [True] * (tower.image_size // tower.patch_size) ** 2 + [False]

    def grid(self, size, tile, side):
        rows, columns = super().grid(size, tile, side)
        ratio = math.sqrt(rows * columns / (9 * side**2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)

    def visual(self, inputs, image):
        """A video's frames have half the rows and columns each, rounded up, and all of them one newline token."""
        tower = self.model.config.vision_config
        images = super().visual(inputs, [kind == "image" for kind in self.kinds(inputs)])
        pixels, side = inputs.get("pixel_values_videos", ()), math.ceil(tower.image_size // tower.patch_size / 2)
        videos = iter([is_patch for video in pixels for is_patch in [True] * len(video) * side**2 + [False]])
        visual = [next(videos) if kind == "video" else own for kind, own in zip(self.kinds(inputs), images, strict=True)]
        assert next(videos, None) is None
        return visual


class ThreeAxes(Reference):
    """Qwen2.5-VL: positions (time, row, column); the axes share the frequencies in sections.

    Text moves on along all axes. An image starts where the text has come to, spreads along rows and columns from there, and
    text goes on after the longer of the two. A video does the same, its frames as far apart in time as the seconds between
    them say; what is decoded follows the largest position of all.
    """

    def axis(self, position, frequency):
        if isinstance(position, int):
            return position
        ends = self.config.rope_parameters["mrope_section"]
        return position[0 if frequency < ends[0] else 1 if frequency < ends[0] + ends[1] else 2]

    def positions(self, inputs, length):
        merge = self.model.config.vision_config.spatial_merge_size
        grids = {"image": iter(inputs.get("image_grid_thw", ())), "video": iter(self.runs(inputs))}
        kinds, positions, start = self.kinds(inputs), [], 0
        while len(positions) < length:
            if kind := kinds[len(positions)]:
                grid = next(grids[kind])
                (times, height, width), apart = grid if kind == "video" else (grid.tolist(), 0)
                rows, columns = height // merge, width // merge
                positions += [
                    (start + int(time * apart), start + row, start + column)
                    for time in range(times)
                    for row in range(rows)
                    for column in range(columns)
                ]
                start += max(rows, columns)
            else:
                positions.append((start, start, start))
                start += 1
        return positions, max(map(max, positions)) + 1

    def runs(self, inputs):
        """The grid of each video, and how far apart its frames are in time."""
        seconds = [float(second) for second in inputs.get("second_per_grid_ts", ())]
        rate = self.model.config.vision_config.tokens_per_second
        return [(grid.tolist(), rate * own) for grid, own in zip(inputs.get("video_grid_thw", ()), seconds, strict=True)]


class Interleaved(ThreeAxes):
    """Qwen3-VL: the axes share the frequencies in turns, and features of inner tower layers join the first decoder layers.

    The frames of a video stand apart, with their time in words before each.
    """

    def runs(self, inputs):
        return [((1, *grid[1:].tolist()), 0) for grid in inputs.get("video_grid_thw", ()) for _ in range(grid[0])]

    def axis(self, position, frequency):
        if isinstance(position, int):
            return position
        ends = self.config.rope_parameters["mrope_section"]
        turn = frequency % 3
        return position[turn if turn and frequency < 3 * ends[turn] else 0]

    def embed(self, inputs):
        x, image = super().embed(inputs)
        kinds = [kind for kind in self.kinds(inputs) if kind]
        levels = {kind: self.encoded(inputs, kind).deepstack_features for kind in set(kinds)}
        self.deep = []
        for level in zip(*levels.values(), strict=True):
            rows = {kind: iter(torch.cat(list(own)).to(self.dtype)) for kind, own in zip(levels, level, strict=True)}
            self.deep.append(torch.stack([next(rows[kind]) for kind in kinds]))
        return x, image

    def deepen(self, x, layer, names):
        if layer >= len(self.deep):
            return x
        return torch.stack([row if name is None else row + self.deep[layer][name] for row, name in zip(x, names, strict=True)])


class BothWays(Reference):
    """Gemma 3: scaled embeddings, norms around both halves of a layer, other frequencies in windows, images seen both ways."""

    def __init__(self, model, dtype=torch.float64):
        super().__init__(model, dtype)
        for name, weight in self.weights.items():
            if "norm" in name:
                self.weights[name] = weight + 1
        self.weights["embed_tokens.weight"] = self.weights["embed_tokens.weight"] * self.config.hidden_size**0.5
        self.scaling = self.config.query_pre_attn_scalar**-0.5

    def visual(self, inputs, image):
        """Notes which image each visual token is of: they are told apart by the text between them."""
        self.image_of = []
        for place, is_image in enumerate(image):
            if is_image:
                follows = place > 0 and image[place - 1]
                self.image_of.append(self.image_of[-1] if follows else len(self.image_of))
        return image

    def theta(self, layer):
        return self.config.rope_parameters[self.config.layer_types[layer]]["rope_theta"]

    def sees(self, row, key, names):
        if names is None or names[row] is None or names[key] is None:
            return False
        return self.image_of[names[row]] == self.image_of[names[key]]

    def project(self, output, layer):
        return self.norm(super().project(output, layer), f"layers.{layer}.post_attention_layernorm")

    def feed_forward(self, x, layer):
        block = f"layers.{layer}."
        y = self.norm(x, block + "pre_feedforward_layernorm")
        gate = torch.nn.functional.gelu(self.linear(y, block + "mlp.gate_proj"), approximate="tanh")
        y = self.linear(gate * self.linear(y, block + "mlp.up_proj"), block + "mlp.down_proj")
        return x + self.norm(y, block + "post_feedforward_layernorm")


KINDS |= {"gemma3": BothWays}
KINDS |= {"llava_next": Tiled, "llava_onevision": TiledUpToNine, "qwen2_5_vl": ThreeAxes, "qwen3_vl": Interleaved}
