"""`evaluate_cell`: a model's answers to a suite under a pruner, scored by lmms-eval."""

import contextlib
import copy
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.answering.judge import Judge, asked, open_judge
from harness.answering.scoring import UNSCORED, scored, scoring_arguments
from harness.answering.trial import tried
from harness.answers import Answer, Answers
from harness.cells import CellSettings
from harness.models.videos.reading import FRAMES
from harness.results.key import digest_of
from harness.results.sources import folder_digest, package_digest
from harness.tasks.build import build_task, refusing, task_folder, task_manager
from harness.tasks.isolation import contained, lmms_eval_evaluator, quiet
from harness.tasks.spec import SuiteSpec
from harness.tasks.specs import find_suite, frames_shown, package_of

if TYPE_CHECKING:
    import torch
    from lmms_eval.api.task import ConfigurableTask

    from fitprune import Pruner
    from harness.answering.batching import Record
    from harness.answering.input_cache import InputCache
    from harness.answering.lmms_model import Observer
    from harness.models.loading import LoadedModel, ModelOutline
    from harness.results.journal import Journal


def evaluate_cell(
    loaded: "LoadedModel",
    pruner: "Pruner | None",
    suite: str,
    settings: CellSettings,
    *,
    observer: "Observer | None" = None,
    journal: "Journal | None" = None,
    cache: "InputCache | None" = None,
    task: "ConfigurableTask | None" = None,
) -> Answers:
    """Ask a model the questions of a suite and let lmms-eval score the answers.

    Args:
        pruner: None for the dense model.
        settings: which questions, and how; the seed is that of the random generators during the run, the caller's are restored.
        observer: called with each finished batch; see `FitPruneLMM`.
        journal: of this very cell; what stands in it is not asked again.
        cache: inputs kept from cells of the same model.
        task: the suite's task if it is built already; a part of its questions, say.

    Raises FitPruneError for unfit data, and when every answer is empty.
    """
    started = time.perf_counter()
    evaluator = lmms_eval_evaluator()
    from harness.answering.lmms_model import LOOK_AHEAD, VIDEOS_AHEAD, FitPruneLMM
    from harness.answering.questions import BROKEN

    part = None if task is None else tuple(task.rows)
    # A copy: what is asked, and how it is scored, is noted in it.
    task = copy.copy(task or build_task(suite, settings.data, settings.limit))
    judging, batch_size, seed = open_judge(settings.judge), settings.batch_size, settings.seed
    spec = tried(find_suite(suite), task, judging)
    frames = frames_shown(spec.name, settings.frames)
    model = FitPruneLMM(
        loaded,
        pruner,
        batch_size=batch_size,
        observer=observer,
        journal=journal,
        kept_inputs=None if cache is None else cache.of(spec.name, task.data_digest, settings, part),
        allow_broken=settings.allow_broken_images,
        frames=frames or FRAMES,
        look_ahead=VIDEOS_AHEAD if frames else LOOK_AHEAD,
    )
    earlier = sum(entry["seconds"] for entry in journal.entries) if journal else 0.0
    with contained(), tempfile.TemporaryDirectory() as folder, quiet(), asked(judging, suite), _scoring(spec):
        answers, values = _noted(spec, task, model.records)
        results = evaluator.simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=task_manager(suite),
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            process_docs_parallel=1,
            log_samples=False,
            cli_args=scoring_arguments(folder),
        )
        made = scored(spec, task, values, answers, results["results"][spec.task])
    for answer, score in zip(answers, made.scores, strict=True):
        answer.score = score
    if not any(answer.answer for answer in answers):
        raise FitPruneError(
            f"all {len(answers)} answers of '{loaded.name}' on {suite} are empty: "
            "the model, its chat template or its end token does not fit"
        )
    broken = sum(record.image.startswith(BROKEN) for record in model.records.values())
    kind = "videos" if frames else "pictures"
    notes = [f"{suite}: {broken} {kind} cannot be decoded; their questions count as wrong"] if broken else []
    if model.halved:
        half = -(-batch_size // 2)
        notes.append(f"{suite}: memory ran out with {batch_size} questions at a time, so from there on {half} were asked")
    return Answers(
        suite=spec.name,
        metric=spec.metric.name,
        statistic=made.statistic,
        score=made.points,
        replicates=made.replicates,
        answers=answers,
        prompts=len(answers),
        seconds=earlier + time.perf_counter() - started,
        data_digest=task.data_digest,
        generation=generation_settings(spec, task.config.generation_kwargs, settings, str(loaded.dtype))
        | _judged(spec, judging),
        tokens=_mean_tokens(list(model.records.values())),
        notes=[*task.notes, *notes],
    )


def conditions(suite: str, settings: CellSettings, dtype: str) -> dict[str, Any]:
    """What of a cell's outcome its suite decides, known before it runs: `metric` and the `statistic` that it claims,
    `task_code`, `data_digest`, `generation`.
    """
    task, judging = build_task(suite, settings.data, settings.limit), open_judge(settings.judge)
    spec = tried(find_suite(suite), task, judging)
    code = folder_digest(task_folder(suite))
    if package := package_of(spec):
        code = digest_of([code, package_digest(package)], 12)
    return {
        "metric": spec.metric.name,
        "statistic": spec.metric.statistic,
        "task_code": code,
        "data_digest": task.data_digest,
        "generation": generation_settings(spec, task.config.generation_kwargs, settings, dtype) | _judged(spec, judging),
    }


def sample_inputs(
    loaded: "LoadedModel | ModelOutline",
    suite: str,
    *,
    data: str = "mini",
    limit: int | None = None,
    batch_size: int = 16,
    frames: int | None = None,
) -> "Iterator[dict[str, torch.Tensor]]":
    """The model's inputs for a suite's questions, batch by batch, exactly as `evaluate_cell` generates from them."""
    lmms_eval_evaluator()
    from harness.answering.batching import in_batches
    from harness.answering.questions import Questions

    task = build_task(suite, data, limit)
    shown = frames_shown(find_suite(suite).name, frames) or FRAMES
    questions = Questions(loaded, {task.config.task: task.dataset}, frames=shown)
    with quiet():
        task.build_all_requests()
    requests = [questions.read(place, request) for place, request in enumerate(task.instances)]
    for batch in in_batches(requests, batch_size, loaded.processor.tokenizer):
        yield questions.inputs(batch)[0]


def _judged(spec: SuiteSpec, judge: Judge | None) -> dict[str, Any]:
    """What of a suite's settings says who scored its answers, where a language model does."""
    spec.require_judge(judge)
    return {"judge": judge.known(task_folder(spec.name))} if spec.judge and judge else {}


def _scoring(spec: SuiteSpec) -> contextlib.AbstractContextManager[None]:
    """Inside, what a task of which nothing is known raises is refused in one line."""
    return contextlib.nullcontext() if spec.questions is not None else refusing(spec.name, "lmms-eval stopped")


def _noted(
    spec: SuiteSpec, task: "ConfigurableTask", records: "Mapping[tuple[str, int], Record]"
) -> tuple[list[Answer], list[Any]]:
    """Two lists that fill while lmms-eval scores the task, by doc_id: the answers, their scores still NaN, and what lmms-eval
    gives for each. By itself it would keep every question with its document and all that was asked; and of other metrics the
    values.
    """
    answers, values, process = list[Answer](), list[Any](), task.process_results

    def processed(doc: Mapping[str, Any], results: list[Any]) -> dict[str, Any]:
        metrics = process(doc, results)  # first: a task may set its document right there
        counted = Counter(answer["answer"] if isinstance(answer, dict) else answer for answer in doc.get("answers") or ())
        place = len(answers)
        record = records[spec.task, place]
        answers.append(
            Answer(
                doc_id=int(task.rows[place]),
                image=record.image,
                question=str(doc.get("question", "")),
                answer=sys.intern(str(results[0])),
                target=sys.intern(str(counted.most_common(1)[0][0] if counted else task.doc_to_target(doc))),
                score=math.nan,
                group=str(doc[spec.stratum]) if spec.paired and spec.stratum else "",
                new_tokens=record.new_tokens,
                margin=record.margin,
                entropy=record.entropy,
            )
        )
        values.append(metrics.get(spec.metric.name, UNSCORED))
        return {name: value for name, value in metrics.items() if name == spec.metric.name}

    task.process_results = processed
    return answers, values


def generation_settings(spec: SuiteSpec, options: Mapping[str, Any], settings: CellSettings, dtype: str) -> dict[str, Any]:
    """How answers are generated, of a task's `generation_kwargs`, as a result records it; of videos by how many frames, and
    what read them.
    """
    from harness.answering.questions import MAX_NEW_TOKENS

    generated = {
        "do_sample": False,
        "max_new_tokens": int(options.get("max_new_tokens") or MAX_NEW_TOKENS),
        "until": list(options.get("until") or ()),
        "batch_size": settings.batch_size,
        "dtype": dtype.removeprefix("torch."),
    }
    if frames := frames_shown(spec.name, settings.frames):
        generated |= {"frames": frames, "av": metadata.version("av")}
    return generated | ({"broken_images": "count as wrong"} if settings.allow_broken_images else {})


def _mean_tokens(records: "Sequence[Record]") -> dict[str, float]:
    names = ("prompt_tokens", "visual_tokens", "new_tokens")
    return {name: sum(getattr(record, name) for record in records) / len(records) for name in names}
