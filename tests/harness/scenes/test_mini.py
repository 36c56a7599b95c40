"""The mini suites: the public columns, the same bytes again, no image in two places."""

import hashlib
import io
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import combinations
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from harness.__main__ import main
from harness.scenes import draw, world
from harness.scenes.mini import asking, benchmarks
from harness.scenes.mini import table as tables
from harness.scenes.mini.chinese import in_chinese
from harness.scenes.prompts import LETTER_ANSWER, SHORT_ANSWER
from harness.scenes.questions import Question
from harness.tasks.mini_data import mini_folder

MINI = mini_folder()

pytestmark = pytest.mark.releases
COLUMNS = {
    "gqa/testdev_balanced_instructions/testdev": {"imageId": "string", "question": "string", "answer": "string"},
    "gqa/testdev_balanced_images/testdev": {"id": "string", "image": "image"},
    "vqav2_val/default/validation": {
        "question": "string",
        "question_id": "int64",
        "image": "image",
        "answers": {"answer": "string", "answer_confidence": "string", "answer_id": "int64"},
    },
    "textvqa_val/default/validation": {"image": "image", "question": "string", "question_id": "int64", "answers": "strings"},
    **{
        f"pope/{part}": {
            "question": "string",
            "answer": "string",
            "question_id": "string",
            "image": "image",
            "category": "string",
        }
        for part in ("default/test", "Full/adversarial", "Full/popular", "Full/random")
    },
    "mme/default/test": {
        "question_id": "string",
        "category": "string",
        "question": "string",
        "answer": "string",
        "image": "image",
    },
    "scienceqa_img/ScienceQA-IMG/test": {
        "image": "image",
        "question": "string",
        "choices": "strings",
        "answer": "int8",
        "hint": "string",
    },
    "calibration": {"image": "image", "question": "string", "answer": "string"},
    "vizwiz_vqa_val/default/val": {
        "question_id": "string",
        "image": "image",
        "question": "string",
        "answers": "strings",
        "category": "string",
    },
    **{
        f"{name}/dev": {
            "index": "int64",
            **dict.fromkeys(("question", "hint", "answer", "A", "B", "C", "D", "category", "L2-category"), "string"),
            "image": "image",
            **dict.fromkeys(("source", "comment", "split"), "string"),
        }
        for name in ("mmbench_en_dev_static/en", "mmbench_cn_dev/cn")
    },
    "seedbench/default/test": {
        **dict.fromkeys(("answer", "choice_a", "choice_b", "choice_c", "choice_d", "data_id", "data_type"), "string"),
        "question": "string",
        "question_id": "string",
        "question_type_id": "int16",
        "image": "images",
    },
    "ai2d/default/test": {"question": "string", "options": "strings", "answer": "string", "image": "image"},
    "chartqa/default/test": {"type": "string", "question": "string", "answer": "string", "image": "image"},
    "ocrbench/default/test": {
        **dict.fromkeys(("dataset", "question", "question_type"), "string"),
        "answer": "strings",
        "image": "image",
    },
    "refcoco_bbox_rec_val/default/val": {
        "question_id": "string",
        "image": "image",
        "question": "string",
        "answer": "strings",
        "segmentation": "float32s",
        "bbox": "float32s",
        "iscrowd": "int8",
        "file_name": "string",
    },
}
SMALL = list(COLUMNS)[list(COLUMNS).index("calibration") + 1 :]
"""Editions of the suites beside the six."""


def rows_of(name: str) -> list[dict]:
    return pq.read_table(MINI / f"{name}.parquet").to_pylist()


def picture_of(row: dict) -> dict:
    (picture,) = row["image"] if isinstance(row["image"], list) else [row["image"]]
    return picture


def seed_of(row: dict) -> int:
    return int(picture_of(row)["path"].removesuffix(".png"))


def seeds_of(name: str) -> set[int]:
    return {seed_of(row) for row in rows_of(name)}


def kind_of(feature: object) -> object:
    if isinstance(feature, Image):
        return "image"
    if isinstance(feature, Value):
        return feature.dtype
    assert isinstance(feature, List)
    inner = feature.feature
    return {name: kind_of(value) for name, value in inner.items()} if isinstance(inner, dict) else f"{kind_of(inner)}s"


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_those_of_the_public_sets(name):
    features = Features.from_arrow_schema(pq.read_schema(MINI / f"{name}.parquet"))
    assert {column: kind_of(features[column]) for column in COLUMNS[name]} == COLUMNS[name]


def test_nothing_else_is_in_the_folder_and_all_of_it_is_small():
    files = {str(path.relative_to(MINI).with_suffix("")): path.stat().st_size for path in MINI.rglob("*.parquet")}
    videos = {name for name in files if name.startswith(("mini_video/", "calibration_video"))}  # test_mini_videos.py has these
    assert set(files) - videos == set(COLUMNS)
    assert sum(files.values()) <= 12e6


def test_each_suite_has_500_questions_and_several_an_image():
    for name in COLUMNS:
        if "image" not in COLUMNS[name] or name == "calibration":
            continue
        rows = rows_of(name)
        if name in SMALL:
            assert 60 <= len(rows) <= 120
            assert len(seeds_of(name)) >= 20
            continue
        if not name.startswith("gqa"):
            assert len(rows) >= 500, name
            assert len(rows) >= 2.5 * len(seeds_of(name)), name
    instructions = rows_of("gqa/testdev_balanced_instructions/testdev")
    images = [row["id"] for row in rows_of("gqa/testdev_balanced_images/testdev")]
    assert len(instructions) >= 500
    assert {row["imageId"] for row in instructions} == set(images)
    assert len(set(images)) == len(images)
    assert len({(row["imageId"], row["question"]) for row in instructions}) == len(instructions)


def test_datasets_decodes_the_images(tmp_path):
    path = MINI / "mme" / "default" / "test.parquet"
    image = Dataset.from_parquet(str(path), cache_dir=str(tmp_path))[0]["image"]
    seed = int(rows_of("mme/default/test")[0]["image"]["path"].removesuffix(".png"))
    assert np.array_equal(np.asarray(image.convert("RGB")), draw.pixels(world.sample(seed)))


def same_content(path, other) -> bool:
    def content(file):
        return [
            {
                name: Pillow.open(io.BytesIO(value["bytes"])).tobytes() if name == "image" else value
                for name, value in row.items()
            }
            for row in pq.read_table(file).to_pylist()
        ]

    return content(path) == content(other)


# By default those that take least.
LARGE = {"gqa", "vqav2_val", "textvqa_val", "pope", "scienceqa_img", "calibration"}


@pytest.mark.parametrize(
    "suite", [pytest.param(name, marks=pytest.mark.exhaustive) if name in LARGE else name for name in benchmarks.MAKERS]
)
def test_they_are_written_again_bit_by_bit(suite, tmp_path):
    for table in benchmarks.MAKERS[suite]():
        fresh, shipped = tables.write(table, tmp_path), MINI / table.path
        same_writer = pq.read_metadata(fresh).created_by == pq.read_metadata(shipped).created_by
        if same_writer and tables.encoder() == pq.read_schema(shipped).metadata.get(b"pillow", b"").decode():
            assert fresh.read_bytes() == shipped.read_bytes(), table.path
        else:
            assert same_content(fresh, shipped), table.path


@pytest.mark.exhaustive
def test_no_image_is_in_two_places():
    """By seed ranges, and by the pixels of every image here against each other and 3000 training scenes."""
    places = {"training": set(), **{suite: set() for suite in benchmarks.MAKERS}}
    for name in COLUMNS:
        if "image" not in COLUMNS[name]:
            continue
        for row in rows_of(name):
            pixels = np.asarray(Pillow.open(io.BytesIO(picture_of(row)["bytes"])).convert("RGB"))
            places[name.split("/")[0]].add(hashlib.sha256(pixels.tobytes()).digest())
            assert seed_of(row) in (world.CALIBRATION_SEEDS if name == "calibration" else world.SUITE_SEEDS)
    assert all(
        len(places[suite]) >= (20 if any(name.startswith(suite) for name in SMALL) else 60) for suite in benchmarks.MAKERS
    )
    rng = Random(0)
    for seed in (*range(2000), *(rng.randrange(70_000) for _ in range(1000))):
        places["training"].add(hashlib.sha256(draw.pixels(world.sample(seed)).tobytes()).digest())
    assert len(places["training"]) > 2900
    for first, second in combinations(places, 2):
        assert not places[first] & places[second], (first, second)


def test_people_agree_enough_to_score_the_truth():
    for row in rows_of("vqav2_val/default/validation"):
        answers = [answer["answer"] for answer in row["answers"]]
        assert sorted(answer["answer_id"] for answer in row["answers"]) == list(range(1, 11))
        assert Counter(answers).most_common()[0][0] == row["multiple_choice_answer"]
        assert answers.count(row["multiple_choice_answer"]) >= 8
    for row in rows_of("textvqa_val/default/validation"):
        assert len(row["answers"]) == 10
        assert max(Counter(row["answers"]).values()) >= 8


def present(row: dict) -> set[str]:
    return {thing.name for thing in world.sample(seed_of(row)).things}


def test_pope_is_built_as_in_the_paper():
    alone, together = asking.class_statistics()
    asked_in_vain = {}
    for split in asking.POPE_SPLITS:
        by_image = defaultdict(list)
        for row in rows_of(f"pope/Full/{split}"):
            assert row["category"] == split
            by_image[row["image_source"]].append(row)
        frequency, company = [], []
        for rows in by_image.values():
            there = present(rows[0])
            absent = [name for name in alone if name not in there]
            names = [" ".join(row["question"].split()[3:5]) for row in rows]
            missing = [name for name, row in zip(names, rows, strict=True) if row["answer"] == "no"]
            assert len(rows) == 6
            assert len(missing) == 3
            assert all((name in there) == (row["answer"] == "yes") for name, row in zip(names, rows, strict=True))
            score = {name: sum(together[name, other] for other in there) for name in absent}
            if split == "popular":
                assert min(alone[name] for name in missing) >= max(alone[name] for name in absent if name not in missing)
            if split == "adversarial":
                assert min(score[name] for name in missing) >= max(score[name] for name in absent if name not in missing)
            frequency += [alone[name] for name in missing]
            company += [score[name] for name in missing]
        asked_in_vain[split] = (np.mean(frequency), np.mean(company))
    assert asked_in_vain["popular"][0] > asked_in_vain["adversarial"][0] > 1.2 * asked_in_vain["random"][0]
    assert asked_in_vain["adversarial"][1] > asked_in_vain["popular"][1] > asked_in_vain["random"][1]
    assert [row["category"] for row in rows_of("pope/default/test")] == [
        split for split in asking.POPE_SPLITS for _ in range(600)
    ]


def test_mme_comes_in_pairs():
    rows = rows_of("mme/default/test")
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["question_id"] == second["question_id"]
        assert first["category"] == second["category"]
        assert first["image"] == second["image"]
        assert {first["answer"], second["answer"]} == {"Yes", "No"}
        assert first["question"].endswith(benchmarks.YES_NO_ENDING)
    counts = Counter(row["question_id"] for row in rows)
    assert set(counts.values()) == {2}
    assert set(Counter(row["category"] for row in rows)) == {"existence", "count", "position", "color", "OCR"}


@pytest.mark.parametrize("name", ["mmbench_en_dev_static/en/dev", "mmbench_cn_dev/cn/dev"])
def test_mmbenchs_options_stand_in_every_rotation(name):
    """As the circular evaluation wants them: one answer, and each letter is right once."""
    groups = defaultdict(list)
    for row in rows_of(name):
        groups[row["index"] % 1_000_000].append(row)
    assert list(groups) == list(range(len(groups)))
    for number, rows in groups.items():
        options = [[row[letter] for letter in "ABCD" if row[letter] not in (None, "nan")] for row in rows]
        assert [row["index"] for row in rows] == [number + 1_000_000 * turn for turn in range(len(options[0]))]
        assert all(turned == options[0][turn:] + options[0][:turn] for turn, turned in enumerate(options))
        assert len({row[row["answer"]] for row in rows}) == len({(row["question"], row["image"]["path"]) for row in rows}) == 1
        assert sorted(row["answer"] for row in rows) == list("ABCD"[: len(rows)])


def test_chinese_questions_say_what_english_ones_say():
    """Each kind of question, in both of its forms, by a dictionary of this test's own."""
    said = {
        "What color is the moon?": "图中的月牙形是什么颜色？",
        "What color is the object in the top left?": "图中左上角的物体是什么颜色？",
        "What shape is the cyan object?": "图中青色的物体是什么形状？",
        "What shape is the object in the center?": "图中中央的物体是什么形状？",
        "Where is the red cross?": "图中的红色十字形在哪里？",
        "How many crosses are in the image?": "图中有多少个十字形？",
        "How many brown objects are in the image?": "图中有多少个棕色物体？",
        "What word is under the blue star?": "图中蓝色星形下面的单词是什么？",
        "What number is in the bottom?": "图中下方的数字是什么？",
    }
    for english, chinese in said.items():
        assert in_chinese(Question("", english, "A", ("red", "25"))) == Question("", chinese, "A", ("红色", "25"))
    assert in_chinese(Question("", "Where is the red cross?", "A", ("top",), "Look.")).hint == "请看图。"
    with pytest.raises(ValueError, match="no Chinese for: Why"):
        in_chinese(Question("", "Why?", "A"))


def test_the_right_option_is_true_of_the_scene():
    options = {
        "seedbench/default/test": lambda row: row[f"choice_{row['answer'].lower()}"],
        "ai2d/default/test": lambda row: row["options"][int(row["answer"])],
        "mmbench_en_dev_static/en/dev": lambda row: row[row["answer"]],
    }
    checked = Counter()
    for name, right in options.items():
        for row in rows_of(name):
            things, question = world.sample(seed_of(row)).things, row["question"].rstrip("?")
            if found := re.fullmatch("What is in the (.+)", question):
                (thing,) = (thing for thing in things if world.CELLS[thing.cell] == found[1])
                assert right(row) == thing.name
            elif found := re.fullmatch(r"Where is the (.+)", question):
                (thing,) = (thing for thing in things if thing.name == found[1])
                assert right(row) == world.CELLS[thing.cell]
            elif found := re.fullmatch(r"What (?:word|number) is in the (.+)", question):
                (thing,) = (thing for thing in things if world.CELLS[thing.cell] == found[1])
                assert right(row) == thing.text
            elif found := re.fullmatch(r"How many (\w+) objects are in the image", question):
                assert right(row) == str(sum(thing.color == found[1] for thing in things))
            else:
                continue
            checked[name] += 1
    assert min(checked.values()) >= 20, checked


def test_a_third_of_vizwiz_cannot_be_answered():
    rows = rows_of("vizwiz_vqa_val/default/val")
    for row in rows:
        common, times = Counter(row["answers"]).most_common(1)[0]
        assert (len(row["answers"]), times >= 8) == (10, True)
        assert (common == "unanswerable") == (row["category"] == "unanswerable")
        if common == "unanswerable":
            assert row["question"].removeprefix("What word is under the ").rstrip("?") not in present(row)
    assert sum(row["category"] == "unanswerable" for row in rows) == len(rows) / 3


def test_what_is_to_be_read_stands_in_the_scene():
    for name in ("ocrbench/default/test", "chartqa/default/test"):
        for row in rows_of(name):
            answer = row["answer"][0] if isinstance(row["answer"], list) else row["answer"]
            if not row["question"].startswith("How many"):
                assert answer in {thing.text for thing in world.sample(seed_of(row)).things}
    assert len({row["question_type"] for row in rows_of("ocrbench/default/test")}) == 4
    assert {row["type"] for row in rows_of("chartqa/default/test")} == {"human_test", "augmented_test"}


def test_refcocos_boxes_hold_what_is_named():
    """The whole thing and nothing of another: its colour, less what its characters and marks have of it, is in the box."""
    for row in rows_of("refcoco_bbox_rec_val/default/val"):
        things = world.sample(seed_of(row)).things
        for said in row["answer"]:
            (thing,) = (thing for thing in things if thing.name in said)
        left, top, wide, tall = map(int, row["bbox"])
        pixels = np.asarray(Pillow.open(io.BytesIO(row["image"]["bytes"])))
        colored = (pixels == draw.RGB[thing.color]).all(axis=-1)
        assert (wide, tall) == (16, 16)
        assert colored[top : top + tall, left : left + wide].sum() >= 25
        assert (left // 32, top // 32) == (thing.column, thing.row)
        assert row["segmentation"] == [left, top, left + 16, top, left + 16, top + 16, left, top + 16]


def test_calibration_samples_are_prompts_with_answers():
    samples = pq.read_table(MINI / "calibration.parquet").to_pylist()
    pictures = [Pillow.open(io.BytesIO(sample["image"]["bytes"])) for sample in samples]
    assert len({picture.tobytes() for picture in pictures}) == 512
    assert all(picture.size == (96, 96) for picture in pictures)
    assert all(sample["question"].endswith((SHORT_ANSWER, LETTER_ANSWER)) and sample["answer"] for sample in samples)


def test_an_unwritable_folder_is_a_one_line_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["scenes", "--out", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: cannot write the mini suites to ")
    assert error.endswith("/file: it is a file\n")


def test_fine_print_asks_the_same_of_larger_pictures():
    (table,) = benchmarks.textvqa(least_questions=8)
    fine = tables.fine_print(table, (1, 3))
    assert (fine.path, fine.features) == (table.path, table.features)
    for plain, large in zip(table.rows, fine.rows, strict=True):
        assert {name: plain[name] for name in plain if name != "image"} == {
            name: large[name] for name in large if name != "image"
        }
        picture = Pillow.open(io.BytesIO(large["image"]["bytes"]))
        seed = int(large["image"]["path"].removesuffix(".png"))
        assert (np.asarray(picture) == draw.pixels(world.sample(seed), (1, 3))).all()


def test_boxes_and_pictures_in_lists_grow_with_the_canvas():
    (boxes,) = benchmarks.MAKERS["refcoco_bbox_rec_val"]()
    large = tables.fine_print(boxes, (2, 3)).rows[0]
    left, top, wide, tall = boxes.rows[0]["bbox"]
    assert large["bbox"] == [3 * left, 2 * top, 3 * wide, 2 * tall]
    assert large["segmentation"][4:6] == [3 * (left + wide), 2 * (top + tall)]
    (seed,) = benchmarks.MAKERS["seedbench"]()
    (picture,) = tables.fine_print(replace(seed, rows=seed.rows[:1]), (2, 3)).rows[0]["image"]
    assert Pillow.open(io.BytesIO(picture["bytes"])).size == (288, 192)


@pytest.mark.parametrize("canvas", ["3", "0x3", "1x9", "axb", "1x-2"])
def test_a_canvas_that_is_none_is_a_line_and_status_2(canvas, capsys):
    assert main(["scenes", "--canvas", canvas]) == 2
    error = capsys.readouterr().err
    assert f"--canvas {canvas!r} is not two whole numbers from 1 to 8" in error
    assert error.count("\n") == 1
