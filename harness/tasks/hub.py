"""Data sets of the hub, each at one commit: looked up once for a run, and all that is read of it is of this commit."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 5  # seconds

_known: dict[str, str] = {}


def is_hub_id(path: str) -> bool:
    """Whether a task's `dataset_path` is a repository on the hub, neither a folder nor one of datasets' own builders."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).exists()


def commit_of(repository: str) -> str:
    """The commit that a data set is read at: what `main` is on the hub; where the hub is out of reach, what the cache holds.

    Raises FitPruneError, in one line, where neither is to be had.
    """
    if repository not in _known:
        _known[repository] = _main(repository)
    return _known[repository]


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

    def at_its_commit(path: str, *given: Any, revision: Any = None, **named: Any) -> Any:
        if revision is None and is_hub_id(path):
            revision = commit_of(path)
        return plain(path, *given, revision=revision, **named)

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


def _main(repository: str) -> str:
    from huggingface_hub import HfApi, constants

    reference = Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}" / "refs" / "main"
    problem = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            commit = str(HfApi().dataset_info(repository, timeout=_TIMEOUT).sha)
        except Exception as error:  # whatever the network or the hub answers
            problem = f"the hub cannot be reached ({type(error).__name__})"
        else:
            # As a download of `main` leaves it; one of a commit leaves no reference, and a later run may be offline.
            with contextlib.suppress(OSError):
                reference.parent.mkdir(parents=True, exist_ok=True)
                reference.write_text(commit, encoding="utf-8")
            return commit
    commit = _cached(repository, reference)
    if not commit:
        raise FitPruneError(
            f"{repository} is not in the cache and {problem}; take --data mini, or --data DIR with its parquet files"
        )
    return commit


def _cached(repository: str, reference: Path) -> str:
    """The commit that a cache's `main` is, or, where datasets have been made ready of others only, the newest of these."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, name = repository.split("/")
    cache = os.environ.get("LMMS_EVAL_DATASETS_CACHE") or config.HF_DATASETS_CACHE
    places = (Path(cache) / f"{owner}___{camelcase_to_snakecase(name)}").glob("*/*/*")
    ready = sorted((place for place in places if _COMMIT.fullmatch(place.name)), key=lambda place: place.stat().st_mtime)
    try:
        main = reference.read_text(encoding="utf-8").strip()
    except OSError:
        main = ""
    return main if not ready or main in {place.name for place in ready} else ready[-1].name
