"""Memory that runs out: batches are halved once, with a note; then a line says what to do."""

import pytest
import torch

from fitprune.errors import FitPruneError
from harness.models.gpu_memory import is_out_of_memory
from harness.models.loading import load_model
from harness.results.journal import Journal
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support.evaluating import evaluate_cell
from tests.support.tiny_llava import save_tiny, write_suites

pytest_plugins = ["pytester", "tests.support.suite_runs"]

NOTE = "pope: memory ran out with 8 questions at a time, so from there on 4 were asked"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(str(save_tiny(tmp_path_factory.mktemp("m") / "m")), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_suites(tmp_path_factory.mktemp("d")))


@pytest.fixture
def room(monkeypatch):
    """Sets how many questions a batch may have, from which batch on, and what is raised beyond; gives the sizes asked."""
    lmms_eval_evaluator()
    from harness.answering import lmms_model

    plain, sizes = lmms_model.generate, []
    limit = {"most": 99, "after": 0, "error": torch.OutOfMemoryError("CUDA out of memory")}

    def generate(loaded, pruner, batch, counting):
        sizes.append(len(batch.requests))
        if len(batch.requests) > limit["most"] and len(sizes) > limit["after"]:
            raise limit["error"]
        return plain(loaded, pruner, batch, counting)

    monkeypatch.setattr(lmms_model, "generate", generate)

    def set_to(**changes):
        limit.update(changes)
        sizes.clear()
        return sizes

    return set_to


def ask(loaded, data, journal=None):
    return evaluate_cell(loaded, None, "pope", data=data, batch_size=8, journal=journal)


def said(answers):
    return [(answer.doc_id, answer.answer, answer.score) for answer in answers.answers]


def cpu_error():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    return raised.value


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), cpu_error(), MemoryError()])
def test_batches_are_halved_once_with_a_note_and_the_same_answers(loaded, data, room, error):
    sizes = room()
    whole = ask(loaded, data)
    assert sizes == [8, 4]
    assert not whole.notes
    sizes = room(most=4, error=error)
    parts = ask(loaded, data)
    assert sizes == [8, 4, 4, 2, 2]
    assert said(parts) == said(whole)
    assert parts.notes == [NOTE]
    assert parts.tokens == whole.tokens


def test_what_was_answered_before_stays(loaded, data, room):
    sizes = room(most=3, after=1)
    parts = ask(loaded, data)
    assert sizes == [8, 4, 2, 2]
    assert parts.notes == [NOTE]


def test_then_it_is_a_line_that_names_model_batch_and_what_to_do(loaded, data, room):
    room(most=3)
    with pytest.raises(FitPruneError) as error:
        ask(loaded, data)
    assert str(error.value) == (
        f"{loaded.name}, dense, pope: out of memory with 4 questions at a time; take a --batch-size of 2, fewer workers (-n), "
        "a card with more free memory (--device), or --device auto, which spreads the model over all cards"
    )


def test_a_killed_run_goes_on_in_halves_and_keeps_the_note(loaded, data, room, tmp_path):
    sizes = room(most=4)
    whole = ask(loaded, data, Journal(tmp_path / "j"))
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    (tmp_path / "j").write_bytes(b"".join(lines[:1]))
    sizes = room(most=4)
    again = ask(loaded, data, Journal(tmp_path / "j"))
    assert sizes == [4, 2, 2]
    assert (said(again), again.notes) == (said(whole), whole.notes)


def test_other_errors_are_other_errors(loaded, data, room):
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    sizes = room(most=4, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        ask(loaded, data)
    assert sizes == [8]


def test_a_cell_that_runs_out_elsewhere_is_a_line_without_a_traceback(run, monkeypatch):
    from tests.support.fake_bench import FakeTiming

    def of(self, resolved):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(FakeTiming, "of", of)
    result = run("--pruner", "random", "--reduction", "0.5", "--batch-size", "6")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*m-random-0.5 on gqa: out of memory with 6 questions at a time; take a --batch-size of 3, *"])
    assert "Traceback" not in result.stdout.str()
    assert "fake_bench.py" not in result.stdout.str()
