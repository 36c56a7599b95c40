"""Pictures in the forms that people store: the picture that a person sees, or one line with column and row."""

import base64
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from fitprune.errors import FitPruneError
from harness.models.loading import load_model
from harness.tasks.build import build_task
from harness.tasks.pictures import as_seen
from tests.support.evaluating import evaluate_cell
from tests.support.tiny_llava import save_tiny, write_suites


@pytest.fixture
def data(tmp_path):
    return write_suites(tmp_path / "data")


def stored(data, make, kind=None):
    """POPE's pictures, each made anew of (row, its encoded bytes)."""
    path = data / "pope/default/test.parquet"
    table = pq.read_table(path)
    values = [make(row, value["bytes"]) for row, value in enumerate(table["image"].to_pylist())]
    pq.write_table(table.set_column(table.column_names.index("image"), "image", pa.array(values, kind)), path)
    return path


def pixels(data):
    return [np.asarray(doc["image"].convert("RGB")) for doc in build_task("pope", str(data)).eval_docs]


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    "form", ["bytes", "struct of bytes", "base64", "data url", "list of one", "large bytes", "paths", "struct of paths"]
)
def test_a_column_of_pictures_is_read_in_whatever_form(data, form):
    expected, digest = pixels(data), build_task("pope", str(data)).data_digest
    folder = data / "pope/default"

    def file(row, encoded):
        (folder / "images").mkdir(exist_ok=True)
        (folder / f"images/{row}.png").write_bytes(encoded)
        return f"images/{row}.png"

    forms = {
        "bytes": (lambda row, encoded: encoded, pa.binary()),
        "large bytes": (lambda row, encoded: encoded, pa.large_binary()),
        "struct of bytes": (lambda row, encoded: {"bytes": encoded}, None),
        "base64": (lambda row, encoded: base64.b64encode(encoded).decode(), None),
        "data url": (lambda row, encoded: "data:image/png;base64," + base64.b64encode(encoded).decode(), None),
        "list of one": (lambda row, encoded: [{"bytes": encoded, "path": None}], pa.list_(STRUCT)),
        "paths": (file, None),
        "struct of paths": (lambda row, encoded: {"bytes": None, "path": file(row, encoded)}, STRUCT),
    }
    stored(data, *forms[form])
    for seen, wanted in zip(pixels(data), expected, strict=True):
        np.testing.assert_array_equal(seen, wanted)
    assert build_task("pope", str(data)).data_digest != digest


def test_a_picture_named_by_path_counts_by_its_content(data):
    folder = data / "pope/default"
    (folder / "a.png").write_bytes(pq.read_table(folder / "test.parquet")["image"][0].as_py()["bytes"])
    stored(data, lambda row, encoded: "a.png")
    before = build_task("pope", str(data)).data_digest
    with io.BytesIO() as file:
        Image.new("RGB", (8, 8), "blue").save(file, "PNG")
        (folder / "a.png").write_bytes(file.getvalue())
    assert build_task("pope", str(data)).data_digest != before


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda row, encoded: None if row == 2 else {"bytes": encoded, "path": None}, STRUCT, "row 2: the picture is null"),
        (
            lambda row, encoded: {"bytes": None if row == 5 else encoded, "path": None},
            STRUCT,
            "row 5: the picture has neither bytes nor a path",
        ),
        (lambda row, encoded: f"images/{row}.png", None, "row 0: there is no picture 'images/0.png' in "),
        (lambda row, encoded: "abcd", None, "row 0: there is no picture 'abcd' in "),
        (
            lambda row, encoded: [{"bytes": encoded, "path": None}] * (1 + row),
            pa.list_(STRUCT),
            "row 1: holds 2 pictures; the suite's questions are about one",
        ),
        (lambda row, encoded: row, None, "row 0: a picture is stored as bytes, base64 or a path, not as int"),
    ],
)
def test_what_is_no_picture_is_named_with_column_and_row(data, make, kind, said):
    path = stored(data, make, kind)
    with pytest.raises(FitPruneError) as error:
        build_task("pope", str(data))
    assert str(error.value).startswith(f"{path}: column image, {said}")
    assert "\n" not in str(error.value)


def gradient(dtype, top):
    return np.linspace(0, top, 64 * 48).reshape(48, 64).astype(dtype)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (gradient(np.uint16, 65535), "I;16"),
        (gradient(np.int32, 65535), "I"),
        (gradient(np.int32, 255), "I"),
        (gradient(np.float32, 1), "F"),
        (gradient(np.float32, 255), "F"),
    ],
)
def test_sixteen_bits_and_floats_are_scaled_to_what_a_person_sees(values, mode):
    picture = Image.fromarray(values)
    assert picture.mode == mode
    seen = np.asarray(as_seen(picture))
    assert seen.shape == (48, 64, 3)
    np.testing.assert_allclose(seen[..., 0], gradient(np.float64, 255), atol=1)
    assert len(np.unique(seen[..., 0])) > 200


@pytest.mark.parametrize("values", [gradient(np.float32, 1) - 0.5, gradient(np.float32, 4000), gradient(np.int32, 100000)])
def test_a_range_that_says_nothing_is_refused(values):
    with pytest.raises(ValueError, match=r"its values run from -?[0-9.]+ to [0-9.]+"):
        as_seen(Image.fromarray(values))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA"])
def test_other_modes_are_pillows_own_rgb(mode):
    picture = Image.fromarray(gradient(np.uint8, 255)).convert(mode)
    np.testing.assert_array_equal(np.asarray(as_seen(picture)), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_tag_says_and_once(orientation):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored = np.arange(12 * 20, dtype=np.uint8).reshape(12, 20)
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    turns = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T}
    turns |= {6: stored[::-1].T, 7: stored[::-1, ::-1].T, 8: stored[:, ::-1].T}
    seen = as_seen(Image.open(file))
    np.testing.assert_array_equal(np.asarray(seen)[..., 0], turns[orientation])
    np.testing.assert_array_equal(np.asarray(as_seen(seen)), np.asarray(seen))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(str(save_tiny(tmp_path_factory.mktemp("model") / "m")), "cpu")


def cut_off(encoded):
    with io.BytesIO() as file:
        Image.effect_noise((64, 64), 90).save(file, "PNG")
        return file.getvalue()[:-1000]


def huge(encoded):
    with io.BytesIO() as file:
        Image.new("1", (20000, 20000)).save(file, "PNG")
        return file.getvalue()


BROKEN = {
    "cut off": cut_off,
    "rotten": lambda encoded: encoded[:40] + b"\0" * 40,
    "no picture": lambda encoded: b"text",
    "huge": huge,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_picture_ends_the_cell_and_names_file_and_row(data, loaded, how):
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # as lmms-eval sets it
    path = stored(data, lambda row, encoded: BROKEN[how](encoded) if row == 7 else encoded)
    with pytest.raises(FitPruneError, match=rf"^task 'pope', row 7 of {path}: its picture cannot be decoded \(.+\)$"):
        evaluate_cell(loaded, None, "pope", data=str(data), batch_size=4)


@pytest.mark.parametrize("how", BROKEN)
def test_if_allowed_its_question_counts_as_wrong_with_a_note(data, loaded, how):
    whole = evaluate_cell(loaded, None, "pope", data=str(data), batch_size=4)
    stored(data, lambda row, encoded: BROKEN[how](encoded) if row in (3, 7) else encoded)
    answers = evaluate_cell(loaded, None, "pope", data=str(data), batch_size=4, allow_broken_images=True)
    assert "pope: 2 pictures cannot be decoded; their questions count as wrong" in answers.notes
    for row, (before, after) in enumerate(zip(whole.answers, answers.answers, strict=True)):
        if row in (3, 7):
            assert (after.answer, after.score) == ("", 0.0)
        else:
            assert (after.answer, after.score, after.image) == (before.answer, before.score, before.image)
    assert answers.answers[3].image != answers.answers[7].image
    assert answers.generation["broken_images"] == "count as wrong"
    assert "broken_images" not in whole.generation


def test_with_a_limit_the_row_is_the_datas(data, loaded):
    stored(data, lambda row, encoded: cut_off(encoded))
    rows = build_task("pope", str(data), limit=3).rows
    assert list(rows) != [0, 1, 2]
    with pytest.raises(FitPruneError, match=rf"row {rows[0]} of "):
        evaluate_cell(loaded, None, "pope", data=str(data), batch_size=1, limit=3)
