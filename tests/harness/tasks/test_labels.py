"""Labels as other tools write them: made right where it is certain, else refused with column, row and value before any work."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitprune.errors import FitPruneError
from harness.tasks.build import build_task
from harness.tasks.preflight import check_data
from tests.support.tiny_llava import people, write_suites

PLACES = {
    "gqa": "gqa/testdev_balanced_instructions/testdev",
    "vqav2": "vqav2_val/default/validation",
    "textvqa": "textvqa_val/default/validation",
    "pope": "pope/default/test",
    "mme": "mme/default/test",
    "scienceqa": "scienceqa_img/ScienceQA-IMG/test",
}


@pytest.fixture
def data(tmp_path):
    return write_suites(tmp_path)


def changed(data, suite, column, values, kind=None):
    """The suite's data with a column replaced; a function makes each value of the old one."""
    path = data / f"{PLACES[suite]}.parquet"
    table = pq.read_table(path)
    old = table[column].to_pylist()
    new = [values(row, value) for row, value in enumerate(old)] if callable(values) else values
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(new, kind)), path)
    return path


def at(row, value):
    """Replaces one row's value."""
    return lambda number, old: value if number == row else old


@pytest.mark.parametrize(
    ("suite", "column", "values", "kind", "said"),
    [
        ("gqa", "question", at(3, None), None, "column question, row 3: is null"),
        ("gqa", "answer", at(2, None), None, "column answer, row 2: is null"),
        ("gqa", "question", lambda row, old: row, None, "column question must hold strings, not int64"),
        ("pope", "question", at(3, None), None, "column question, row 3: is null"),
        ("pope", "answer", at(1, None), None, "column answer, row 1: is null"),
        ("pope", "answer", at(5, "maybe"), None, "column answer, row 5: must be yes or no, not 'maybe'"),
        ("pope", "answer", lambda row, old: row, None, "column answer, row 0: must be yes or no, not 0"),
        ("mme", "category", at(1, None), None, "column category, row 1: is null"),
        ("mme", "answer", at(1, "perhaps."), None, "column answer, row 1: must be yes or no, not 'perhaps.'"),
        ("vqav2", "question_id", lambda row, old: 7, None, "column question_id: 7 stands 4 times"),
        ("vqav2", "answers", lambda row, old: old[0]["answer"], None, "column answers, row 0: must be a list of reference"),
        ("vqav2", "answers", at(2, people("red")[:3]), None, "column answers, row 2: 3 reference answers; the"),
        ("vqav2", "answers", at(2, None), None, "column answers, row 2: is null"),
        ("vqav2", "answers", at(1, [{"answer": None, "answer_id": 1}]), None, "column answers, row 1: a reference answer must"),
        ("textvqa", "answers", lambda row, old: "stop", None, "column answers, row 0: must be a list of reference"),
        ("textvqa", "answers", at(1, ["stop"]), None, "column answers, row 1: 1 reference answer; the"),
        ("textvqa", "answers", at(3, ["stop", None, "stop", "stop"]), None, "column answers, row 3: a reference answer must"),
        ("textvqa", "answers", lambda row, old: [1, 2, 3, 4], None, "column answers, row 0: a reference answer must"),
        ("textvqa", "answers", lambda row, old: [{"answer": text} for text in old], None, "column answers, row 0: a ref"),
        ("textvqa", "question_id", lambda row, old: "a", None, "column question_id: 'a' stands 4 times"),
        ("scienceqa", "answer", at(0, None), None, "column answer, row 0: is null"),
        ("scienceqa", "answer", lambda row, old: "A", None, "column answer, row 0: 'A' is not the index of one of 3 choices"),
        ("scienceqa", "answer", lambda row, old: "1", None, "column answer, row 0: '1' is not the index of one of 3 choices"),
        ("scienceqa", "answer", lambda row, old: 0.5, None, "column answer, row 0: 0.5 is not the index of one of 3 choices"),
        ("scienceqa", "answer", at(2, -1), None, "column answer, row 2: -1 is not the index of one of 3 choices"),
        ("scienceqa", "choices", at(1, ["red", None, "blue"]), None, "column choices, row 1: must be a list of strings"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_named_before_any_work(data, suite, column, values, kind, said):
    path = changed(data, suite, column, values, kind)
    for refuse in (lambda: check_data(suite, str(data)), lambda: build_task(suite, str(data))):
        with pytest.raises(FitPruneError) as error:
            refuse()
        assert str(error.value).startswith(f"{path}: {said}")
        assert "\n" not in str(error.value)


def labels(data, suite, column):
    return build_task(suite, str(data)).eval_docs_no_media[column][:]


@pytest.mark.parametrize(
    ("suite", "column", "values"),
    [
        ("pope", "answer", lambda row, old: old.capitalize() + "."),
        ("pope", "answer", lambda row, old: old == "yes"),
        ("pope", "answer", lambda row, old: f" {old}.\n"),
        ("gqa", "imageId", lambda row, old: old),
    ],
)
def test_what_is_certain_is_made_right(data, suite, column, values):
    expected = labels(data, suite, column)
    changed(data, suite, column, values)
    assert labels(data, suite, column) == expected


def test_references_without_ids_are_numbered(data):
    expected = labels(data, "vqav2", "answers")
    changed(data, "vqav2", "answers", lambda row, old: [reference["answer"] for reference in old])
    assert [[reference["answer"] for reference in references] for references in labels(data, "vqav2", "answers")] == [
        [reference["answer"] for reference in references] for references in expected
    ]
    ids = [[reference["answer_id"] for reference in references] for references in labels(data, "vqav2", "answers")]
    assert all(len(set(numbers)) == len(numbers) for numbers in ids)


def test_a_hint_that_is_null_is_no_hint(data):
    task = build_task("scienceqa", str(data))
    expected = task.doc_to_text(task.eval_docs[0])
    changed(data, "scienceqa", "hint", lambda row, old: None, pa.string())
    task = build_task("scienceqa", str(data))
    assert task.doc_to_text(task.eval_docs[0]) == expected


def test_ids_that_are_numbers_in_one_table_and_strings_in_the_other_meet(data):
    numbers = {f"i{n}": n for n in range(3)}
    changed(data, "gqa", "imageId", lambda row, old: numbers[old])
    images = data / "gqa/testdev_balanced_images/testdev.parquet"
    table = pq.read_table(images)
    renamed = pa.array([str(numbers[name]) for name in table["id"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("id"), "id", renamed), images)
    task = build_task("gqa", str(data))
    assert [doc["imageId"] for doc in task.eval_docs_no_media] == ["0", "0", "1", "1", "2", "2"]


def test_questions_without_a_picture_are_refused_with_the_table_of_pictures(data):
    changed(data, "gqa", "imageId", lambda row, old: row)
    with pytest.raises(FitPruneError, match=r"images/testdev.parquet: 6 questions name an imageId without an image, e.g. 0$"):
        check_data("gqa", str(data))


def test_an_id_of_two_pictures_is_refused(data):
    images = data / "gqa/testdev_balanced_images/testdev.parquet"
    table = pq.read_table(images)
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]), images)
    with pytest.raises(FitPruneError, match=r"testdev.parquet: column id: 'i1' names 2 pictures"):
        check_data("gqa", str(data))


def documents(data, suite):
    """The suite's questions, each with the pixels of its picture."""
    return [doc | {"image": doc["image"].tobytes()} for doc in build_task(suite, str(data)).eval_docs]


def stored_as(column, text, binary):
    """A column with its strings and bytes of other types, lists large ones."""
    if pa.types.is_string(column.type):
        return column.dictionary_encode() if pa.types.is_dictionary(text) else column.cast(text)
    if pa.types.is_list(column.type):
        return column.cast(pa.large_list(column.type.value_type))
    if pa.types.is_struct(column.type):
        flat = column.combine_chunks()
        fields = [flat.field(part.name).cast(binary if pa.types.is_binary(part.type) else part.type) for part in flat.type]
        return pa.StructArray.from_arrays(fields, [part.name for part in flat.type])
    return column


@pytest.mark.parametrize(
    ("text", "binary"),
    [
        (pa.large_string(), pa.large_binary()),
        (pa.dictionary(pa.int32(), pa.string()), pa.binary()),
        (pa.string_view(), pa.binary_view()),
    ],
    ids=["large", "dictionary", "view"],
)
@pytest.mark.parametrize("suite", PLACES)
def test_large_view_and_dictionary_types_are_what_they_hold(data, suite, text, binary):
    path = data / f"{PLACES[suite]}.parquet"
    before = documents(data, suite)
    table = pq.read_table(path)
    pq.write_table(pa.table({name: stored_as(table[name], text, binary) for name in table.column_names}), path)
    assert documents(data, suite) == before


def parts(data, **files):
    """POPE's questions in parts."""
    path = data / "pope/default/test.parquet"
    table = pq.read_table(path)
    path.unlink()
    for name, (start, count) in files.items():
        pq.write_table(table.slice(start, count), path.with_name(f"{name.replace('_', '-')}.parquet"))
    return path.parent


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"test_00000_of_00003": (0, 4), "test_00002_of_00003": (8, 4)},
            "1 of the 3 parts of test are missing, e.g. test-00001-of-00003",
        ),
        (
            {"test_00000_of_00001": (0, 12), "test_00000_of_00001_0f1e2d3c4b5a6978": (0, 12)},
            "the parts of test are of several generations (test-00000-of-00001-0f1e2d3c4b5a6978.parquet, ",
        ),
        (
            {"test_00000_of_00002": (0, 6), "test_00001_of_00002": (6, 6), "test_00000_of_00001": (0, 12)},
            "the parts of test are of several generations",
        ),
        ({"test_00001_of_00002": (0, 12)}, "1 of the 2 parts of test are missing, e.g. test-00000-of-00002.parquet"),
        ({"test_new": (0, 12)}, "test.parquet does not exist"),
    ],
)  # fmt: skip
def test_parts_that_are_no_whole_split_are_refused_by_name(data, files, said):
    place = parts(data, **files)
    with pytest.raises(FitPruneError) as error:
        check_data("pope", str(data))
    assert said in str(error.value)
    assert str(place) in str(error.value)


def test_a_whole_file_beside_parts_is_refused(data):
    path = data / "pope/default/test.parquet"
    pq.write_table(pq.read_table(path), path.with_name("test-00000-of-00001.parquet"))
    with pytest.raises(FitPruneError, match=r"test.parquet and test-00000-of-00001.parquet are both there"):
        check_data("pope", str(data))


def test_parts_of_another_split_are_left_alone(data):
    parts(data, test_00000_of_00001_0f1e=(0, 12), test_dev_00000_of_00001=(0, 5), train_00000_of_00002=(0, 3))
    assert len(build_task("pope", str(data)).eval_docs) == 12
