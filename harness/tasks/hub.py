"""Data sets of the hub, each at one commit: the one that was downloaded, and all that a run reads of it is of this commit."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from fitprune.errors import FitPruneError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 5  # seconds

_known: dict[str, str] = {}


def is_hub_id(path: str) -> bool:
    """Whether a task's `dataset_path` is a repository on the hub, neither a folder nor one of datasets' own builders."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).exists()


def commit_of(repository: str) -> str:
    """The commit that a data set is read at: what the cache holds; where that is nothing, what `main` is on the hub.

    Raises FitPruneError, in one line, where neither is to be had.
    """
    if repository not in _known:
        _known[repository] = _cached(repository) or latest_of(repository)
    return _known[repository]


def require_downloaded(suite: str, repository: str, configurations: Iterable[str | None]) -> str:
    """The commit that a suite's data are read at. Raises FitPruneError, in one line, unless all of them are in the cache."""
    commit = _cached(repository) if repository not in _known else _known[repository]
    if not commit or not all(_ready(repository, commit, name) for name in configurations):
        raise FitPruneError(
            f"the data of suite '{suite}' ({repository}) are not on this machine: fitprune download --data {suite} "
            "fetches them; or take --data mini, or --data DIR with its parquet files"
        )
    return _known.setdefault(repository, commit)


def size_of(repository: str, configurations: Iterable[str | None]) -> int:
    """Bytes of the files that make these configurations of a data set, at the commit that it is read at."""
    from datasets import load_dataset_builder
    from huggingface_hub import HfApi

    commit = commit_of(repository)
    files: set[str] = set()
    try:
        found = HfApi().dataset_info(repository, revision=commit, files_metadata=True).siblings or ()
        for name in configurations:
            given = load_dataset_builder(repository, name, revision=commit).config.data_files or {}
            files.update(str(file) for split in given.values() for file in split)
    except Exception as error:  # whatever the network or the hub answers
        raise FitPruneError(
            f"cannot look up {repository} on the hub ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        ) from None
    sizes = {f"hf://datasets/{repository}@{commit}/{file.rfilename}": file.size or 0 for file in found}
    return sum(sizes.get(file, 0) for file in files)


def known_commits() -> dict[str, str]:
    """The commits that were looked up so far, for other processes of the run."""
    return dict(_known)


def take_commits(commits: Mapping[str, str]) -> None:
    """Read data sets at these commits."""
    _known.update(commits)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Inside, every data set of the hub is loaded at its commit, those that a task's own code loads beside it, too."""
    import datasets.load

    plain = datasets.load.load_dataset_builder

    def at_its_commit(path: str, *given: Any, revision: Any = None, token: Any = None, **named: Any) -> Any:
        if revision is None and is_hub_id(path):
            revision = commit_of(path)
        # Tasks ask for a token, True, that public data sets do not need; None takes one where there is one.
        return plain(path, *given, revision=revision, token=None if token is True else token, **named)

    datasets.load.load_dataset_builder = at_its_commit
    try:
        yield
    finally:
        datasets.load.load_dataset_builder = plain


def check_commit(repository: str, commit: str, dataset: Any) -> None:
    """Raise FitPruneError if a loaded data set is of another commit: offline, datasets takes the newest that it has."""
    parts = (part for file in dataset.cache_files for part in Path(file["filename"]).parts)
    found = {part for part in parts if _COMMIT.fullmatch(part)}
    if found - {commit}:
        raise FitPruneError(
            f"the newest {repository} in the cache is of commit {min(found - {commit})[:8]}, and {commit[:8]} is asked for; "
            "let the hub be reached, or remove the other from the cache"
        )


def latest_of(repository: str) -> str:
    """The commit that `main` is on the hub now, which the data set is read at from now on.

    Raises FitPruneError, in one line, where the hub is out of reach.
    """
    from huggingface_hub import HfApi

    problem = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            commit = str(HfApi().dataset_info(repository, timeout=_TIMEOUT).sha)
        except Exception as error:  # whatever the network or the hub answers
            problem = f"the hub cannot be reached ({type(error).__name__})"
        else:
            # As a download of `main` leaves it; one of a commit leaves no reference, and a later run may be offline.
            with contextlib.suppress(OSError):
                _reference(repository).parent.mkdir(parents=True, exist_ok=True)
                _reference(repository).write_text(commit, encoding="utf-8")
            _known[repository] = commit
            return commit
    raise FitPruneError(
        f"{repository} is not in the cache and {problem}; take --data mini, or --data DIR with its parquet files"
    )


def _reference(repository: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}" / "refs" / "main"


def _ready(repository: str, commit: str = "*", configuration: str | None = None) -> list[Path]:
    """Where datasets has made a data set ready, oldest first: this configuration of it, or any."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, name = repository.split("/")
    cache = os.environ.get("LMMS_EVAL_DATASETS_CACHE") or config.HF_DATASETS_CACHE
    places = (Path(cache) / f"{owner}___{camelcase_to_snakecase(name)}").glob(f"{configuration or '*'}/*/{commit}")
    found = [place for place in places if _COMMIT.fullmatch(place.name) and (place / "dataset_info.json").is_file()]
    return sorted(found, key=lambda place: place.stat().st_mtime)


def _cached(repository: str) -> str:
    """The commit that a cache's `main` is, or, where datasets have been made ready of others only, the newest of these."""
    ready = [place.name for place in _ready(repository)]
    try:
        main = _reference(repository).read_text(encoding="utf-8").strip()
    except OSError:
        main = ""
    return main if not ready or main in ready else ready[-1]
