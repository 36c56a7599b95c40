"""What do data of real size cost, in time and memory: opened, to the first question, for a hundred questions, for a plan, for
all questions?

    python -m tests.benchmarks.bench_data [--data hub] [--keep DIR]

The data are made up, in the columns of the real ones: VQAv2's 214 354 questions and POPE's 9 000, each with a JPEG of
640 x 480, 6.5 GB together, in row groups of a hundred rows as hub files have them. Few pictures are different, since what is
read of a file does not depend on it. Each figure is of a process of its own, on a random LLaVA of a megabyte; memory is what
the process has at its peak above one that asks a hundred mini questions; of eight workers that ask at the same time, each one's
part of what they share counts (PSS), less that of eight that ask mini questions. A whole run is answered by a stub: it asks no
model and reads no picture, and all else is what a run does, its journal and the counts of a decoder of 32 layers included.
With `--data hub` the same files are data sets of a stand-in of the hub on this machine, and `download` is what fetches them.
Promised: 10 s of the processor to the first question once the digest is known, and 600 MB, what is mapped of the data's files
among it; above either it fails.
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from datasets import Image as ImageFeature
from PIL import Image
from tabulate import tabulate
from transformers import LlamaConfig

VQAV2, POPE, SHARDS = 214_354, 9_000, 9
WORKERS, TOGETHER = 8, "first question, eight workers"
DECODER = LlamaConfig(num_hidden_layers=32)  # whose counts a whole run writes down
SOON, MOST = 10, 600  # seconds, MB
HUB = {"vqav2": "lmms-lab-encoder/VQAv2", "pope": "lmms-lab-encoder/POPE"}
LIMITS = {"open": None, "first question": None, "hundred questions": 100, "plan": None, "whole run": None}


def make_vqav2(folder: Path) -> None:
    place = folder / "vqav2_val/default"
    place.mkdir(parents=True)
    pictures = _pictures()
    rng = np.random.default_rng(0)
    for shard, rows in enumerate(np.array_split(np.arange(VQAV2), SHARDS)):
        people = [
            [{"answer": f"word {n % 7}", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)] for n in rows
        ]
        length = rng.integers(2, 9, len(rows))
        table = pa.table(
            {
                "question": ["what is left of the red one" + " in front" * n + " ?" for n in length],
                "question_id": rows,
                "image_id": rows // 5,
                "answers": people,
            }
        )
        _write(place / f"validation-{shard:05d}-of-{SHARDS:05d}.parquet", table, pictures)


def make_pope(folder: Path, questions: int = POPE) -> None:
    place = folder / "pope/default"
    place.mkdir(parents=True)
    rows = np.arange(questions)
    table = pa.table(
        {
            "question": [f"Is there a dog in the image number {n} ?" for n in rows],
            "answer": ["yes" if n % 2 else "no" for n in rows],
            "question_id": rows.astype(str),
            "image_source": [f"COCO_{n // 6}" for n in rows],
            "category": np.array(["random", "popular", "adversarial"])[rows % 3],
        }
    )
    _write(place / "test.parquet", table, _pictures())


def _pictures() -> list[dict]:
    """A hundred pictures of about 30 kB."""
    made, rng = [], np.random.default_rng(0)
    for _ in range(100):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        with io.BytesIO() as file:
            coarse.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=60)
            made.append({"bytes": file.getvalue(), "path": None})
    return made


def _write(path: Path, table: pa.Table, pictures: list[dict]) -> None:
    """A table with its pictures, in row groups of a hundred."""
    group = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    schema = table.schema.append(pa.field("image", group.type))
    marked = Features({**Features.from_arrow_schema(schema), "image": ImageFeature()}).arrow_schema.metadata
    schema = schema.with_metadata(marked)  # which column is an image, as files of the hub say it
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, len(table), len(group)):
            rows = table.slice(start, len(group))
            writer.write_table(rows.append_column(schema.field("image"), group.slice(0, len(rows))))


def child(what: str, suite: str, data: str, model: str) -> None:
    """Print, as JSON, the seconds and the megabytes of one piece of work, model and libraries loaded before: megabytes at the
    peak, and how many more of files are mapped after it.
    """
    from harness.bench.planning import Planner
    from harness.cells import Cell, CellSettings
    from harness.commands.download import run as download
    from harness.cost.tally import Tally
    from harness.models.loading import load_model
    from harness.results.journal import Journal
    from harness.results.store import Store
    from harness.tasks.build import build_task
    from harness.tasks.preflight import check_data
    from tests.support.evaluating import evaluate_cell

    class Enough(Exception):
        pass

    def stop(batch: object) -> None:
        raise Enough

    loaded = load_model(model, "cpu")
    build_task("pope", "mini", 8)
    started, used, mapped = time.perf_counter(), time.process_time(), _mapped()
    if what == "download":
        download(argparse.Namespace(data=[suite]))
    check_data(suite, data)
    if what in ("open", "download"):
        build_task(suite, data)
    elif what == "plan":
        Planner(CellSettings(data=data, limit=None), Store(Path(model) / "none")).plan([Cell(model, "dense", None, suite)])
    else:
        whole = what == "whole run"
        tally = Tally(SimpleNamespace(get_text_config=lambda: DECODER))
        with contextlib.suppress(Enough), made_up() if whole else contextlib.nullcontext():
            evaluate_cell(
                loaded,
                None,
                suite,
                data=data,
                limit=8 if suite == "pope" and what == TOGETHER else LIMITS.get(what),
                observer=stop if what.startswith("first question") else (lambda one: tally.add(one.cost)) if whole else None,
                journal=Journal(Path(model) / f"journal-{os.getpid()}"),
            )
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    own, mapped = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, _mapped() - mapped
    if what == TOGETHER:
        Path(model, f"ready-{os.getpid()}").touch()
        while len(list(Path(model).glob("ready-*"))) < WORKERS:  # so that each has all that it needs while it is measured
            time.sleep(0.1)
        own = _share()
        Path(model, f"measured-{os.getpid()}").touch()
        while len(list(Path(model).glob("measured-*"))) < WORKERS:
            time.sleep(0.1)
    print(json.dumps([wall, cpu, own, mapped]))


@contextlib.contextmanager
def made_up() -> Iterator[None]:
    """Inside, answers are one of 3 000 words, at the cost of a decoder of 32 layers; no picture is read, and no model asked."""
    from harness.answering import lmms_model
    from harness.answering.batching import Finished, Record, keys_of
    from harness.cost.tally import BatchCost

    def answered(loaded: object, pruner: object, batch: Any, counting: bool) -> Finished:
        places = [request.place for request in batch.requests]
        records = [
            Record(image, 615 + place % 12, 576, 2, 1.5 + place % 97 / 97, place % 89 / 89)
            for image, place in zip(batch.images, places, strict=True)
        ]
        layers = [[576 - layer] * len(records) for layer in range(DECODER.num_hidden_layers)]
        counts = [[number] * len(records) for number in (44, 576, 2)]
        cost = BatchCost(*counts, layers, layers, 0, {"attention": 10**12}, {"linear": 10**9})
        return Finished(keys_of(batch.requests), [f"word {place % 3000}" for place in places], records, cost, 0.1)

    def unread(self: object, batch: Any) -> tuple[dict[str, Any], list[str]]:
        return {}, [f"{request.place // 5:016x}" for request in batch]

    with mock.patch.object(lmms_model, "generate", answered), mock.patch.object(lmms_model.Questions, "inputs", unread):
        yield


def _share() -> float:
    """MB of this process's memory, of what others have mapped too its part."""
    return _kernels_figure("smaps_rollup", "Pss")


def _mapped() -> float:
    """MB of files that this process has mapped and read."""
    return _kernels_figure("status", "RssFile")


def _kernels_figure(file: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/self/{file}").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1e3


def measured(*arguments: str) -> tuple[float, float, float, float]:
    """Seconds of wall clock, of processor time, MB at the peak, and of these mapped."""
    return together(1, *arguments)[0]


def together(workers: int, *arguments: str) -> list[tuple[float, float, float, float]]:
    """`measured` of so many processes at the same time."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_data", "--child", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(workers)]
    return [tuple(json.loads(process.communicate()[0].splitlines()[-1])) for process in begun]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Inside, the folder's files are data sets of the hub that processes begun here ask."""
    from tests.support.hub import stand_in

    repositories = folder / "hub"
    for suite, repository in HUB.items():
        (repositories / repository).mkdir(parents=True, exist_ok=True)
        for file in next(folder.glob(f"{suite}*")).rglob("*.parquet"):
            link = repositories / repository / (file.name if "-of-" in file.name else f"{file.stem}-00000-of-00001.parquet")
            if not link.exists():
                link.symlink_to(file.resolve())
    with stand_in(repositories) as server:
        os.environ["HF_ENDPOINT"] = server.url
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the data here; what is there is taken")
    parser.add_argument("--data", choices=("folder", "hub"), default="folder", help="where runs read them from")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child)
        return
    from tests.support.tiny_llava import save_tiny

    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as held:
        folder = asked.keep or Path(temporary)
        if not (folder / "pope").is_dir():
            make_vqav2(folder)
            make_pope(folder)
        os.environ["HF_HOME"] = f"{temporary}/home"
        model = str(save_tiny(Path(temporary) / "model"))
        base = measured("hundred questions", "pope", "mini", model)[2]
        held.enter_context(serving(folder) if asked.data == "hub" else contextlib.nullcontext())
        first, data = ("download", "hub") if asked.data == "hub" else ("digest", str(folder))
        lines, over = [], []
        for suite in ("vqav2", "pope"):
            for what in (first, *LIMITS):
                wall, cpu, peak, mapped = measured("open" if what == "digest" else what, suite, data, model)
                lines.append((suite, what, f"{wall:.1f} s", f"{cpu:.1f} s", f"{peak - base:.0f} MB", f"{mapped:.0f} MB"))
                if (peak - base > MOST and what != "download") or (what == "first question" and cpu > SOON):
                    over.append(f"{suite}, {what}")
        few = [own for _, _, own, _ in together(WORKERS, TOGETHER, "pope", "mini", model)]
        for name in Path(model).glob("*-[0-9]*"):
            name.unlink()
        walls, cpus, many, mapped_by = zip(*together(WORKERS, TOGETHER, "vqav2", data, model), strict=True)
        more = f"{(sum(many) - sum(few)) / WORKERS:.0f} MB each"
        lines.append(("vqav2", TOGETHER, f"{max(walls):.1f} s", f"{max(cpus):.1f} s each", more, f"{max(mapped_by):.0f} MB"))
    print(f"a hundred mini questions: {base:.0f} MB")
    print(
        tabulate(
            lines, ["", "", "wall clock", "processor", "more memory", "of it mapped"], tablefmt="pipe", disable_numparse=True
        )
    )
    if over:
        raise SystemExit(f"more than {SOON} s or {MOST} MB: {'; '.join(over)}")


if __name__ == "__main__":
    main()
