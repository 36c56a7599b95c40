"""RefCOCO: the answer is a box. Where survivors' position ids matter most (GAP, arXiv 2506.21873)."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.answers import MEAN
from harness.tasks.labels import in_turn
from harness.tasks.shipped.columns import answer_lists, boxes
from harness.tasks.spec import Metric, Part, SuiteSpec
from harness.tasks.stored import encoded

if TYPE_CHECKING:
    from datasets import Dataset

HALF = 0.5  # the overlap from which a box counts as found


def found(value: Mapping[str, Any]) -> float:
    """Whether the box of an answer overlaps with the true one by half of their union, by lmms-eval's own rule."""
    from lmms_eval.tasks.refcoco.utils_rec import compute_accuracy

    return float(compute_accuracy(value["bbox"], value["pred"], HALF))


def expressions(dataset: "Dataset") -> "Dataset":
    """One question for each expression of a region, its box as left, top, right and bottom in shares of the picture.

    What lmms-eval's own preparation makes. That decodes every picture and encodes it again, once for each of its expressions:
    some 12 GB for the public validation set.
    """
    from datasets import Image

    stored = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
    plain = dataset.with_format(None)
    rows: list[int] = []
    answers: list[str] = []
    boxes: list[list[float]] = []
    sizes: list[tuple[int, int]] = []
    for row, (said, box) in enumerate(zip(plain["answer"], plain["bbox"], strict=True)):
        wide, tall = _size(stored[row]["image"])
        shares = [box[0] / wide, box[1] / tall, (box[0] + box[2]) / wide, (box[1] + box[3]) / tall]
        rows += [row] * len(said)
        answers += said
        boxes += [shares] * len(said)
        sizes += [(wide, tall)] * len(said)
    made = dataset.select(rows).remove_columns(["answer", "bbox"])
    widths, heights = zip(*sizes, strict=True)
    for name, values in (("answer", answers), ("bbox", boxes), ("image_width", widths), ("image_height", heights)):
        made = made.add_column(name, list(values))
    return made


def _size(picture: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of an encoded picture, as it is shown; of the file no more is read than says them."""
    from PIL import ExifTags, Image

    with Image.open(io.BytesIO(encoded(picture))) as opened:
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (opened.height, opened.width) if turned else opened.size


SUITES = (
    SuiteSpec(
        "refcoco",
        "refcoco_bbox_rec_val",
        "refcoco",
        Metric("refcoco_ACC@0.5", MEAN, score=found),
        "RefCOCO",
        "lmms-lab-encoder/RefCOCO",
        Part(None, "val", ("question_id", "image", "answer", "bbox")),
        labels=in_turn(answer_lists("answer"), boxes("bbox")),
        options={"process_docs": expressions},
    ),
)
