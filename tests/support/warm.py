"""`python()`: an interpreter whose commands begin with torch, transformers and the like already imported.

It is to be called as `sys.executable` is, and so are the interpreters that it starts in turn, as pytest-xdist does. A process
that has imported them, one per process of tests, forks for every command: a fraction of a second in place of five. Commands
begin on one thread, offline and with an empty hub cache, and import this project themselves. One that is killed takes its
command along. What a command compiles is kept for the next, in a folder of the process's own. Where the imports are what is
tested, `sys.executable` is right.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

IMPORTED = (
    *("torch", "torch._dynamo", "transformers.models.llava.modeling_llava", "transformers.models.clip.modeling_clip"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.processing_auto", "transformers.generation"),
    *("datasets", "pandas", "PIL.Image", "pyarrow.parquet", "pydantic", "scipy.stats", "tabulate", "tokenizers"),
    *("aiohttp", "lmms_eval.api.metrics", "lmms_eval.filters.extraction", "pydantic.main", "pytest", "tenacity"),
)
# What stands for the interpreter: it hands its command, environment and streams to the server and ends as the command does.
CLIENT = """\
#!{executable} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [b"+"], [0, 1, 2])
    server.sendall(json.dumps(asked).encode())
    server.shutdown(socket.SHUT_WR)
    status = int(server.recv(16) or 1)
if status < 0:
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@functools.cache
def python() -> str:
    """The path of the interpreter; that of the real one where processes cannot be watched (not Linux)."""
    if not hasattr(os, "pidfd_open"):
        return sys.executable
    folder = tempfile.TemporaryDirectory(prefix="warm")
    client, address = Path(folder.name) / "python", f"{folder.name}/socket"
    client.write_text(CLIENT.format(executable=sys.executable, address=address))
    client.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH", "HF_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": f"{folder.name}/hub", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__, address, str(client)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(lambda: (server.stdin.close(), server.wait(), folder.cleanup()))
    if server.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the interpreter that has imported {', '.join(IMPORTED)} did not start")
    return str(client)


def serve(address: str) -> dict[str, Any] | None:
    """Answers until standard input ends, and returns None; in each fork, returns what it is asked for."""
    for name in IMPORTED:
        importlib.import_module(name)
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(address).with_name("bytecode"))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    gc.collect()
    gc.freeze()  # so that no collection in a fork copies what all share
    print("ready", flush=True)
    while listening in select.select([listening, 0], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return attend(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):  # those who attended count towards the time that the tests take
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return None


def attend(connection: socket.socket) -> dict[str, Any]:
    """Forks once more for the command, tells how it ended, and ends it where who asked is gone. Returns in the fork alone."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as file:
        asked = json.load(file)
    command = os.fork()
    if command == 0:
        connection.close()
        os.setsid()
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        return asked
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    gone, ended = select.poll(), os.pidfd_open(command)
    gone.register(connection, select.POLLHUP)
    gone.register(ended, select.POLLIN)
    if ended not in dict(gone.poll()):
        os.killpg(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    try:
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    finally:
        os._exit(0)


def become(client: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """What `python [-u] [-W FILTER] (-m MODULE | -c CODE | FILE) …` does, in this process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.executable = client
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(place, mode, closefd=False) for place, mode in enumerate("rww"))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    if arguments[0] == "-u":
        arguments = arguments[1:]
    if arguments[0] == "-W":
        sys.warnoptions, arguments = [arguments[1]], arguments[2:]
        warnings._processoptions(sys.warnoptions)
    kind, *rest = arguments
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [folder if kind == "-m" else "" if kind == "-c" else os.path.dirname(os.path.abspath(kind)), *paths]
    sys.argv = arguments if kind not in ("-m", "-c") else [kind, *rest[1:]]
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(rest[0], vars(main))
    else:
        runpy.run_path(kind, run_name="__main__")


def end(status: int) -> None:
    """Ends a fork in its own way, except that the imports are not taken down one by one, which takes seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _, place, stands_for = sys.argv
    wanted = serve(place)
    if wanted is None:
        sys.exit()
    try:
        become(stands_for, **wanted)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        end(error.code if isinstance(error.code, int) else int(error.code is not None))
    except BaseException:
        traceback.print_exc()
        end(1)
    end(0)
