"""Which images belong to which sample of a batch, and what of them a seed is made of."""

from types import SimpleNamespace

import pytest
import torch

from fitprune.models.images import Images, pixel_bytes

pytestmark = pytest.mark.releases


def features(*counts):
    return SimpleNamespace(pooler_output=[torch.zeros(count, 4) for count in counts])


def test_samples_of_several_images_of_one_and_of_none():
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    images = Images.of({"pixel_values": pixels}, features(5, 3, 3, 7))
    assert images.tokens == [5, 3, 3, 7]
    samples = images.of_samples([8, 0, 3, 7])
    assert samples == [[0, 1], [], [2], [3]]


def test_beams_see_the_images_of_their_sample():
    images = Images.of({"pixel_values": torch.arange(2.0).view(2, 1, 1, 1)}, features(5, 3))
    samples = images.of_samples([5, 5, 5, 3, 3, 3])
    assert samples == [[0]] * 3 + [[1]] * 3


def test_patches_of_images_of_any_size_are_told_apart_by_their_grids():
    grids = torch.tensor([[1, 2, 2], [1, 4, 2]])
    images = Images.of({"pixel_values": torch.arange(12.0)[:, None], "image_grid_thw": grids}, features(1, 2))
    assert images.of_samples([1, 2]) == [[0], [1]]
    assert [image.flatten().tolist() for image in images.pixels] == [list(range(4)), list(range(4, 12))]


def test_videos_are_told_apart_by_their_own_grids_and_have_a_row_each():
    given = {"pixel_values_videos": torch.arange(12.0)[:, None], "video_grid_thw": torch.tensor([[2, 2, 2], [1, 2, 2]])}
    assert [
        len(video) for video in Images.of(given | {"image_grid_thw": torch.tensor([[1, 2, 2]])}, features(2, 1)).pixels
    ] == [8, 4]
    assert Images.of({"pixel_values_videos": torch.zeros(2, 3, 3, 4, 4)}, features(28, 28)).tokens == [28, 28]


def test_tiles_are_images_where_a_model_says_so():
    tiles = torch.arange(3.0).view(3, 1, 1, 1)
    images = Images.of({"pixel_values": tiles}, SimpleNamespace(pooler_output=torch.zeros(3, 9, 4)))
    assert [len(own) for own in images.of_samples([18, 9])] == [2, 1]


def test_what_cannot_be_matched_is_none():
    tiles = torch.zeros(5, 3, 2, 2)
    assert Images.of({"pixel_values": tiles}, features(30, 20)) is None
    assert Images.of({}, features(30)) is None
    assert Images.of({"pixel_values": tiles}, SimpleNamespace()) is None
    images = Images.of({"pixel_values": tiles}, features(4, 4, 4, 4, 4))
    assert images.of_samples([6, 14]) is None
    assert images.of_samples([4, 8]) is None
    assert images.of_samples([0, 0]) is None


def test_empty_tiles_at_the_end_leave_no_trace():
    tiles = torch.randn(3, 3, 2, 2)
    tiles[1] = 0
    padded = torch.cat([tiles, torch.zeros(2, 3, 2, 2)])
    assert pixel_bytes(padded) == pixel_bytes(tiles) != pixel_bytes(tiles[[0, 2]])
    assert pixel_bytes(torch.zeros(3, 3, 2, 2)) == pixel_bytes(torch.zeros(1, 3, 2, 2))
    assert pixel_bytes(tiles.bfloat16()) == pixel_bytes(tiles.bfloat16().float())
