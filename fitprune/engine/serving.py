"""`OpenSessions`: the pruners that are open on one model, and which of them serves a call.

A call is served by the innermost session of its own execution context (`contextvars`): a thread or an asyncio task with a
pruner of its own gets its own. A call from a context with none, such as a thread started inside a session, is served by the
only session there is.
"""

import contextlib
import inspect
import sys
import threading
import weakref
from contextvars import ContextVar
from types import FrameType

from fitprune.engine.session import Session
from fitprune.errors import FitPruneError, UnsupportedModel

# The sessions entered in this execution context, on whatever model, innermost last. A session may have closed elsewhere since.
_entered: ContextVar[tuple["weakref.ref[Session]", ...]] = ContextVar("fitprune_entered", default=())

_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class OpenSessions:
    """The sessions open on one model, in the order in which they were entered."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[weakref.ref[Session], Session] = {}
        self._generators: dict[weakref.ref[Session], frozenset[int]] = {}

    def open(self, session: Session) -> None:
        """Let `session` serve calls of this execution context from here on.

        Raises:
            FitPruneError: inside the context of another one: only one of the two could serve. A generator or a task inside it
                may have its own.
        """
        key, here = weakref.ref(session), _running_generators()
        with self._lock:
            for other in _entered.get():
                if other in self._sessions and self._generators[other] == here:
                    outer, inner = (each.context.pruner.name for each in (self._sessions[other], session))
                    raise FitPruneError(
                        f"{outer} is active on this model already; for {inner} after it, enter one context: "
                        "Composed([first, second])(model)."
                    )
            self._sessions[key], self._generators[key] = session, here
        _entered.set((*_entered.get(), key))

    def close(self, session: Session) -> None:
        """Let `session` serve no more, in any execution context."""
        key = weakref.ref(session)
        with self._lock:
            self._sessions.pop(key, None)
            self._generators.pop(key, None)
        # Not by a token: a generator may be closed in another execution context than it was opened in.
        _entered.set(tuple(other for other in _entered.get() if other != key and other() is not None))

    def serving(self) -> Session | None:
        """The session that serves a call made here; None where none is open.

        Raises:
            UnsupportedModel: several are open, all of them in other execution contexts.
        """
        with self._lock:
            own = [key for key in _entered.get() if key in self._sessions]
            if len(own) == 1:
                return self._sessions[own[0]]
            if own:
                # Generators share their caller's execution context. Sessions of suspended generators have no say, unless there
                # are no others: a fixture is a suspended generator as well.
                here = _running_generators()
                return self._sessions[([key for key in own if self._generators[key] <= here] or own)[-1]]
            if len(self._sessions) > 1:
                raise UnsupportedModel(
                    f"{len(self._sessions)} pruners are active on this model in other threads, none in this one; "
                    "enter a pruner's context in the thread that runs the model."
                )
            return next(iter(self._sessions.values()), None)


def _running_generators() -> frozenset[int]:
    """The frames of generators and coroutines under way here, by id; those that only make a context manager are left out."""
    found = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_back
        managed = caller is not None and caller.f_code.co_filename == contextlib.__file__
        if frame.f_code.co_flags & _SUSPENDABLE and not managed:
            found.add(id(frame))
        frame = caller
    return frozenset(found)
