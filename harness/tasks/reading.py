"""lmms-eval's `ConfigurableTask` with a download of our own; everything else is the original."""

import copy
import functools
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Image
from lmms_eval.api.task import ConfigurableTask

from fitprune.errors import FitPruneError
from harness.heap import uncollected
from harness.models.digests import remembered
from harness.results.key import digest_of
from harness.tasks.hub import check_commit, commit_of, is_hub_id, pinned, require_downloaded
from harness.tasks.isolation import ending_its_command
from harness.tasks.limit import choose_rows
from harness.tasks.parquet import file_digest, split_files, to_dataset
from harness.tasks.preflight import read_questions, suite_files
from harness.tasks.spec import SuiteSpec, configurations
from harness.tasks.specs import SUITES
from harness.tasks.stored import encoded
from harness.tasks.videos.questions import no_archives, video_of, video_questions

MANY = 1000  # questions from which on the hashes of their pictures are remembered on this machine


class _LimitedTask(ConfigurableTask):
    """Attributes on top of the original's: rows (the data's row of each doc_id), data_digest, notes, origin (their place)."""

    @ending_its_command
    def __init__(
        self,
        config: dict,
        model_name: str | None = None,
        *,
        limit: int | None = None,
        answered_by: Mapping[str, Any] | None = None,
        suite: SuiteSpec | None = None,
    ) -> None:
        self._limit, self._answered_by, self._suite = limit, answered_by, suite
        self.rows: Sequence[int] = ()
        self.data_digest = ""
        self.origin = str(config.get("dataset_path", ""))
        self.notes: list[str] = []
        self._video_of: Callable[[Mapping[str, Any]], Path] | None = None
        # The original looks at the first question when it is made; its picture, which may be broken, is not decoded for that.
        self._glancing = True
        super().__init__(config=config, model_name=model_name)
        self._glancing = False
        self.task_docs = self._docs()

    @property
    def _split(self) -> str:
        return self.config.test_split or self.config.validation_split

    def _spec(self) -> SuiteSpec | None:
        if self._suite is not None and self._suite.questions is not None:
            return self._suite
        return next((spec for spec in SUITES.values() if spec.task == self.config.task), None)

    def _take(self, dataset: Dataset) -> Dataset:
        """The questions that the limit takes; sets rows and notes."""
        total, limit = len(dataset), self._limit
        self.rows = range(total)
        if limit is None or limit == total:
            return dataset
        if limit > total:
            self.notes.append(f"{self.config.task}: {limit} questions asked, the data have {total}; all are used")
            return dataset
        spec = self._spec()
        strata = _column(dataset, spec.stratum if spec else None) or [None] * total
        clusters = _column(dataset, spec.cluster if spec else None) or _image_keys(dataset)
        together = spec.together(dataset) if spec and spec.together else clusters if spec and spec.paired else None
        self.rows = choose_rows(clusters, strata, limit, together)
        if len(self.rows) != limit:
            self.notes.append(
                f"{self.config.task}: {limit} questions asked, {len(self.rows)} used: what is scored together stays together"
            )
        return dataset.select(self.rows)

    def dump_config(self) -> dict[str, Any]:
        """The task's configuration, with the content that decides its answers: lmms-eval's response cache finds them by it."""
        known = super().dump_config()
        if self._answered_by is None:
            return known
        return known | {"fitprune": {**self._answered_by, "data": self.data_digest, "rows": digest_of(list(self.rows))}}

    @ending_its_command
    def build_all_requests(self, *, cache_requests: bool = False, **options: Any) -> None:
        if cache_requests:
            raise FitPruneError(
                "lmms-eval's --cache_requests finds prompts by the task's name, whatever the data hold; leave it out"
            )
        # The original copies the generation options for each question; nothing here changes them.
        given, self.config.generation_kwargs = self.config.generation_kwargs, _Shared(self.config.generation_kwargs or {})
        try:
            with uncollected():
                super().build_all_requests(**options)
        finally:
            self.config.generation_kwargs = given

    def doc_to_visual(self, doc: dict) -> Any:
        """As the original; of videos the file, wherever the data are."""
        return super().doc_to_visual(doc) if self._video_of is None else [self._video_of(doc)]

    def images(self) -> list[Hashable]:
        """What names each question's image."""
        dataset, spec = self.dataset[self._split], self._spec()
        return _column(dataset, spec.cluster if spec else None) or _image_keys(dataset)

    def narrowed(self, places: Sequence[int]) -> "_LimitedTask":
        """The same task with these of its questions only; the data are shared, not read again."""
        task = copy.copy(self)
        task.rows = [self.rows[place] for place in places]
        task._instances = None
        task._put(self.dataset[self._split].select(places))
        task.task_docs = task._docs()
        return task

    @property
    def eval_docs_no_media(self) -> "_Rows":
        return _Rows(super().eval_docs_no_media)

    def _docs(self) -> Dataset:
        return self.test_docs() if self.has_test_docs() else self.validation_docs()

    def test_docs(self) -> Dataset:
        return self._without_pictures(super().test_docs())

    def validation_docs(self) -> Dataset:
        return self._without_pictures(super().validation_docs())

    def _without_pictures(self, docs: Dataset) -> Dataset:
        return docs.remove_columns(_pictures_of(docs)) if self._glancing and docs is not None else docs

    def _set_dataset(self, dataset: Dataset) -> None:
        self._put(self._take(dataset))

    def _put(self, dataset: Dataset) -> None:
        images = _pictures_of(dataset)
        # What says where a question stands, for whoever has the data alone.
        dataset.origin, dataset.rows = self.origin, self.rows
        self.dataset = DatasetDict({self._split: dataset})
        self.dataset_no_image = DatasetDict({split: part.remove_columns(images) for split, part in self.dataset.items()})


class LocalTask(_LimitedTask):
    """Reads `<folder>/<task>/<config>/<split>.parquet`; pictures when they are asked for."""

    def __init__(self, config: dict, model_name: str | None = None, *, folder: Path, **options: Any) -> None:
        self._folder = folder
        super().__init__(config, model_name, **options)

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        spec, holding = self._spec(), list[Path]()
        if spec and spec.video:
            return self._download_videos(spec)
        if spec and spec.questions:
            files, holding = suite_files(self._folder, spec, spec.questions)
        else:
            # Tasks on one data set share its folder: pope_adv reads other splits than pope, of the same files.
            shared = (spec.task for spec in SUITES.values() if spec.hub == self.DATASET_PATH)
            own = (self._folder / self.config.task).is_dir()
            place = self.config.task if own else next(shared, self.config.task)
            files = split_files(self._folder, place, self.config.dataset_name, self._split)
        labels, several = (spec.labels, spec.several) if spec and spec.questions else (None, True)
        table, beside = read_questions(files, holding, labels, several)
        self.origin = str(files[0])
        self.data_digest = file_digest([*files, *holding, *beside])
        dataset = to_dataset(table, self.data_digest)
        if self.config.process_docs is not None and not (spec and spec.images):
            dataset = self.config.process_docs(dataset)
        self._set_dataset(dataset)

    def _download_videos(self, spec: SuiteSpec) -> None:
        """Questions and where their videos are. The digest covers the videos of the questions that the limit takes: there may
        be hundreds of gigabytes."""
        table, files = video_questions(self._folder, spec)
        self.origin, self.data_digest = str(files[0]), file_digest(files)
        self._set_dataset(to_dataset(table, self.data_digest))
        self._video_of = functools.partial(video_of, self._folder, spec)
        videos = dict.fromkeys(map(self._video_of, _Rows(self.dataset[self._split])))
        self.data_digest = file_digest([*files, *videos])


class HubTask(_LimitedTask):
    """Loads as the original does, at the data set's commit; then only the limit applies.

    Args:
        fetch: download what is not on this machine, as the original does.
    """

    def __init__(self, config: dict, model_name: str | None = None, *, fetch: bool = False, **options: Any) -> None:
        self._fetch = fetch
        super().__init__(config, model_name, **options)

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        if (spec := self._spec()) and spec.video:
            raise no_archives(spec)
        path, commit = self.DATASET_PATH, str((dataset_kwargs or {}).get("revision") or "")
        if not commit and is_hub_id(path):
            if not self._fetch:
                spec = self._suite
                asked = configurations(spec) if spec and spec.questions else [self.DATASET_NAME]
                require_downloaded(spec.name if spec else self.config.task, path, asked)
            commit = commit_of(path)
        try:
            with pinned():
                super().download(dataset_kwargs)
        except Exception as error:  # tenacity's RetryError around whatever the network or the hub answered
            attempt = getattr(error, "last_attempt", None)
            cause = attempt.exception() if attempt else error
            raise FitPruneError(
                f"task '{self.config.task}': cannot download {path} "
                f"({type(cause).__name__}: {' '.join(str(cause).split())[:120]}); "
                "take --data mini, or --data DIR with its parquet files"
            ) from error
        dataset = self.dataset[self._split]
        if commit:
            check_commit(path, commit, dataset)
        self.data_digest = f"{commit or dataset._fingerprint}:{path}:{self.DATASET_NAME or 'default'}:{self._split}"
        self.rows = range(len(dataset))
        if self._limit is not None:
            self._set_dataset(dataset)


class _Rows(Sequence[dict[str, Any]]):
    """The rows of a dataset without pictures. Asked in turn, as lmms-eval does, they are read a thousand at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, place: Any) -> Any:
        return self._dataset[place]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part in self._dataset.with_format("arrow").iter(1000):
            yield from part.to_pylist()


class _Shared(dict[str, Any]):
    """Options that a copy is not made of."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def _pictures_of(dataset: Dataset) -> list[str]:
    """The columns of pictures, and of lists of them."""
    return [name for name, kind in dataset.features.items() if isinstance(getattr(kind, "feature", kind), Image)]


def _column(dataset: Dataset, name: str | None) -> list[Hashable] | None:
    if not name or name not in dataset.column_names:
        return None
    values: list[Hashable] = dataset.select_columns([name]).with_format("arrow")[:][name].to_pylist()
    return values


def _image_keys(dataset: Dataset) -> list[Hashable]:
    """A key per row that is equal for equal first images: a hash of the encoded file, or the row number without images."""
    column = next((name for name in ("image", *_pictures_of(dataset)) if name in _pictures_of(dataset)), None)
    if column is None:
        return list(range(len(dataset)))
    if len(dataset) < MANY:
        return _hashed(dataset, column)
    found: list[Hashable] = remembered(f"pictures-{dataset._fingerprint}", lambda: _hashed(dataset, column))
    return found


def _hashed(dataset: Dataset, column: str) -> list[Hashable]:
    keys: list[Hashable] = []
    for part in dataset.select_columns([column]).with_format("arrow").iter(100):
        for held in part[column].to_pylist():
            first = next(iter(held or ()), None) if isinstance(held, list) else held
            keys.append(len(keys) if first is None else hashlib.sha256(encoded(first)).hexdigest())
    return keys
