"""The suites beside the six: each runs lmms-eval's own code on local data, and scores what lmms-eval's own aggregation gives.

Answers are made up, right and wrong ones in turn; all else is an evaluation's: reading, prompts, pictures, scoring.
"""

import contextlib
import io
import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, concatenate_datasets
from PIL import Image as Pillow

import suites
from fitprune import FitPruneError
from harness.answering import evaluate, lmms_model
from harness.answering.batching import Finished, Record, keys_of
from harness.answers import F1, MEAN, PAIRS, RESAMPLED
from harness.cells import CellSettings
from harness.models.loading import load_model
from harness.statistics import paired_drop, score_interval
from harness.statistics.drops import no_drop
from harness.tasks.build import build_task, task_manager
from harness.tasks.isolation import lmms_eval_evaluator
from harness.tasks.mini_data import mini_folder
from harness.tasks.preflight import check_data
from harness.tasks.shipped import SHIPPED
from harness.tasks.shipped.grounding import expressions
from harness.tasks.shipped.multiple_choice import circular, rotation
from harness.tasks.shipped.open_ended import mean_score
from harness.tasks.shipped.yes_no import TOTAL, mme_results, mme_total
from harness.tasks.specs import SUITES
from tests.support.tiny_llava import picture, write

pytestmark = pytest.mark.releases
MINI = ["vizwiz", "textvqa-ocr", "chartqa", "ocrbench", "mmbench", "mmbench-cn", "seedbench", "ai2d", "refcoco"]
MINI += ["pope-f1", "pope-f1-adversarial", "pope-f1-popular", "pope-f1-random", "mme-total"]
VIDEOS = ["videomme", "mvbench", "nextqa", "mini-video"]  # tests/harness/tasks/test_video_suites.py
DRAWN = ["docvqa", "infovqa", "mmmu", "mmstar", "realworldqa"]
RIGHT = {
    "vizwiz": lambda doc: doc["answers"][0],
    "textvqa-ocr": lambda doc: doc["answers"][0],
    "chartqa": lambda doc: doc["answer"],
    "ocrbench": lambda doc: f"it says {doc['answer'][0]}.",
    "seedbench": lambda doc: f"{doc['answer']}. that one",
    "ai2d": lambda doc: f"{'ABCD'[int(doc['answer'])]}. that one",
    "refcoco": lambda doc: f"[{', '.join(f'{edge:.2f}' for edge in doc['bbox'])}]",
    "docvqa": lambda doc: doc["answers"][0],
    "infovqa": lambda doc: doc["answers"][0],
}
"""A right answer to a question; where nothing else is said, its `answer`."""


@pytest.fixture(scope="module")
def loaded():
    return load_model("llava-tiny", device="cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A few rows of each suite without a mini edition, in the columns of its public data set."""
    folder = tmp_path_factory.mktemp("drawn")
    for task, config in (("docvqa_val", "DocVQA"), ("infovqa_val", "InfographicVQA")):
        rows = [
            {
                "questionId": f"{n}",
                "question": f"what is number {n} ?",
                "image": picture(n // 2),
                "answers": [f"answer {n}", f"Answer {n}."],
            }
            for n in range(8)
        ]
        write(folder, f"{task}/{config}/validation", rows)
    write(folder, "mmmu_val/default/validation", [mmmu(n) for n in range(12)])
    rows = [
        {
            "index": n,
            "question": f"what is <image 1> {n} ?\nOptions: A: red, B: blue, C: green, D: black",
            "image": picture(n // 2),
            "answer": "ABCD"[n % 4],
            "category": "math" if n < 8 else "logical reasoning",
            "l2_category": "geometry" if n < 8 else "common reasoning",
            "meta_info": {"source": "drawn"},
        }
        for n in range(12)
    ]
    write(folder, "mmstar/default/val", rows)
    rows = [
        {
            "image": picture(n // 2),
            "image_path": f"{n}.webp",
            "question": f"How many ? {n}",
            "answer": str(n) if n % 2 else "ABC"[n % 3],
        }
        for n in range(8)
    ]
    write(folder, "realworldqa/default/test", rows)
    return folder


def mmmu(n: int) -> dict:
    """A question of multiple choice, or an open one; every third shows two pictures."""
    open_ended, second = n % 4 == 3, n % 3 == 2
    places = {f"image_{place}": None for place in range(3, 8)}
    return {
        "id": f"validation_{'Art' if n < 6 else 'Math'}_{n}",
        "question": f"what is <image 1>{' beside <image 2>' if second else ''} {n} ?",
        "options": "[]" if open_ended else "['red', 'blue', 'green', 'black']",
        "answer": str(10 + n) if open_ended else "ABCD"[n % 3],
        "question_type": "open" if open_ended else "multiple-choice",
        "image_1": picture(n),
        "image_2": picture(n + 50) if second else None,
        **places,
    }


@pytest.fixture
def evaluated(loaded, drawn, monkeypatch):
    """Runs a suite with made-up answers: (Answers, lmms-eval's figure, its samples)."""
    evaluator = lmms_eval_evaluator()

    def run(suite: str, wrong=lambda place: place // 4 % 3 == 1, limit: int | None = 24):
        data = str(drawn) if suite in DRAWN else "mini"
        task = build_task(suite, data, limit)
        docs, right = task.eval_docs_no_media, RIGHT.get(suite, lambda doc: str(doc["answer"]))

        def answer(batch):
            place, doc = batch.key[1], docs[batch.key[1]]
            turned = {"yes": "no", "no": "yes"}.get(str(doc["answer"]).lower() if "answer" in doc else "")
            return turned or "none of these, I think" if wrong(place) else right(doc)

        def generate(loaded, pruner, batch, counting):
            texts = [answer(request) for request in batch.requests]
            return Finished(keys_of(batch.requests), texts, [Record(image, 9, 4, 1) for image in batch.images], None, 0.0)

        kept = {}

        def simple_evaluate(**options):
            # By itself, on the same answers, with all that lmms-eval can log of each question.
            kept.update(evaluator.simple_evaluate(**options | {"tasks": [build_task(suite, data, limit)], "log_samples": True}))
            return evaluator.simple_evaluate(**options)

        monkeypatch.setattr(lmms_model, "generate", generate)
        monkeypatch.setattr(evaluate, "lmms_eval_evaluator", lambda: SimpleNamespace(simple_evaluate=simple_evaluate))
        spec = SUITES[suite]
        answers = evaluate.evaluate_cell(loaded, None, suite, CellSettings(data, limit), task=task)
        metric = spec.metric.name
        figure = next(value for name, value in kept["results"][spec.task].items() if name.startswith(f"{metric},"))
        return answers, figure, kept["samples"][spec.task]

    return run


def lmms_evals_points(suite: str, figure: float, values: list) -> float:
    """The suite's points, made of lmms-eval's aggregate literally."""
    if suite == "ocrbench":
        return 100 * figure * 1000 / len(values)  # it divides by the public set's 1000 questions
    if suite == "mme-total":
        return 100 * figure / (200 * len({value["category"] for value in values}))
    if suite in ("mmbench", "mmbench-cn"):
        from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

        with contextlib.redirect_stdout(io.StringIO()):
            return 100 * MMBench_Evaluator().eval_result(values, eval_method="static")[0]
    return 100 * figure


@pytest.mark.parametrize("suite", [*MINI, *DRAWN])
def test_its_score_is_lmms_evals_own(suite, evaluated):
    answers, figure, samples = evaluated(suite)
    values = [sample[answers.metric] for sample in samples]
    assert 0 < answers.score < 100
    tolerance = 1e-3 if suite == "mmmu" else 1e-9  # lmms-eval rounds MMMU's to five digits
    assert answers.score == pytest.approx(lmms_evals_points(suite, figure, values), abs=tolerance)
    assert len(answers.answers) == len(values)
    assert all(answer.image for answer in answers.answers)
    assert all(0 <= answer.score <= 1 for answer in answers.answers)
    assert 0 < sum(answer.score for answer in answers.answers) < len(values)
    expected = {"mme-total": PAIRS, "mmbench": RESAMPLED, "mmbench-cn": RESAMPLED, "mmstar": RESAMPLED}
    assert answers.statistic == (F1 if suite.startswith("pope") else expected.get(suite, MEAN))
    # Question by question what lmms-eval logs, where it is asked to.
    for place, (sample, answer) in enumerate(zip(samples, answers.answers, strict=True)):
        assert sample["doc_id"] == place
        assert [answer.question, answer.answer] == [sample["doc"].get("question", ""), sample["filtered_resps"][0]]
        if not sample["doc"].get("answers"):
            assert answer.target == str(sample["target"])
        if isinstance(values[place], int | float) and answers.statistic == MEAN:
            assert answer.score == values[place] / (SUITES[suite].metric.full or 1)


def test_all_that_ship_are_tested_here():
    everyday = [spec.name for spec in SHIPPED if spec.everyday]
    assert everyday == ["gqa", "vqav2", "textvqa", "pope", "mme", "scienceqa"]
    assert {spec.name for spec in SHIPPED} == {*everyday, *MINI, *DRAWN, *VIDEOS, "mmvet"}


@pytest.mark.parametrize("name", [spec.name for spec in SHIPPED])
def test_each_has_a_short_file(name):
    file = Path(suites.__file__).parent / f"test_{name.replace('-', '_')}.py"
    text = file.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert text.endswith(f"\n\n\ndef {file.stem}(cell):\n    cell.check()\n")
    assert len(text.splitlines()) == 5


def test_textvqas_variant_gives_the_ocr_tokens():
    plain, other = build_task("textvqa", "mini", 3), build_task("textvqa-ocr", "mini", 3)
    for doc in plain.eval_docs_no_media:
        question, ending = plain.doc_to_text(doc).split("\n")
        assert other.doc_to_text(doc) == f"{question}\nReference OCR token: {', '.join(doc['ocr_tokens'])}\n{ending}"
    assert plain.data_digest == other.data_digest


def test_a_limit_keeps_the_rotations_of_a_question_together():
    task = build_task("mmbench", "mini", 20)
    asked = Counter(index % 1_000_000 for index in task.eval_docs_no_media["index"])
    there = Counter(index % 1_000_000 for index in build_task("mmbench", "mini").eval_docs_no_media["index"])
    assert len(asked) == 5
    assert all(there[index] == count for index, count in asked.items())
    assert task.notes == [
        f"mmbench_en_dev_static: 20 questions asked, {len(task.rows)} used: what is scored together stays together"
    ]


PREDICTIONS = [
    "A",
    "B.",
    "(C)",
    "the answer is D",
    "red",
    "It is the Blue one",
    "a red or a blue one",
    "A B",
    "nan",
    "",
    "none",
]


@pytest.mark.parametrize("absent", [None, "nan"])
def test_mmbenchs_own_evaluation_of_any_answer_gives_the_same(absent):
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    rows = []
    for place, (said, right) in enumerate(itertools.product(PREDICTIONS, "ABC")):
        options = {"A": "red", "B": "blue", "C": "banana", "D": absent}
        common = {**options, "question": "what?", "answer": right, "prediction": said, "category": "c", "L2-category": "l"}
        rows += [{**common, "index": place}, {**common, "index": place + 1_000_000, "prediction": right}]
    for row in rows[::2]:
        with contextlib.redirect_stdout(io.StringIO()):
            alone, *_ = MMBench_Evaluator().eval_result([dict(row)], eval_method="static")
        assert rotation(row) == alone, row["prediction"]
    with contextlib.redirect_stdout(io.StringIO()):
        overall, *_ = MMBench_Evaluator().eval_result([dict(row) for row in rows], eval_method="static")
    assert circular(rows) == pytest.approx(overall)
    assert 0 < overall < 1


def test_of_seedbench_questions_about_videos_are_left_out():
    task = build_task("seedbench", "mini", 4)
    rows = Dataset.from_list([{"data_type": kind, "n": n} for n, kind in enumerate(["image", "video", "image"])])
    assert task.config.process_docs(rows)["n"] == [0, 2]


def test_ocrbench_scores_the_same_again(evaluated, tmp_path):
    """lmms-eval's aggregation goes on adding to the sums of the call before."""
    answers, figure, samples = evaluated("ocrbench")
    values = [sample[answers.metric] for sample in samples]
    aggregate = build_task("ocrbench", "mini").aggregation()["ocrbench_accuracy"]
    args = SimpleNamespace(output_path=str(tmp_path))
    assert [aggregate(values, args), aggregate(values, args)] == pytest.approx([figure, 2 * figure])
    assert mean_score(values) == mean_score(values) == pytest.approx(answers.score / 100)


def test_mmes_total_is_that_of_both_halves():
    """Perception's ten categories and cognition's four, 200 points each."""
    from lmms_eval.tasks.mme.utils import mme_aggregate_results, mme_process_results

    docs = [
        {"question_id": f"{n // 2}.png", "category": category, "answer": "Yes" if n % 2 else "No"}
        for category in ("existence", "OCR", "code_reasoning")
        for n in range(4)
    ]
    said = ["no", "yes", "no", "no", "no", "yes", "no", "yes", "yes", "yes", "no", "yes"]
    found: dict[str, list] = {}
    for doc, answer in zip(docs, said, strict=True):
        for name, value in mme_process_results(doc, [answer]).items():
            found.setdefault(name, []).append(value)
    expected = sum(mme_aggregate_results(values) for values in found.values())
    ours = [mme_results(doc, [answer])[TOTAL] for doc, answer in zip(docs, said, strict=True)]
    assert len(found) == 2
    assert mme_total(ours) == expected == 125 + 200 + 125


@pytest.mark.parametrize(
    ("suite", "column", "value", "said"),
    [
        ("mmbench", "answer", "E", "column answer, row 1: must be one of A, B, C, D, not 'E'"),
        ("mmbench", "answer", "D", "column answer, row 1: is D, and column D has no option there"),
        ("mmbench", "index", 0, "column index: 0 stands 4 times"),
        ("seedbench", "answer", "e", "column answer, row 1: must be one of A, B, C, D, not 'e'"),
        ("seedbench", "data_type", None, "column data_type, row 1: is null"),
        ("ai2d", "answer", "4", "column answer, row 1: '4' is not the number of one of 4 options, from 0"),
        ("chartqa", "answer", None, "column answer, row 1: is null"),
        ("ocrbench", "question_type", "Poems", "column question_type, row 1: must be one of Regular Text Recognition"),
        ("ocrbench", "answer", [], "column answer, row 1: must be a list of strings, not []"),
        ("refcoco", "bbox", [1.0, 2.0, 0.0, 4.0], "column bbox, row 1: must be left, top, width and height in pixels, not [1"),
        ("refcoco", "answer", None, "column answer, row 1: must be a list of strings, not None"),
        ("vizwiz", "answers", ["red"], "column answers, row 1: "),
        ("docvqa", "answers", None, "column answers, row 1: must be a list of strings, not None"),
        ("mmmu", "options", "red", "column options, row 1: must be a Python list, written out, not 'red'"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused_in_one_line(suite, column, value, said, drawn, tmp_path):
    spec = SUITES[suite]
    place = f"{spec.task}/{spec.questions.config or 'default'}/{spec.questions.split}.parquet"
    table = pq.read_table((drawn if suite in DRAWN else mini_folder()) / place)
    values = table[column].to_pylist()[:4]
    values[1] = value
    if column == "index":
        values = [value] * 4
    changed = table.slice(0, 4).set_column(
        table.column_names.index(column), table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )
    (tmp_path / place).parent.mkdir(parents=True)
    pq.write_table(changed, tmp_path / place)
    with pytest.raises(FitPruneError) as refused:
        check_data(suite, str(tmp_path))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suite", ["mmbench", "pope-f1"])
def test_answers_lose_nothing_against_themselves(suite, evaluated):
    """A dense cell's drop, whatever the statistic."""
    answers = evaluated(suite)[0]
    drop = no_drop(answers)
    assert (drop.drop, drop.low, drop.high, drop.n) == (0, 0, 0, len(answers.answers))


@pytest.mark.parametrize("suite", ["mmbench", "refcoco"])
def test_a_drop_has_an_interval(suite, evaluated):
    before, after = evaluated(suite)[0], evaluated(suite, wrong=lambda place: place // 4 % 2 == 1)[0]
    drop = paired_drop(before, after)
    assert drop.drop == pytest.approx(before.score - after.score)
    assert drop.low < drop.drop < drop.high
    assert score_interval(before).low < before.score


def test_refcocos_questions_are_those_that_lmms_eval_prepares():
    original = task_manager("refcoco")._get_config("refcoco_bbox_rec_val")["process_docs"]
    rows = Dataset.from_parquet(str(mini_folder() / "refcoco_bbox_rec_val/default/val.parquet"), keep_in_memory=True)
    turned = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6  # shown with its sides exchanged
    Pillow.new("RGB", (60, 40)).save(turned, "PNG", exif=exif)
    row = {**rows.with_format(None)[0], "image": {"bytes": turned.getvalue(), "path": None}}
    rows = concatenate_datasets([rows.select(range(5)), Dataset.from_list([row], features=rows.features)])
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = original(rows)
    ours = expressions(rows)
    assert len(ours) == len(theirs) > len(rows)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert one.pop("bbox") == pytest.approx(other.pop("bbox"), abs=1e-6)
        assert one.pop("image").tobytes() == other.pop("image").tobytes()
        assert one == other
