"""The two-branch tower and the projector against the facts written out, on weights in the authors' names."""

import dataclasses
import json
import math

import pytest
import torch
from torch.nn import functional

from fitprune.errors import FitPruneError
from harness.models.llava_hr import LlavaHrConfig, LlavaHrForConditionalGeneration
from harness.models.llava_hr.adapters import to_tokens
from harness.models.llava_hr.authors_config import read_config
from harness.models.llava_hr.names import is_ignored, to_ours
from tests.reference import llava_hr as reference
from tests.support.tiny_llava_hr import CLIP, CONFIG, CONVNEXT, SIZES, weights

pytestmark = pytest.mark.releases

# Both compute in float64, but for interpolations in float32 (2e-7 of the pixels), which the layers enlarge.
TOLERANCE = {"rtol": 1e-5, "atol": 5e-5}


def build(tmp_path, tensors, *, clip=None, epsilon=None, fast_image_size=None, **config):
    """Our model with the authors' tensors, in float64."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    convnext = CONVNEXT if epsilon is None else {**CONVNEXT, "layer_norm_eps": epsilon}
    made = read_config(tmp_path, clip or CLIP, convnext)
    if fast_image_size:
        made.vision_config.fast_image_size = fast_image_size
    made.text_config.vocab_size = CONFIG["vocab_size"]
    model = LlavaHrForConditionalGeneration(made).double().eval()
    model.load_state_dict({to_ours(name): value for name, value in tensors.items() if not is_ignored(name)})
    return model


def image(side, seed=3):
    return torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(model, tensors, sizes, side, fast_size=None, tokens=576):
    """Two images in a batch, each against the reference by itself."""
    tensors = {name: value.double() for name, value in tensors.items()}
    pictures = torch.stack([image(side, 1), image(side, 2)])
    with torch.no_grad():
        found = model.get_image_features(pictures)
    assert found.pooler_output.shape == (2, tokens, CONFIG["hidden_size"])
    for row, picture in enumerate(pictures):
        expected = reference.tower(tensors, sizes, picture, fast_size)
        assert expected.std() > 0.1
        torch.testing.assert_close(found.last_hidden_state[row], expected, **TOLERANCE)
        torch.testing.assert_close(found.pooler_output[row], reference.project(tensors, expected), **TOLERANCE)


def test_the_tower_with_slow_features_enlarged_and_positions_resampled(tmp_path):
    tensors = weights()
    compare(build(tmp_path, tensors), tensors, SIZES, 64)


def test_a_tower_whose_branches_give_equally_many_tokens(tmp_path):
    """As in the published sizes: 24 × 24 features and tokens at 768 pixels."""
    tensors = weights(seed=1)
    compare(build(tmp_path, tensors, input_image_size=768), tensors, SIZES, 768)


def test_slow_features_are_averaged_where_they_are_more(tmp_path):
    tensors = weights(seed=2)
    model = build(tmp_path, tensors, input_image_size=256, fast_image_size=56)
    compare(model, tensors, SIZES, 256, 56, tokens=16)


def test_positions_are_taken_as_they_are_where_their_number_fits(tmp_path):
    tensors = weights(seed=3)
    model = build(tmp_path, tensors, fast_image_size=56)
    table = model.model.vision_tower.fast.positions((4, 4), "cpu")
    assert torch.equal(table, tensors[reference.FAST + "embeddings.position_embedding.weight"][1:].double())
    compare(model, tensors, SIZES, 64, 56, tokens=16)


def test_positions_are_resampled_downwards_too(tmp_path):
    tensors = weights(seed=4)
    compare(build(tmp_path, tensors, fast_image_size=28), tensors, SIZES, 64, 28, tokens=4)


def test_the_antialiased_filter_is_not_the_plain_one(tmp_path):
    """The reference tells them apart, also when the table grows."""
    tensors = weights()
    model = build(tmp_path, tensors)
    found = model.model.vision_tower.fast.positions((24, 24), "cpu").detach()
    grid = tensors[reference.FAST + "embeddings.position_embedding.weight"][1:].T.reshape(1, -1, 4, 4)
    plain = torch.nn.functional.interpolate(grid, size=(24, 24), mode="bicubic", align_corners=False)
    assert float((found - plain.flatten(2)[0].T).abs().max()) > 0.1


def test_frozen_towers_have_no_latent_adapters(tmp_path):
    tensors = weights(frozen=True, seed=5)
    model = build(tmp_path, tensors, freeze_vision=True)
    assert len(model.model.vision_tower.adapters) == 0
    compare(model, tensors, dataclasses.replace(SIZES, frozen=True), 64)


@pytest.mark.parametrize("layers", [8])
def test_four_groups_of_several_layers(tmp_path, layers):
    tensors = weights(seed=6)
    for name in list(tensors):
        if name.startswith(reference.FAST + "encoder.layers."):
            head, number, tail = name.partition("layers.")[0], name.split(".")[7], name.split(".", 8)[8]
            tensors[f"{head}layers.{int(number) + 4}.{tail}"] = tensors[name].flip(0) if "norm" not in name else tensors[name]
    compare(build(tmp_path, tensors, clip={**CLIP, "num_hidden_layers": layers}), tensors, SIZES, 64)


def test_the_epsilon_of_the_larger_convnext_counts(tmp_path):
    tensors = weights(seed=7)
    tensors[reference.SLOW + "stem.0.weight"] *= 1e-3  # features so small that epsilon decides
    tensors[reference.SLOW + "stem.0.bias"] *= 1e-3
    model = build(tmp_path, tensors, epsilon=1e-5, vision_tower_slow="convnext_xxlarge.clip_laion2b_soup")
    compare(model, tensors, dataclasses.replace(SIZES, epsilon=1e-5), 64)
    picture = image(64, 1)
    other = reference.tower({name: value.double() for name, value in tensors.items()}, SIZES, picture)
    with torch.no_grad():
        assert float((model.model.vision_tower(picture[None])[0] - other).abs().max()) > 1e-3


def test_the_class_token_is_never_read(tmp_path):
    tensors = weights(seed=8)
    model, picture = build(tmp_path, tensors), image(64)[None]
    with torch.no_grad():
        before = model.model.vision_tower(picture)
        model.model.vision_tower.fast.embeddings.class_embedding.fill_(7.0)
        model.model.vision_tower.fast.embeddings.position_embedding.weight[0] = 7.0
        assert torch.equal(model.model.vision_tower(picture), before)


def test_bfloat16_stays_near_float64(tmp_path):
    tensors = weights(seed=9)
    model, picture = build(tmp_path, tensors), image(64)[None]
    with torch.no_grad():
        exact = model.model.vision_tower(picture)
        rounded = model.bfloat16().model.vision_tower(picture.float())
    assert rounded.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rounded.double().flatten(), exact.flatten(), 0) > 0.999


# Of 256 pixels and 4×4 tokens, 64 pixels a token; of 64 pixels and 24×24 tokens, below three. Slow features are
# averaged in the first, enlarged in the second, after pictures of no whole strides (24 × 61) were.
SMALLER = [
    (256, 56, (128, 192), (2, 3)),
    (256, 56, (256, 64), (4, 1)),
    (64, 336, (24, 61), (9, 23)),
    (64, 336, (64, 3), (24, 1)),
]


@pytest.mark.parametrize(("side", "fast_size", "size", "grid"), SMALLER)
def test_smaller_pictures_of_any_aspect(tmp_path, side, fast_size, size, grid):
    tensors = weights(seed=10)
    model = build(tmp_path, tensors, input_image_size=side, fast_image_size=fast_size)
    picture = image(side)[:, : size[0], : size[1]]
    expected = reference.tower({name: value.double() for name, value in tensors.items()}, SIZES, picture, grid=grid)
    assert model.config.vision_config.grid(*size) == grid
    with torch.no_grad():
        found = model.model.vision_tower(picture[None])[0]
    assert found.shape == (grid[0] * grid[1], 16)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def at_the_full_size(tower, pictures):
    """The tower's forward for square pictures alone, by side lengths, with the operations that the authors use."""
    small = functional.interpolate(
        pictures.float(), size=(tower.config.fast_image_size,) * 2, mode="bilinear", align_corners=True
    )
    fast = tower.fast.embeddings.patch_embedding(small.to(pictures.dtype)).flatten(2).transpose(1, 2)
    table = tower.fast.embeddings.position_embedding.weight[1:]
    old, new = math.isqrt(len(table)), math.isqrt(fast.shape[1])
    if old != new:
        square = table.float().T.reshape(1, -1, old, old)
        square = functional.interpolate(square, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
        table = square.flatten(2)[0].T.to(table.dtype)
    fast = tower.fast.pre_layrnorm(fast + table)
    slow = tower.slow(pictures)

    def tokens(features):
        if features.shape[-1] < new:
            large = functional.interpolate(features.float(), size=(new, new), mode="bilinear", align_corners=True)
            features = large.to(features.dtype)
        elif features.shape[-1] > new:
            features = functional.avg_pool2d(features, features.shape[-1] // new)
        return features.flatten(2).transpose(1, 2)

    for group, layer in enumerate(tower.fast.encoder.layers):
        fast = layer(fast, attention_mask=None)
        if group < 3:
            adapter = tower.adapters[group]
            mixed = tokens(adapter.slow_proj(functional.gelu(adapter.slow_conv(slow))))
            square = fast.transpose(1, 2).unflatten(2, (new, new))
            square = square + adapter.fast_proj(functional.gelu(adapter.fast_conv(square)))
            fast = square.flatten(2).transpose(1, 2)
            fast = fast + adapter.gate(torch.cat([fast, mixed], -1).mean(1)).tanh().unsqueeze(1) * mixed
    return tower.alignment.fast_proj(fast) + tower.alignment.slow_proj(tokens(slow))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("side", "fast_size"), [(64, 336), (64, 56), (64, 28), (256, 56)])
def test_the_full_size_is_computed_to_the_bit_as_by_side_lengths_alone(tmp_path, side, fast_size, dtype):
    """What smaller pictures are encoded by takes nothing from the authors' arithmetic."""
    tower = build(tmp_path, weights(seed=11), input_image_size=side, fast_image_size=fast_size).to(dtype).model.vision_tower
    pictures = torch.stack([image(side, 1), image(side, 2)]).to(dtype)
    with torch.no_grad():
        assert torch.equal(tower(pictures), at_the_full_size(tower, pictures))


def test_images_of_another_size_are_refused(tmp_path):
    model = build(tmp_path, weights())
    with pytest.raises(FitPruneError, match=r"pixel_values are \(1, 3, 96, 96\), the tower takes \(images, 3, 64, 64\)"):
        model.get_image_features(image(96)[None])


def test_features_that_no_equal_windows_average_are_refused():
    with pytest.raises(FitPruneError, match="6×6 features cannot be averaged to 4×4 tokens"):
        to_tokens(torch.zeros(1, 2, 6, 6), (4, 4))


def test_layers_that_do_not_make_four_groups_are_refused():
    with pytest.raises(FitPruneError, match="the CLIP branch has 6 layers"):
        LlavaHrConfig(vision_config={"clip_config": {"num_hidden_layers": 6}})


def test_the_default_sizes_are_those_of_the_7b(tmp_path):
    vision = LlavaHrConfig().vision_config
    assert (vision.image_size, vision.fast_image_size, vision.image_tokens) == (1024, 448, 1024)
    assert vision.convnext_config.depths == [3, 3, 27, 3]
    assert reference.fast_image_size(1024) == 448


def test_a_new_model_starts_with_the_layer_scale_that_its_configuration_says():
    vision = {"clip_config": CLIP | {"patch_size": 14}, "convnext_config": CONVNEXT | {"layer_scale_init_value": 0.3}}
    text = {"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlavaHrConfig(vision_config=vision | {"image_size": 64}, text_config=text | {"num_attention_heads": 2})
    tower = LlavaHrForConditionalGeneration(config).eval().model.vision_tower
    assert torch.equal(tower.slow.stages[0].blocks[0].weight, torch.full((4,), 0.3))
