"""Recipe files as people meet them: what stands in one, and what is refused, in one line, by the command line."""

import hashlib
import json

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from fitprune import Recipe, RecipeError
from fitprune.__main__ import main

pytestmark = pytest.mark.releases
DROP = [4, 0, 9, 3]
PROVENANCE = {
    "model": "owner/model",
    "revision": "0123abc",
    "data": {"id": "mini", "digest": "00ff", "samples": 24, "visual_tokens": 36, "text_tokens": 11},
    "budget": {"asked": 0.3, "reached": 0.31, "scoring_counted": True},
    "alpha": 0.25,
    "mode": "one-pass",
    "statistics": "beef",
    "versions": {"fitprune-bench": "0.1.0"},
    "date": "2026-01-02T03:04:05+00:00",
}


def config(**sizes):
    text = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
    }
    return LlavaConfig(vision_config=CLIPVisionConfig(), text_config=LlamaConfig(**{**text, **sizes}))


@pytest.fixture
def path(tmp_path):
    """A good file."""
    path = tmp_path / "recipe.json"
    Recipe(DROP, 36, provenance=PROVENANCE).for_model(config()).save(path)
    return path


def refusal(path, capsys):
    """What `show` says of a file that it refuses: one line, without a stack trace."""
    assert main(["show", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert "recipe.json" in line
    with pytest.raises(RecipeError):
        Recipe.load(path)
    return line


def edit(path, change):
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def test_what_stands_in_a_file(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    sizes = {"model_type": "llava", "layers": 4, "hidden_size": 64, "intermediate_size": 96, "kv_size": 32, "q_size": 64}
    assert list(record) == ["format", "version", "visual_tokens", "drop", "reduction", "architecture", "provenance"]
    assert (record["format"], record["version"]) == ("fitprune-recipe", 2)
    assert (record["visual_tokens"], record["drop"], record["provenance"]) == (36, DROP, PROVENANCE)
    # Anyone can compute the fingerprint again: SHA-256 over the sizes as JSON with sorted keys.
    spelt = json.dumps({name: sizes[name] for name in sorted(sizes)})
    assert record["architecture"] == {**sizes, "fingerprint": hashlib.sha256(spelt.encode()).hexdigest()[:12]}
    assert record["reduction"] == Recipe.load(path).reduction


def test_one_entry_a_line(path):
    assert [line.split('"')[1] for line in path.read_text().splitlines()[1:-1]][3:] == [
        "drop",
        "reduction",
        "architecture",
        "provenance",
    ]


@pytest.mark.parametrize(
    "other",
    [{"num_hidden_layers": 3}, {"hidden_size": 128}, {"intermediate_size": 128}, {"num_key_value_heads": 4}],
    ids=str,
)
def test_the_fingerprint_tells_architectures_apart(path, other):
    other_config = config(**other)
    drop = DROP[: other_config.text_config.num_hidden_layers]
    Recipe(drop, 36).for_model(other_config).save(path.with_name("other.json"))
    prints = [json.loads(file.read_text())["architecture"]["fingerprint"] for file in path.parent.iterdir()]
    assert len(set(prints)) == 2
    with pytest.raises(RecipeError, match="this recipe is for llava with 4 layers") as error:
        Recipe.load(path).for_model(other_config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"drop: [1]", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[1, 2]", "not a recipe"),
        (b"3", "not a recipe"),
        (b"{}", "not a recipe"),
        (b'{"drop": [1], "visual_tokens": 36}', "not a recipe"),
        (b'{"format": "fitprune-recipe", "drop": [1], "visual_tokens": 36}', "format version null"),
        (b'{"format": "fitprune-recipe", "version": true, "drop": [1], "visual_tokens": 36}', "format version true"),
        (b'{"format": "fitprune-recipe", "version": 1, "drop": [1], "visual_tokens": 36}', "fit it again"),
        (b'{"format": "fitprune-recipe", "version": 3, "drop": [1], "visual_tokens": 36}', "reads 2: upgrade"),
        (b'{"format": "fitprune-recipe", "version": 2, "visual_tokens": 36}', "lacks drop"),
        (b'{"format": "fitprune-recipe", "version": 2, "drop": [1]}', "lacks visual_tokens"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[2:50],
)
def test_files_that_are_no_recipes(path, capsys, content, said):
    path.write_bytes(content)
    assert said in refusal(path, capsys)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("drop", [4, 0, -9, 3], "at least 0, not -9"),
        ("drop", [4, 0, 9.5, 3], "whole numbers, not 9.5"),
        ("drop", [4, 0, 9.0, 3], "whole numbers, not 9.0"),
        ("drop", [4, 0, "9", 3], "whole numbers, not '9'"),
        ("drop", [4, 0, True, 3], "whole numbers, not True"),
        ("drop", [4, 0, None, 3], "whole numbers, not None"),
        ("drop", [4, 0, float("nan"), 3], "whole numbers, not nan"),
        ("drop", [4, 0, [9], 3], "whole numbers, not [9]"),
        ("drop", [], "empty"),
        ("drop", "4093", "a list of counts"),
        ("drop", None, "a list of counts"),
        ("drop", [*DROP, 0], "5 counts for a model of 4 layers"),
        ("drop", DROP[:3], "3 counts for a model of 4 layers"),
        ("drop", [4, 0, 30, 3], "37 visual tokens in all, more than the 36"),
        ("drop", [0, 0, 0, 10**30], "more than the 36"),
        ("drop", [5, 0, 8, 3], "% that it states; after an edit"),
        ("visual_tokens", 15, "16 visual tokens in all, more than the 15"),
        ("visual_tokens", 0, "at least 1"),
        ("visual_tokens", -36, "at least 1"),
        ("visual_tokens", 36.0, "whole numbers"),
        ("visual_tokens", 37, "that it states"),
        ("reduction", 0.6, "60.0000% that it states"),
        ("reduction", "0.6", "a number, not '0.6'"),
        ("reduction", float("nan"), "that it states"),
        ("reduction", True, "a number, not True"),
        ("architecture", None, "no architecture"),
        ("architecture", 3, "an object, not 3"),
        ("architecture", {"x": 1}, "wrong: hidden_size"),
        ("provenance", 3, "an object, not 3"),
    ],
    ids=str,
)
def test_entries_edited_to_nonsense(path, capsys, name, value, said):
    edit(path, lambda record: record.update({name: value}))
    assert said in refusal(path, capsys)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hidden_size", 128, "has the fingerprint"),
        ("model_type", "llava_next", "has the fingerprint"),
        ("fingerprint", "000000000000", "'000000000000' that the file states"),
        ("fingerprint", None, "has the fingerprint"),
        ("hidden_size", "64", "hidden_size cannot be '64'"),
        ("kv_size", -1, "kv_size cannot be -1"),
        ("intermediate_size", None, "intermediate_size cannot be None"),
        ("model_type", 5, "model_type cannot be 5"),
        ("heads", 8, "wrong: heads"),
    ],
)
def test_an_architecture_edited_to_nonsense(path, capsys, name, value, said):
    edit(path, lambda record: record["architecture"].update({name: value}))
    assert said in refusal(path, capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": 5}, "provenance.model must be a text, not 5"),
        ({"alpha": "much"}, "provenance.alpha must be a number, not 'much'"),
        ({"budget": 0.6}, "provenance.budget must be an object, not 0.6"),
        ({"budget": {"asked": "60 %"}}, "provenance.budget.asked must be a number"),
        ({"budget": {"scoring_counted": 1}}, "provenance.budget.scoring_counted must be true or false"),
        ({"data": ["mini"]}, "provenance.data must be an object"),
        ({"data": {"samples": 1.5}}, "provenance.data.samples must be a whole number"),
        ({"versions": "0.1.0"}, "provenance.versions must be an object"),
    ],
    ids=str,
)
def test_a_provenance_edited_to_nonsense(path, capsys, change, said):
    edit(path, lambda record: record["provenance"].update(change))
    assert said in refusal(path, capsys)


def test_an_edit_that_makes_sense_is_read(path):
    """More of its own entries, and the counts edited with the reduction left to be computed."""
    edit(path, lambda record: record.update(drop=[5, 0, 8, 3], reduction=None, note="by hand"))
    recipe = Recipe.load(path)
    assert recipe.drop == [5, 0, 8, 3]
    assert recipe.reduction == Recipe([5, 0, 8, 3], 36).for_model(config()).reduction


def test_files_that_cannot_be_read(tmp_path, capsys):
    assert "cannot read" in refusal(tmp_path / "absent-recipe.json", capsys)
    (tmp_path / "recipe.json").mkdir()
    assert "cannot read" in refusal(tmp_path / "recipe.json", capsys)
