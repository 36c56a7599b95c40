"""Fine print: scenes on larger canvases, and what each visual token of a sibling of llava-tiny shows of them."""

from itertools import product

import numpy as np
import pytest

from harness.scenes import draw, world
from harness.scenes.world import COLORS
from training import views

CANVASES = [(1, 3), (3, 1), (2, 2)]


def patches_of(picture: np.ndarray) -> np.ndarray:
    """(rows, columns, 8, 8, 3)."""
    height, width = picture.shape[0] // 8, picture.shape[1] // 8
    return picture.reshape(height, 8, width, 8, 3).swapaxes(1, 2)


@pytest.mark.parametrize("canvas", CANVASES)
def test_all_but_the_characters_grow(canvas):
    tall, wide = canvas
    for seed in range(20):
        scene = world.sample(seed)
        small, large = draw.pixels(scene, text=False), draw.pixels(scene, canvas, text=False)
        assert large.shape == (96 * tall, 96 * wide, 3)
        inner = np.s_[tall:-tall, wide:-wide]
        assert (large[inner] == np.kron(small, np.ones((tall, wide, 1), dtype=np.uint8))[inner]).all()
        frame = np.concatenate([large[0], large[-1], large[:, 0], large[:, -1]])
        assert tuple(frame[0]) in draw.INKS
        assert (frame == frame[0]).all()
        changed = (draw.pixels(scene, canvas) != large).any(axis=-1).sum()
        drawn = (draw.pixels(scene) != small).any(axis=-1).sum()
        assert 0.9 * drawn <= changed <= drawn, "as many pixels of ink as at 96×96, but for what lies on the frame"


def test_reduced_fine_print_is_illegible_and_the_rest_is_not():
    """The picture reduced to 96×96 hardly depends on the characters, and is otherwise near the one drawn at that size."""
    for canvas in CANVASES:
        for seed in range(20):
            scene = world.sample(seed)
            reduced = np.asarray(draw.image(scene, canvas).resize((96, 96), 3), dtype=float)[4:-4, 4:-4]
            drawn, bare = (draw.pixels(scene, text=text).astype(float)[4:-4, 4:-4] for text in (True, False))
            ink = abs(drawn - bare).sum(axis=-1) > 0
            assert abs(reduced - drawn)[ink].mean() > 0.4 * abs(drawn - bare)[ink].mean()
            assert abs(reduced - bare)[~ink].mean() < 8


@pytest.mark.parametrize("canvas", CANVASES)
def test_labels_at_full_resolution_agree_with_the_pixels(canvas):
    """A patch labelled with a character has just its ink, in one patch for each character; things show their colour."""
    full, shown = views.full(canvas), []
    for seed in range(30):
        scene = world.sample(seed)
        labels = {name: label.reshape(12 * canvas[0], 12 * canvas[1]) for name, label in full.labels(scene).items()}
        patches = patches_of(draw.pixels(scene, canvas))
        framed = patches_of(draw.pixels(scene, canvas, text=False))
        for row, column in np.argwhere(labels["character"] > 0):
            glyph = draw.glyph(draw.CHARACTERS[labels["character"][row, column] - 1])
            changed = (patches[row, column] != framed[row, column]).any(axis=-1)
            assert glyph.sum() - 5 * (row == len(patches) - 1) <= changed.sum() <= glyph.sum(), "the frame may hide its foot"
        assert (labels["character"] > 0).sum() == sum(len(thing.text) for thing in scene.things)
        for row, column in np.argwhere(labels["color"] > 0):
            color = draw.RGB[COLORS[labels["color"][row, column] - 1]]
            shown.append((patches[row, column] == color).all(axis=-1).any())
        things = (labels["shape"] > 0).sum()
        assert things == 4 * canvas[0] * canvas[1] * len(scene.things)
    assert np.mean(shown) > 0.6, "all but the empty corners of large shapes"


def test_a_reduced_view_shows_what_the_small_picture_does_but_for_characters():
    scene = world.sample(3)
    labels = draw.patch_labels(scene)
    same, reduced = views.reduced((1, 1)).labels(scene), views.reduced((1, 3)).labels(scene)
    for name, label in labels.items():
        assert (same[name] == label.ravel()).all()
        assert (reduced[name] == (0 if name in views.WRITTEN else label.ravel())).all()


def test_cells_follow_the_layout():
    for canvas in [(1, 1), *CANVASES]:
        cells = views.full(canvas).cells.reshape(12 * canvas[0], 12 * canvas[1])
        for (row, down), (column, right) in product(enumerate((0, -1)), enumerate((0, -1))):
            assert cells[down, right] == 6 * row + 2 * column
        assert np.unique(cells, return_counts=True)[1].tolist() == [16 * canvas[0] * canvas[1]] * 9


def test_letters_spell_the_word_on_all_that_belongs_to_a_thing():
    shown, spelled = views.whole(), views.reduced((1, 3))
    for seed in range(30):
        scene = world.sample(seed)
        labels, texts = shown.labels(scene), {thing.cell: thing.text for thing in scene.things}
        for patch in range(144):
            letters = [labels[letter][patch] for letter in views.LETTERS]
            read = "".join(draw.CHARACTERS[letter - 1] for letter in letters if letter)
            filled = labels["shape"][patch] or labels["character"][patch]
            assert read == (texts[patch // 12 // 4 * 3 + patch % 12 // 4] if filled else "")
        illegible = spelled.labels(scene)
        assert not any(illegible[letter].any() for letter in views.LETTERS)
