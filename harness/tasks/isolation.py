"""lmms-eval, kept to itself: its logs, progress bars, warnings filters, random seeds and patches stay in a context."""

import contextlib
import functools
import io
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any, TypeVar

from fitprune.errors import FitPruneError

Returned = TypeVar("Returned")


def lmms_eval_evaluator() -> ModuleType:
    """`lmms_eval.evaluator`, imported on first use (3-4 s).

    The import leaves the caller's loguru handlers and warnings filters as they are.
    """
    module = sys.modules.get("lmms_eval.evaluator")
    if module is not None and hasattr(module, "simple_evaluate"):
        return module
    import loguru

    # Its models package empties loguru's handlers at import. Shadowing two methods of the instance keeps the caller's.
    shadows: dict[str, Any] = {"remove": lambda *_, **__: None, "add": lambda *_, **__: 0}
    vars(loguru.logger).update(shadows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lmms_eval.evaluator
    finally:
        for name in shadows:
            vars(loguru.logger).pop(name)
    return lmms_eval.evaluator


def ending_its_command(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """The function, whose refusals end lmms-eval's command line in one line and with status 2.

    That would print a traceback, go on, and exit with status 0. To all other callers they are raised as they are.
    """

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Returned:
        try:
            return function(*given, **named)
        except (FitPruneError, OSError) as error:
            if not _in_its_command():
                raise
            # Among many packages' lines the name says whose it is.
            print(f"{FitPruneError.__name__}: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None

    return called


def _in_its_command() -> bool:
    main = getattr(sys.modules.get("lmms_eval.__main__"), "cli_evaluate", None)
    frame: FrameType | None = sys._getframe()
    while main is not None and frame is not None:
        if frame.f_code is main.__code__:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, lmms-eval logs nothing, prints nothing and shows no progress bars. Errors pass through as always."""
    from loguru import logger

    names = ("lmms_eval", "utils")  # the second is what the code beside a task's yaml is called
    for name in names:
        logger.disable(name)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name in names:
            logger.enable(name)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Inside, the evaluator may seed the random generators; on exit they are as before. It does not patch filelock, and
    starts no git to describe the folder that it is installed in.
    """
    import numpy as np
    import torch
    from lmms_eval import utils

    # The patch would make every FileLock of this process a re-entrant singleton. Only hub downloads in the evaluator
    # need it, and here tasks are built before.
    patch = lmms_eval_evaluator()._enable_reentrant_filelocks
    patched = getattr(patch, "_patched", False)
    git, utils._git_output = utils._git_output, _no_git
    states = random.getstate(), np.random.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    patch._patched = True
    try:
        with torch.random.fork_rng(cuda):
            yield
    finally:
        patch._patched = patched
        utils._git_output = git
        random.setstate(states[0])
        np.random.set_state(states[1])


def _no_git(*arguments: str) -> str:
    raise FileNotFoundError("git is not asked")
