"""Certificates: what they are void for, what `load` requires, what `show` says, and what is refused in a file."""

import json
from dataclasses import replace

import pytest

from fitprune import Recipe, RecipeError
from fitprune.__main__ import main
from fitprune.recipes.certificate import Certificate, CertifiedSuite

SUITES = (
    CertifiedSuite("gqa", "exact_match", "d1", 1.0, 650, 120),
    CertifiedSuite("pope", "pope_accuracy", "d2", 0.5, 600, 300),
)


def certified(**changes):
    """A recipe with a certificate of its own counts."""
    plain = Recipe([4, 0, 9, 3], 36)
    made = Certificate("llava", "r1", "w1", plain.counts, 0.05, "betting", 7, SUITES, "2026-01-02")
    return replace(plain, provenance={"certificate": replace(made, **changes).to_record()})


@pytest.fixture
def path(tmp_path):
    certified().save(tmp_path / "recipe.json")
    return tmp_path / "recipe.json"


def test_a_certificate_is_saved_and_read_with_its_recipe(path):
    assert Recipe.load(path).certificate == certified().certificate
    assert Recipe([1], 2).certificate is None


@pytest.mark.parametrize(
    "here",
    [
        True,
        {},
        {"weights": "w1"},
        {"model": "llava", "revision": "r1"},
        {"data": {"gqa": "d1", "pope": "d2"}},
        {"max_drop": 1.0},
    ],
)
def test_where_it_holds_the_recipe_is_loaded(path, here):
    assert Recipe.load(path, require_certificate=here).drop == [4, 0, 9, 3]


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({"weights": "w2"}, "its certificate is void: weights is w2, and w1 was certified"),
        ({"model": "other"}, "its certificate is void: model is other"),
        ({"data": {"gqa": "d9"}}, "its certificate is void: the data of gqa have the digest d9, and d1 was certified"),
        ({"data": {"mme": "d9"}}, "it is not certified on mme, but on gqa, pope"),
        ({"max_drop": 0.5}, "certified to lose at most 1 points on gqa, not 0.5"),
        ({"weight": "w1"}, "require_certificate takes model, revision, weights, data and max_drop, not weight"),
    ],
)
def test_where_it_does_not_it_is_refused(path, here, said):
    with pytest.raises(RecipeError, match=said):
        Recipe.load(path, require_certificate=here)


def test_none_and_one_of_other_counts_are_refused(path, tmp_path, capsys):
    Recipe([1, 2], 10).save(tmp_path / "plain.json")
    with pytest.raises(RecipeError, match="has no certificate; fitprune tune writes one"):
        Recipe.load(tmp_path / "plain.json", require_certificate=True)
    path.write_text(path.read_text().replace("[4, 0, 9, 3]", "[4, 0, 9, 4]"))
    with pytest.raises(RecipeError, match="its certificate is void: it is of a recipe with other counts"):
        Recipe.load(path, require_certificate=True)
    assert main(["show", str(path)]) == 0
    assert "certificate    its certificate is void" in capsys.readouterr().out


def test_show_prints_it(path, capsys):
    assert main(["show", str(path)]) == 0
    said = capsys.readouterr().out
    assert "with 95% confidence over the whole search: gqa at most 1 points (120 of 650 questions asked, data d1); pope" in said
    assert "llava, weights w1; void for others and for other data" in said
    assert "betting; seed 7, 2026-01-02" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("weights"), "an entry of certificate must hold model, revision, weights"),
        (lambda c: c.update(error="small"), "certificate's error is 'small', which is no float"),
        (lambda c: c.update(suites=[]), "certificate must be an object that names its suites"),
        (lambda c: c["suites"][0].update(asked=True), "certificate's asked is True, which is no int"),
    ],
)
def test_a_malformed_certificate_is_refused(path, change, said):
    record = json.loads(path.read_text())
    change(record["provenance"]["certificate"])
    path.write_text(json.dumps(record))
    with pytest.raises(RecipeError, match=said):
        Recipe.load(path)
