"""From the authors' layout to ours: every tensor in its place, or a refusal and nothing left behind."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaConfig, LlamaForCausalLM

from fitprune.errors import FitPruneError
from harness.models.checkpoint import check_folder
from harness.models.llava_hr import LlavaHrForConditionalGeneration, convert_checkpoint
from harness.models.llava_hr.__main__ import main
from harness.models.llava_hr.configuration import CLIP_TOWERS, CONVNEXT_TOWERS
from harness.models.llava_hr.names import is_ignored, to_ours
from tests.reference import llava_hr as reference
from tests.support.tiny_llava_hr import CLIP, CONFIG, CONVNEXT, DEPTH, HIDDEN, SIZES, VOCABULARY, save, shapes, weights

pytestmark = pytest.mark.releases


def convert(source: Path, target: Path) -> Path:
    return convert_checkpoint(source, target, clip_config=CLIP, convnext_config=CONVNEXT)


def refused(source: Path, target: Path) -> str:
    """The one line that refuses a checkpoint, after which nothing is left behind."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(FitPruneError) as error:
        convert(source, target)
    assert sorted(target.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def tensors() -> dict:
    return weights(dtype=torch.bfloat16)


@pytest.mark.parametrize(("layout", "shards"), [("bin", 3), ("bin", 1), ("safetensors", 2), ("safetensors", 1)])
def test_every_tensor_arrives_as_it_was(tmp_path, tensors, layout, shards):
    target = convert(save(tmp_path / "source", tensors, layout=layout, shards=shards), tmp_path / "deep" / "target")
    check_folder(target)
    files = sorted(target.glob("*.safetensors"))
    assert len(files) == shards
    found = {name: value for file in files for name, value in load_file(file).items()}
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    assert set(index["weight_map"]) == set(found)
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert set(opened.keys()) == {name for name, place in index["weight_map"].items() if place == file.name}
    used = {to_ours(name): value for name, value in tensors.items() if not is_ignored(name)}
    assert set(found) == set(used) == {to_ours(name) for name in shapes(unused=False)}
    for name, value in used.items():
        assert found[name].dtype == torch.bfloat16
        assert torch.equal(found[name][: len(value)], value), name


def test_the_converted_model_computes_what_the_authors_does(tmp_path):
    """Logits of a whole prompt: their tensors in a plain Llama and the reference tower, against the loaded folder."""
    tensors = weights(seed=1)
    target = convert(save(tmp_path / "source", tensors), tmp_path / "target")
    model = AutoModelForImageTextToText.from_pretrained(target, dtype=torch.float64)
    assert type(model) is LlavaHrForConditionalGeneration
    picture = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ids = torch.tensor([[1, 20, 30, *[VOCABULARY] * 576, 40, 50]])

    doubles = {name: value.double() for name, value in tensors.items()}
    fields = {name: CONFIG[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads", "rms_norm_eps")}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=DEPTH, **fields)).double().eval()
    text = {
        name: value for name, value in doubles.items() if "tower" not in name and "mm_" not in name and "inv_freq" not in name
    }
    llama.load_state_dict(text)
    embeds = doubles["model.embed_tokens.weight"][ids.clamp(max=VOCABULARY - 1)]
    embeds[0, 3:579] = reference.project(doubles, reference.tower(doubles, SIZES, picture))
    with torch.no_grad():
        expected = llama(inputs_embeds=embeds).logits
        found = model(input_ids=ids, pixel_values=picture[None]).logits
    torch.testing.assert_close(found[..., :VOCABULARY], expected, rtol=1e-4, atol=1e-4)
    assert found.shape[-1] == 384
    mean = expected.mean(-1, keepdim=True).expand(-1, -1, 54)
    torch.testing.assert_close(found[..., VOCABULARY:], mean, rtol=1e-3, atol=1e-3)
    assert (found.argmax(-1) < VOCABULARY).all()


def test_the_image_token_follows_the_vocabulary(tmp_path, tensors):
    target = convert(save(tmp_path / "source", tensors), tmp_path / "target")
    model = AutoModelForImageTextToText.from_pretrained(target)
    processor = AutoProcessor.from_pretrained(target, backend="pil")
    assert model.dtype == torch.bfloat16
    assert model.config.image_token_id == VOCABULARY == processor.image_token_id
    assert processor.tokenizer.convert_ids_to_tokens(VOCABULARY) == "<image>"
    assert model.get_input_embeddings().weight.shape == model.lm_head.weight.shape == (384, HIDDEN)
    assert processor.tokenizer.padding_side == "left"
    assert processor.tokenizer.pad_token == "<unk>"
    generation = model.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 0)
    assert model.config.text_config.rms_norm_eps == 1e-5


def test_frozen_towers_convert_without_adapters(tmp_path):
    tensors = weights(frozen=True)
    target = convert(save(tmp_path / "source", tensors, config={"freeze_vision": True}), tmp_path / "target")
    model = AutoModelForImageTextToText.from_pretrained(target)
    assert len(model.model.vision_tower.adapters) == 0


def test_adapters_in_a_frozen_checkpoint_are_unknown(tmp_path, tensors):
    source = save(tmp_path / "source", tensors, config={"freeze_vision": True})
    assert "36 unknown (model.vision_tower.align_stages_latent.0.fast_conv.bias, " in refused(source, tmp_path / "target")


@pytest.mark.parametrize("shards", [1, 2])
def test_an_unknown_tensor_is_refused_by_its_name(tmp_path, tensors, shards):
    extra = {**tensors, "model.mm_projector.4.weight": torch.zeros(2, 2)}
    message = refused(save(tmp_path / "source", extra, shards=shards), tmp_path / "target")
    assert "1 unknown (model.mm_projector.4.weight); nothing was written" in message


@pytest.mark.parametrize("shards", [1, 2])
def test_missing_tensors_are_named_a_few_and_counted(tmp_path, tensors, shards):
    gone = {name for name in tensors if "encoder.layers.1." in name}
    left = {name: value for name, value in tensors.items() if name not in gone}
    message = refused(save(tmp_path / "source", left, shards=shards), tmp_path / "target")
    assert f"16 missing ({', '.join(sorted(gone)[:3])}, …)" in message


def test_our_own_names_are_no_authors_names(tmp_path, tensors):
    renamed = {to_ours(name): value for name, value in tensors.items() if not is_ignored(name)}
    message = refused(save(tmp_path / "source", renamed), tmp_path / "target")
    assert "unknown" in message
    assert "missing" in message


def test_unused_tensors_may_be_missing(tmp_path, tensors):
    left = {name: value for name, value in tensors.items() if not is_ignored(name)}
    convert(save(tmp_path / "source", left), tmp_path / "target")
    positions = {reference.FAST + "embeddings.position_ids": torch.arange(17)[None]}
    convert(save(tmp_path / "other", {**left, **positions}), tmp_path / "another")


def test_a_tensor_that_the_index_hides_or_promises_is_noticed(tmp_path, tensors):
    source = save(tmp_path / "source", tensors)
    index = source / "pytorch_model.bin.index.json"
    whole = index.read_text()
    part = source / "pytorch_model-00001-of-00002.bin"
    held = torch.load(part, weights_only=True)
    torch.save({**held, "model.extra": torch.zeros(1)}, part)
    assert "1 unknown (model.extra)" in refused(source, tmp_path / "target")
    name = next(name for name in held if not is_ignored(name))
    torch.save({key: value for key, value in held.items() if key != name}, part)
    index.write_text(whole)
    assert f"1 missing ({name})" in refused(source, tmp_path / "target")


def test_a_tensor_in_two_shards_is_refused(tmp_path, tensors):
    source = save(tmp_path / "source", tensors)
    first, second = sorted(source.glob("*.bin"))
    name, value = next(iter(torch.load(first, weights_only=True).items()))
    torch.save({**torch.load(second, weights_only=True), name: value}, second)
    assert f"holds {name} a second time" in refused(source, tmp_path / "target")


def test_a_wrong_shape_is_refused(tmp_path, tensors):
    wrong = {**tensors, "model.norm.weight": torch.zeros(33)}
    message = refused(save(tmp_path / "source", wrong), tmp_path / "target")
    assert "model.norm.weight has shape (33,), expected (32,); check the sizes in config.json" in message


def test_another_vocabulary_than_config_says_is_refused(tmp_path, tensors):
    wrong = {**tensors, "lm_head.weight": torch.zeros(331, HIDDEN)}
    message = refused(save(tmp_path / "source", wrong), tmp_path / "target")
    assert "lm_head.weight has shape (331, 32); config.json says a vocabulary of 330" in message


def test_a_missing_shard_is_refused_before_any_work(tmp_path, tensors):
    source = save(tmp_path / "source", tensors)
    (source / "pytorch_model-00002-of-00002.bin").unlink()
    assert "1 of 2 shards are missing, e.g. pytorch_model-00002-of-00002.bin" in refused(source, tmp_path / "target")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02garbage", b"PK\x03\x04 cut off", b"cos\nsystem\n(S'exit 3'\ntR."],
    ids=["empty", "bytes", "zip", "code"],
)
def test_a_damaged_or_hostile_file_is_refused(tmp_path, tensors, content):
    source = save(tmp_path / "source", tensors)
    (source / "pytorch_model-00001-of-00002.bin").write_bytes(content)
    assert "damaged, or not a file of tensors alone" in refused(source, tmp_path / "target")


@pytest.mark.parametrize("content", [[1, 2], {"model.norm.weight": "text"}])
def test_a_file_of_other_things_is_refused(tmp_path, tensors, content):
    source = save(tmp_path / "source", tensors)
    torch.save(content, source / "pytorch_model-00001-of-00002.bin")
    assert "holds something else than named tensors" in refused(source, tmp_path / "target")


def test_a_truncated_safetensors_file_is_refused(tmp_path, tensors):
    source = save(tmp_path / "source", tensors, layout="safetensors")
    file = source / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged" in refused(source, tmp_path / "target")


def test_files_of_the_old_format_and_views_are_read(tmp_path, tensors):
    """Before PyTorch 1.6 files were no zip archives; slices of one storage are written as tensors of their own."""
    source = save(tmp_path / "source", tensors, shards=1)
    both = torch.cat([tensors["model.norm.weight"], tensors["model.layers.0.input_layernorm.weight"]])
    views = {"model.norm.weight": both[:HIDDEN], "model.layers.0.input_layernorm.weight": both[HIDDEN:]}
    torch.save({**tensors, **views}, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    found = load_file(convert(source, tmp_path / "target") / "model-00001-of-00001.safetensors")
    for name in views:
        assert torch.equal(found[to_ours(name)], tensors[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": None}, "no vocab_size; not the config of a LLaVA-HR checkpoint"),
        ({"input_image_size": None, "hidden_size": None}, "no hidden_size, input_image_size"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'; only 'pad' is supported"),
        ({"hidden_size": 30}, "The hidden size (30) is not a multiple"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, tensors, change, message):
    assert message in refused(save(tmp_path / "source", tensors, config=change), tmp_path / "target")


def test_an_unknown_tower_needs_its_sizes(tmp_path, tensors):
    source = save(tmp_path / "source", tensors, config={"vision_tower_slow": "convnext_base"})
    with pytest.raises(FitPruneError, match=r"unknown tower 'convnext_base' \(known: convnext_large_mlp, convnext_xxlarge\)"):
        convert_checkpoint(source, tmp_path / "target", clip_config=CLIP)
    convert(source, tmp_path / "target")


def test_sizes_that_no_tower_has_are_refused(tmp_path, tensors):
    source = save(tmp_path / "source", tensors)
    with pytest.raises(FitPruneError, match="convnext_config has no depth, heads; it takes the fields of ConvNextConfig"):
        convert_checkpoint(source, tmp_path / "target", CLIP, {"heads": 2, "depth": 1})
    timm = {"depths": CONVNEXT["depths"], "dims": CONVNEXT["hidden_sizes"]}
    assert (convert_checkpoint(source, tmp_path / "target", CLIP, timm) / "config.json").is_file()


def test_a_folder_without_a_checkpoint_is_refused(tmp_path, tensors):
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty", tmp_path / "target")
    source = save(tmp_path / "source", tensors, shards=1)
    (source / "pytorch_model.bin").unlink()
    assert "no weights; expected pytorch_model.bin or model.safetensors" in refused(source, tmp_path / "target")
    (source / "config.json").write_text("{")
    assert "cannot be read as JSON" in refused(source, tmp_path / "target")


def test_a_target_in_use_is_left_alone(tmp_path, tensors):
    source = save(tmp_path / "source", tensors)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.txt").write_text("keep")
    assert "exists already" in refused(source, tmp_path / "target")
    assert (tmp_path / "target" / "mine.txt").read_text() == "keep"
    (tmp_path / "target" / "mine.txt").unlink()
    assert (convert(source, tmp_path / "target") / "config.json").is_file()


def test_a_target_that_cannot_be_written_is_refused(tmp_path, tensors):
    (tmp_path / "file").write_text("")
    source = save(tmp_path / "source", tensors)
    with pytest.raises(FitPruneError, match="target: cannot be written: "):
        convert(source, tmp_path / "file" / "target")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, tensors, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.models.llava_hr.convert.save_file", full)
    assert "No space left on device" in refused(save(tmp_path / "source", tensors), tmp_path / "target")


def test_without_a_tokenizer_a_warning_says_that_there_is_no_processor(tmp_path, tensors):
    source = save(tmp_path / "source", tensors, with_tokenizer=False)
    with pytest.warns(UserWarning, match="no processor is written"):
        target = convert(source, tmp_path / "target")
    assert not list(target.glob("*processor*"))


def test_a_tokenizer_may_know_fewer_tokens_than_there_are_rows_but_not_more(tmp_path):
    more = {"model.embed_tokens.weight": (335, HIDDEN), "lm_head.weight": (335, HIDDEN)}
    tensors = {**weights(), **{name: torch.zeros(shape) for name, shape in more.items()}}
    target = convert(save(tmp_path / "source", tensors, config={"vocab_size": 335}), tmp_path / "target")
    assert AutoProcessor.from_pretrained(target, backend="pil").image_token_id == 335
    fewer = {**tensors, **{name: torch.zeros(320, HIDDEN) for name in more}}
    source = save(tmp_path / "other", fewer, config={"vocab_size": 320})
    assert "its tokenizer gives <image> the id 330; config.json's vocab_size is 320" in refused(source, tmp_path / "another")


@pytest.mark.parametrize("settings", [{}, {"add_bos_token": True, "legacy": False}, {"legacy": True}])
def test_a_sentencepiece_tokenizer_is_read_as_the_slow_one_reads_it(tmp_path, settings):
    """tokenizer.model alone, as the published checkpoints have it; the expected ids are SentencePiece's own."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="an extra of its own: pip install .[convert]")
    pytest.importorskip("google.protobuf", reason="an extra of its own: pip install .[convert]")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["USER: what color is the square? ASSISTANT: it is red"] * 20),
        model_prefix=str(tmp_path / "trained"),
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "trained.model"))
    rows = pieces.get_piece_size()
    tensors = {**weights(), **dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), torch.zeros(rows, HIDDEN))}
    source = save(tmp_path / "source", tensors, config={"vocab_size": rows}, with_tokenizer=False)
    (tmp_path / "trained.model").rename(source / "tokenizer.model")
    if settings:
        (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **settings}))
    processor = AutoProcessor.from_pretrained(convert(source, tmp_path / "target"), backend="pil")
    before, after = "USER: ", "\nwhat  color is the é square?\n ASSISTANT:"
    expected = [1, *pieces.encode(before), *[rows] * 576, *pieces.encode(after)]
    found = processor(images=Image.new("RGB", (8, 8)), text=f"{before}<image>{after}")["input_ids"][0]
    assert found == expected


def test_a_damaged_tokenizer_is_refused(tmp_path, tensors):
    source = save(tmp_path / "source", tensors)
    (source / "tokenizer.json").write_text("{}")
    assert "its tokenizer cannot be loaded" in refused(source, tmp_path / "target")


def test_tensors_of_one_storage_are_written_apart(tmp_path, tensors):
    source = save(tmp_path / "source", tensors, shards=1)
    norms = dict.fromkeys(("model.norm.weight", "model.layers.0.input_layernorm.weight"), tensors["model.norm.weight"])
    tied = {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    torch.save({**tensors, **norms, **tied}, source / "pytorch_model.bin")
    found = load_file(convert(source, tmp_path / "target") / "model-00001-of-00001.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.language_model.embed_tokens.weight"])
    assert all(torch.equal(found[to_ours(name)], tensors["model.norm.weight"]) for name in norms)


def test_the_command_line_converts(tmp_path, tensors, monkeypatch, capsys):
    monkeypatch.setitem(CLIP_TOWERS, "clip-vit-large-patch14-336", CLIP | {"patch_size": 14})
    monkeypatch.setitem(CONVNEXT_TOWERS, "convnext_large_mlp", CONVNEXT | {"layer_norm_eps": 1e-6})
    source, target = save(tmp_path / "source", tensors), tmp_path / "target"
    assert main([str(source), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: ready for --model {target}\n"
    check_folder(target)


def test_the_command_line_says_in_one_line_what_is_wrong(tmp_path, tensors, capsys):
    """The towers that config.json names are of full size; the tensors are not."""
    source, target = save(tmp_path / "source", tensors, layout="safetensors", shards=1), tmp_path / "target"
    assert main([str(source), str(target)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not target.exists()
