"""Which engines may run cells, by the text of `--engine`. It is checked before torch is imported, and Ray is imported here."""

import os
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError

LOCAL, FOUND, CLIENT = "ray", "ray:auto", "ray://"
_SILENCE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_TQDM": "0"}
# Seconds of the first of three tries to reach a cluster's client port, and of the others: ten in all.
_PATIENCE = {"RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "3"}


def check_engine(engine: str) -> None:
    """Raise FitPruneError, in one line, for a text that names no engine, and without Ray."""
    if engine not in (LOCAL, FOUND) and not engine.startswith(CLIENT):
        raise FitPruneError(f"unknown --engine '{engine}'; write ray, ray:auto or ray://HOST:PORT")
    if engine.startswith(CLIENT):
        address_of(engine.removeprefix(CLIENT), engine)
        if _holds_token():  # Ray's client alone leaves it at home; a cluster that asks for none takes no notice
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        load_ray()
    except ImportError:
        raise FitPruneError(f"--engine {engine} needs Ray: pip install 'fitprune-bench[cluster]'") from None


def _holds_token() -> bool:
    """Whether this machine has a token for Ray clusters, where Ray looks for one."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").is_file()


def load_ray() -> Any:
    """Ray, which reports nothing to anyone, and gives up an address soon."""
    for name, value in {**_SILENCE, **_PATIENCE}.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


def address_of(text: str, engine: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise FitPruneError(f"--engine {engine} names no HOST:PORT; Ray's client port is 10001")
    return host.strip("[]"), int(port)
