"""What methods see of the vision tower, and what they may change there, against the towers themselves."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from fitprune import FitPruneError, Pruner, Selection, TowerTokens, UnsupportedModel
from fitprune.interface.trace import TowerCounts
from fitprune.models.sizes import tower_sizes
from tests.support import families, llava_hr
from tests.support.models import IMAGE, batch, build, new_tokens, prompt
from tests.support.pruners import Coarse, Looking

pytestmark = pytest.mark.releases


def test_queries_and_keys_give_the_towers_own_attention():
    model = build(attention="eager")
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, ["image", 4, "image", 2], seed=1)])
    seen = {}

    def look(tokens):
        vision = tokens.vision
        seen.update(
            cls=vision.cls_attention(-2), received=vision.received_attention(1), features=vision.features, macs=tokens.macs
        )

    with torch.no_grad(), Looking(look)(model):
        model(**inputs)
    tower = model.model.vision_tower
    with torch.no_grad():
        output = tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(seen["cls"], output.attentions[0][:, :, 0, 1:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen["received"], output.attentions[1][:, :, 1:, 1:].mean((1, 2)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen["features"], output.hidden_states[-1][:, 1:], rtol=1e-5, atol=1e-6)
    # One query of [CLS] against 37 keys, and 36 queries against 37, over two heads of eight, in three images.
    assert seen["macs"] == 3 * 16 * 37 + 3 * 16 * 36 * 37


IMAGES = {"llava": 3, "llava_next": 4, "llava_hr": 4, "llava_onevision": 4}


@pytest.mark.parametrize("family", IMAGES)
def test_every_visual_token_knows_its_patch(family):
    model, inputs = _inputs(family)
    close = []

    def look(tokens):
        own = tokens.vision.of_patches(tokens.vision.project(tokens.vision.features))
        close.append((own - tokens.features).abs().max() / tokens.features.abs().max())
        assert (tokens.vision.view[tokens.present] >= 0).all()
        assert (tokens.vision.patch[~tokens.present] == -1).all()
        # The views of an image follow each other from its base view on; every image of the batch has some.
        bases, base = tokens.vision.base_view.unique_consecutive(), tokens.vision.base_view
        assert (len(bases), len(base)) == (IMAGES[family], tokens.vision.views)
        assert base[bases].tolist() == bases.tolist()
        assert (base <= torch.arange(len(base))).all()

    with torch.no_grad(), Looking(look)(model) as trace:
        model(**inputs)
        new_tokens(model, inputs, 2, num_beams=2)
    assert int(trace.visual_tokens.max()) > 0
    assert len(close) == 2
    assert max(close) < 1e-5


def _inputs(family):
    if family == "llava":
        model = build(patch=2)
        return model, batch([prompt(model, [3, "image", 5]), prompt(model, ["image", 4, 7, "image", 2], seed=1)])
    if family == "llava_hr":
        model = llava_hr.build()
        return model, batch([llava_hr.prompt(sample, seed) for seed, sample in enumerate(llava_hr.SAMPLES)])
    samples = [["w1 w2", (30, 20), "w3 w4"], ["w1", (40, 40), "w2"], ["w5"], ["w1", (20, 44), "w2", (30, 20), "w3"]]
    return families.build(family), families.inputs(families.processor(family), samples)


def test_a_smaller_picture_is_a_shorter_prompt():
    model = build()
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), Coarse()(model) as trace:
        logits = model(**inputs).logits
        tokens = new_tokens(model, inputs, 5)
    with torch.no_grad():
        small = Coarse().before_tower(inputs["pixel_values"])
        features = model.model.vision_tower(small, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-1]
        embeds = _with_features(model, inputs, model.model.multi_modal_projector(features[:, 1:])[0])
        expected = model(inputs_embeds=embeds).logits
        continued = model.generate(inputs_embeds=embeds, max_new_tokens=5, do_sample=False)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert tokens[0].tolist() == continued[0].tolist()
    assert trace.visual_in[0].tolist() == [12]
    # The middles of three rows and four columns of patches, in a grid of six by six.
    assert trace.kept[0].tolist() == [[6 * row + column for row in (1, 3, 5) for column in (0, 2, 3, 5)]]
    assert (trace.tower.pixels, trace.tower.attended, trace.tower.fed, trace.tower.projected) == (
        (12, 16),
        [13] * 2,
        [13] * 2,
        12,
    )


def _with_features(model, inputs, features):
    """The prompt's embeddings, with other features in place of its image tokens."""
    ids = inputs["input_ids"][0]
    text = model.get_input_embeddings()(ids)
    first, last = (ids == IMAGE).nonzero()[[0, -1], 0].tolist()
    return torch.cat([text[:first], features, text[last + 1 :]])[None]


@dataclass
class Halving(Pruner):
    """After the first tower layer, each patch of an even number takes the odd one after it."""

    name: ClassVar[str] = "halving"
    positions: str = "repacked"

    def after_tower_attention(self, layer, tower):
        if layer:
            return None
        first, second = tower.hidden[:, 1::2], tower.hidden[:, 2::2]
        merged = TowerTokens(
            torch.cat([tower.hidden[:, :1], (first + second) / 2], 1),
            None,
            torch.cat([tower.size[:, :1], tower.size[:, 1::2] + tower.size[:, 2::2]], 1),
            torch.cat([tower.patch_index[:, :1], tower.patch_index[:, 1::2]], 1),
        )
        assert tower.key.shape == (len(tower.hidden), 2, 37, 8)
        merged.spend(100)
        return merged


def test_tokens_merged_in_the_tower():
    model = build(attention="eager")
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), Halving()(model) as trace:
        logits = model(**inputs).logits
    with torch.no_grad():
        tower = model.model.vision_tower
        hidden = tower.pre_layrnorm(tower.embeddings(inputs["pixel_values"]))
        one, two = tower.encoder.layers
        hidden = hidden + one.self_attn(one.layer_norm1(hidden))[0]
        hidden = torch.cat([hidden[:, :1], (hidden[:, 1::2] + hidden[:, 2::2]) / 2], 1)
        hidden = hidden + one.mlp(one.layer_norm2(hidden))
        # Attention to a token that stands for two patches counts twice.
        normed = two.layer_norm1(hidden)
        own = two.self_attn
        query, key, value = (part(normed).view(1, 19, 2, 8).transpose(1, 2) for part in (own.q_proj, own.k_proj, own.v_proj))
        weights = (query @ key.transpose(2, 3) / 8**0.5).exp() * torch.tensor([1.0] + [2.0] * 18)
        mixed = (weights / weights.sum(-1, keepdim=True)) @ value
        hidden = hidden + own.out_proj(mixed.transpose(1, 2).reshape(1, 19, 16))
        hidden = hidden + two.mlp(two.layer_norm2(hidden))
        expected = model(
            inputs_embeds=_with_features(model, inputs, model.model.multi_modal_projector(hidden[:, 1:])[0])
        ).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert trace.kept[0].tolist() == [list(range(0, 36, 2))]
    assert trace.tower == TowerCounts(1, (24, 24), [37, 19], [19, 19], 18)
    assert trace.scoring_macs == [100, 0, 0]


def test_the_model_is_as_it_was_afterwards():
    model = build()
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad():
        before = model(**inputs).logits
        with Halving()(model):
            model(**inputs)
        assert torch.equal(model(**inputs).logits, before)
    assert [type(module).__name__ for module in model.modules() if "forward" in vars(module)] == []
    tower = model.model.vision_tower.encoder.layers[0].self_attn
    assert not tower.k_proj._forward_hooks
    assert not model.model.multi_modal_projector._forward_hooks


def test_images_encoded_elsewhere_are_refused():
    model = build()
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad():
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        with Halving()(model), pytest.raises(UnsupportedModel, match="pixel_values"):
            model(inputs_embeds=embeds)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "gemma3"])
def test_towers_of_another_form_are_refused(family):
    with pytest.raises(UnsupportedModel, match="CLIP or SigLIP"), Looking(print)(families.build(family)):
        pass


def test_merging_between_layers_that_mix_a_grid_is_refused():
    with pytest.raises(UnsupportedModel, match="grid"), Halving()(llava_hr.build()):
        pass


def test_tower_sizes():
    sizes = tower_sizes(build().config)
    assert (sizes.width, sizes.layers, sizes.heads, sizes.patches, sizes.tokens, sizes.feature_layer) == (16, 2, 2, 36, 37, 1)
    assert sizes.projector == 16 * 32 + 32 * 32


@dataclass
class Chosen(Pruner):
    """Before `layer`, the tokens of `index` go on in this order, as `hidden` where it is given."""

    name: ClassVar[str] = "chosen"
    layer: int = 0
    index: object = None
    hidden: object = None
    made: object = None

    def before_layer(self, layer, tokens):
        if layer == self.layer:
            return Selection(self.index, self.hidden, self.made)


def test_selected_before_the_decoder_and_repacked_is_a_prompt_of_these_embeddings():
    model = build()
    inputs = prompt(model, [3, "image", 5])
    index, hidden = torch.tensor([[30, 2, 17, 9]]), torch.randn(1, 4, 32)
    pruner = Chosen(0, index, hidden, torch.tensor([[False, False, True, False]]), positions="repacked")
    with torch.no_grad(), pruner(model) as trace:
        logits = model(**inputs).logits
        tokens = new_tokens(model, inputs, 5)
    with torch.no_grad():
        embeds = _with_features(model, inputs, hidden[0])
        expected = model(inputs_embeds=embeds).logits
        continued = model.generate(inputs_embeds=embeds, max_new_tokens=5, do_sample=False)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert tokens[0].tolist() == continued[0].tolist()
    assert trace.kept[0].tolist() == [[2, 9, 30]]
    assert trace.visual_in[0].tolist() == [4]


def test_selections_in_a_batch_are_those_of_each_sample():
    model = build(layers=4)
    samples = [prompt(model, [3, "image", 5]), prompt(model, ["image", 4, 7, "image", 2], seed=1)]
    index = torch.tensor([[30, 2, 17, -1, -1], [40, 71, 0, 9, 3]])
    hidden = torch.randn(2, 5, 32)
    for layer in (0, 2):
        for positions in ("kept", "repacked"):
            together = Chosen(layer, index, hidden, positions=positions)
            with torch.no_grad(), together(model) as trace:
                tokens = new_tokens(model, batch(samples), 5).tolist()
            for row, sample in enumerate(samples):
                count = int((index[row] >= 0).sum())
                alone = Chosen(layer, index[row : row + 1, :count], hidden[row : row + 1, :count], positions=positions)
                with torch.no_grad(), alone(model) as single:
                    assert new_tokens(model, sample, 5)[0].tolist() == tokens[row]
                assert trace.kept[-1][row, :count].tolist() == single.kept[-1][0].tolist()


def test_a_selection_that_names_a_place_twice_is_refused():
    model = build()
    with torch.no_grad(), Chosen(0, torch.tensor([[3, 3]]))(model), pytest.raises(FitPruneError, match="twice"):
        model(**prompt(model, [3, "image", 5]))


@dataclass
class Ahead(Pruner):
    """Compares the attention of a layer's last row, computed ahead of it, with that of the layer."""

    name: ClassVar[str] = "ahead"

    def observed_layers(self, layers):
        return range(layers)

    def before_layer(self, layer, tokens):
        tokens.memory["ahead"] = tokens.upcoming().last_token_mean(tokens)
        self.macs = tokens.macs

    def after_attention(self, layer, tokens, attention):
        torch.testing.assert_close(attention.last_token_mean(tokens), tokens.memory["ahead"], rtol=1e-5, atol=1e-7)
        rows = tokens.text_after
        blocks = attention.head_max_columns(tokens, torch.eye(rows.shape[1]).expand(len(rows), -1, -1))
        assert (attention.row_mean(tokens, rows) <= blocks.amax(1) + 1e-6).all()


@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "mistral", "qwen2"])
def test_attention_computed_ahead_is_the_layers_own(kind):
    model = build(kind)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, ["image", 4], seed=1)])
    pruner = Ahead()
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    attention = model.model.language_model.layers[0].self_attn
    real = int(inputs["attention_mask"].sum())
    assert pruner.macs == 32 * (real * attention.k_proj.out_features + 2 * attention.q_proj.out_features)
    assert all(macs > pruner.macs for macs in trace.scoring_macs)
