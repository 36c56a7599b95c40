"""LLaVA-HR as a transformers model: generation, saving and loading, and pruning like any other."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, DynamicCache

from baselines.between_layers.fastv import FastV
from fitprune import FitPrune, FitPruneError, Recipe, fit
from fitprune.models.parts import model_parts
from harness.models.llava_hr import LlavaHrConfig, LlavaHrForConditionalGeneration, LlavaHrModel, convert_checkpoint
from harness.models.loading import load_model
from tests.reference.decoder import fitprune
from tests.reference.llava_hr import prompt_ids
from tests.support.llava_hr import DECODERS, IMAGE, SAMPLES, SIDE, TOKENS, build, prompt
from tests.support.models import batch, kept, new_tokens
from tests.support.releases import image_features_of, with_cache
from tests.support.tiny_llava_hr import CLIP, CONVNEXT, VOCABULARY, picture, save, weights

pytestmark = pytest.mark.releases
DROP = [9, 0, 12]


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def samples():
    return [prompt(parts, seed) for seed, parts in enumerate(SAMPLES)]


def test_its_parts_are_where_a_pruner_looks(model):
    parts = model_parts(model)
    assert parts.decoder is model.get_decoder() is model.model.language_model
    assert parts.layers is model.model.language_model.layers
    assert (parts.parent, parts.tower) == (model.model, model.model.vision_tower)
    assert parts.image_token_id == IMAGE


def test_images_matter_and_stand_where_their_tokens_are(model, samples):
    features = model.get_image_features(samples[2]["pixel_values"]).pooler_output
    assert features.shape == (2, TOKENS, 32)
    embeds = model.get_input_embeddings()(samples[2]["input_ids"])
    embeds[0, 6 : 6 + TOKENS], embeds[0, 7 + TOKENS : 7 + 2 * TOKENS] = features
    with torch.no_grad():
        expected = model(inputs_embeds=embeds).logits
        assert torch.equal(model(**samples[2]).logits, expected)
        swapped = {**samples[2], "pixel_values": samples[2]["pixel_values"].flip(0)}
        assert float((model(**swapped).logits - expected).abs().max()) > 0.1


def test_a_prompt_may_be_given_as_embeddings_with_its_images(model, samples):
    embeds = model.get_input_embeddings()(samples[0]["input_ids"])
    with torch.no_grad():
        found = model(inputs_embeds=embeds, pixel_values=samples[0]["pixel_values"]).logits
        assert torch.equal(found, model(**samples[0]).logits)


@pytest.mark.parametrize("parts", [["image", 3], [4], ["image", "image", 2]])
def test_image_tokens_and_images_that_differ_in_number_are_refused(model, parts):
    wrong = {**prompt(parts), "pixel_values": torch.randn(3, 3, SIDE, SIDE)}
    tokens = TOKENS * parts.count("image")
    with pytest.raises(FitPruneError, match=f"the prompt has {tokens} image tokens, its 3 images have 108 features"):
        model(**wrong)


def test_ids_and_embeddings_together_or_neither_are_refused(model, samples):
    with pytest.raises(FitPruneError, match="either input_ids or inputs_embeds"):
        model(pixel_values=samples[0]["pixel_values"])
    with pytest.raises(FitPruneError, match="either input_ids or inputs_embeds"):
        model(**samples[0], inputs_embeds=torch.zeros(1, 1, 32))


@pytest.mark.parametrize(
    "of_llava",
    [{"image_sizes": torch.tensor([[96, 96]])}, {"vision_feature_layer": -3}, {"vision_feature_select_strategy": "full"}],
)
def test_what_lets_llava_read_its_tower_elsewhere_is_refused(model, samples, of_llava):
    with pytest.raises(FitPruneError, match=f"leave out .*{next(iter(of_llava))}"):
        model(**samples[0], **of_llava)


def test_generation_is_a_forward_per_token(model, samples):
    """Greedy tokens with the cache, against forwards over the whole prompt; a batch with padding on the left."""
    tokens = new_tokens(model, batch(samples)).tolist()
    embed = model.get_input_embeddings()
    for row, sample in enumerate(samples):
        expected = []
        with torch.no_grad():
            embeds = embed(sample["input_ids"])
            embeds[sample["input_ids"] == IMAGE] = model.get_image_features(sample["pixel_values"]).pooler_output.flatten(0, 1)
            for _ in range(6):
                token = model(inputs_embeds=embeds, use_cache=False).logits[:, -1:].argmax(-1)
                expected.append(int(token))
                embeds = torch.cat([embeds, embed(token)], 1)
        assert tokens[row] == expected


def test_beams_keep_the_images_of_a_sample_together(model, samples):
    together = new_tokens(model, batch(samples), num_beams=3)
    for row, sample in enumerate(samples):
        assert torch.equal(new_tokens(model, sample, num_beams=3), together[row : row + 1])


def test_logits_and_loss(model, samples):
    with torch.no_grad():
        whole = model(**samples[0], labels=samples[0]["input_ids"])
        last = model(**samples[0], logits_to_keep=1)
    expected = torch.nn.functional.cross_entropy(whole.logits[0, :-1], samples[0]["input_ids"][0, 1:])
    torch.testing.assert_close(whole.loss, expected)
    torch.testing.assert_close(last.logits, whole.logits[:, -1:])
    assert image_features_of(whole).shape == (1, TOKENS, 32)


def test_every_parameter_but_the_class_token_learns(samples):
    model = build()
    model(**samples[0], labels=samples[0]["input_ids"]).loss.backward()
    idle = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert idle == {"model.vision_tower.fast.embeddings.class_embedding"}


@pytest.mark.parametrize("frozen", [False, True])
def test_what_was_saved_is_loaded(tmp_path, samples, frozen):
    model = build(frozen=frozen)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is LlavaHrForConditionalGeneration
    assert not any(info.values())
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is LlavaHrConfig
    assert config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()
    assert (config.image_seq_length, config.vision_config.freeze_vision) == (TOKENS, frozen)
    assert type(AutoModel.from_pretrained(tmp_path)) is LlavaHrModel
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(**samples[0]).logits, model(**samples[0]).logits)


@pytest.mark.parametrize("away", ["model.vision_tower", "model.language_model"])
def test_parts_may_be_offloaded(tmp_path, samples, away):
    model = build()
    model.save_pretrained(tmp_path / "model")
    places = {
        "model.vision_tower": "cpu",
        "model.multi_modal_projector": "cpu",
        "model.language_model": "cpu",
        "lm_head": "cpu",
    }
    loaded = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "model", device_map=places | {away: "disk"}, offload_folder=tmp_path / "disk"
    )
    assert {value.device.type for value in loaded.get_submodule(away).parameters()} == {"meta"}
    with torch.no_grad():
        # Products of weights that lie elsewhere in memory may differ in the last digit.
        torch.testing.assert_close(loaded(**samples[0]).logits, model(**samples[0]).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_can_be_chosen_before_and_after(samples, attention, caplog):
    model, other = build(attention=attention), build(attention="eager")
    tower = model.model.vision_tower.fast.encoder.layers[0].self_attn.config
    assert tower._attn_implementation == model.get_decoder().config._attn_implementation == attention
    other.set_attn_implementation(attention)
    assert not caplog.records
    with torch.no_grad():
        assert torch.equal(model(**samples[0]).logits, other(**samples[0]).logits)


def test_bfloat16_runs_and_stays_near(samples):
    model = build()
    with torch.no_grad():
        exact = model(**samples[0]).logits
        rounded = model.bfloat16()(**samples[0]).logits
        new = new_tokens(model, batch(samples))
    assert rounded.dtype == torch.bfloat16
    assert new.shape == (3, 6)
    assert torch.nn.functional.cosine_similarity(rounded.float().flatten(), exact.flatten(), 0) > 0.98


def test_pruned_in_a_batch_as_alone_and_as_the_reference(model, samples):
    """About half of the visual tokens' cost; three samples padded on the left, one of them with two images."""
    recipe = Recipe(DROP, TOKENS)
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        logits = model(**batch(samples)).logits
        tokens = new_tokens(model, batch(samples)).tolist()
    assert trace.visual_tokens.tolist() == [TOKENS, TOKENS, 2 * TOKENS]
    for row, sample in enumerate(samples):
        with torch.no_grad(), FitPrune(recipe)(model) as alone:
            own_logits = model(**sample).logits[0, -1]
            own = new_tokens(model, sample)[0].tolist()
        assert kept(trace, row) == kept(alone)
        assert tokens[row] == own
        assert float((logits[row, -1] - own_logits).abs().max()) < 1e-4
    for row, sample in enumerate(samples[:2]):
        expected = fitprune(model, sample, DROP, 6)
        assert expected.closest > 1e-4
        assert kept(trace, row) == expected.kept
        assert tokens[row] == expected.tokens
    with torch.no_grad():
        assert new_tokens(model, batch(samples)).tolist() != tokens


def test_pruning_with_a_cache_of_ones_own(model, samples):
    with torch.no_grad(), FitPrune(Recipe(DROP, TOKENS))(model):
        cache = DynamicCache(config=model.config.text_config)
        model(**samples[0], **with_cache(model, cache))
    assert [cache.get_seq_length(layer) for layer in range(3)] == [44, 35, 35]


def test_a_recipe_is_fitted_and_a_budget_solved(samples):
    model = build()
    recipe = fit(model, [batch(samples[:2])], reduction=0.5)
    assert recipe.visual_tokens == TOKENS
    assert recipe.reduction == pytest.approx(0.5, abs=0.03)
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        model(**samples[0])
    assert len(kept(trace)[-1]) == TOKENS - sum(recipe.drop)
    with torch.no_grad(), FastV.for_reduction(model.config, 0.25)(model) as trace:
        model(**samples[0])
    assert 0 < len(kept(trace)[-1]) < TOKENS


def test_a_converted_folder_answers_by_its_path(tmp_path):
    """From the authors' layout to pruned answers, through the harness's own loading."""
    source = save(tmp_path / "source", weights())
    target = convert_checkpoint(source, tmp_path / "target", clip_config=CLIP, convnext_config=CONVNEXT)
    loaded = load_model(str(target), device="cpu")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    text = loaded.processor.apply_chat_template(question, add_generation_prompt=True)
    inputs = loaded.processor(images=picture(40, 30), text=text, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == prompt_ids(loaded.processor.tokenizer, text, VOCABULARY, 576)
    with torch.no_grad(), FitPrune(Recipe([200, 0, 200], 576))(loaded.model) as trace:
        out = loaded.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert [len(layer) for layer in kept(trace)] == [376, 376, 176]
    assert (out[:, inputs["input_ids"].shape[1] :] < VOCABULARY).all()
