"""`suites_command`: the command line that runs cells again."""

import shlex
from collections.abc import Sequence

from harness.cells import CellSettings
from harness.tasks.specs import SUITES, package_of

BATCH_SIZE = 16
_OTHERS = "test_lmms"  # of the files that ship, the one for suites that have none


def suites_command(
    suites: Sequence[str],
    model: str,
    pruners: Sequence[str],
    settings: CellSettings,
    *,
    recipe: str = "",
    max_drop: float | None = None,
    gate: str = "",
    positions: Sequence[str] = (),
    device: str | None = None,
) -> str:
    """`pytest --pyargs suites.test_… --model … --pruner … --reduction …`, quoted for a shell, wherever it runs; what is
    the default is left out. Without suites, all of them.
    """
    files = dict.fromkeys(map(_file_of, suites))
    words = ["pytest", "--pyargs", *([f"suites.{file}" for file in files] or ["suites"])]
    words += ["--suite", ",".join(suites)] if _OTHERS in files else []
    words += ["--model", model, "--pruner", ",".join(pruners)]
    words += ["--recipe", recipe] if recipe else []
    words += ["--reduction", ",".join(f"{reduction:g}" for reduction in settings.reductions)] if settings.reductions else []
    words += ["--positions", ",".join(positions)] if positions else []
    words += ["--data", settings.data] if settings.data != "mini" else []
    words += ["--limit", str(settings.limit)] if settings.limit is not None else []
    words += ["--batch-size", str(settings.batch_size)] if settings.batch_size != BATCH_SIZE else []
    words += ["--frames", str(settings.frames)] if settings.frames is not None else []
    words += ["--seed", str(settings.seed)] if settings.seed else []
    words += ["--allow-broken-images"] if settings.allow_broken_images else []
    words += ["--device", device] if device is not None else []
    words += ["--max-drop", f"{max_drop:g}"] if max_drop is not None else []
    words += ["--gate", gate] if gate else []
    words += ["--judge", settings.judge] if settings.judge else []
    return shlex.join(words)


def _file_of(suite: str) -> str:
    """Which of the files that ship runs a suite: its own, or that of all others."""
    ships = suite in SUITES and not package_of(SUITES[suite])
    return f"test_{suite.replace('-', '_')}" if ships else _OTHERS
