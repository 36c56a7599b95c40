"""The interpreter that has imported torch already behaves as the plain one does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import warm


def run(python, *arguments, **options):
    done = subprocess.run([python, *arguments], capture_output=True, text=True, timeout=300, **options)
    return done.returncode, done.stdout, done.stderr.splitlines()[-1:]


@pytest.mark.parametrize(
    "code",
    [
        "import sys, os; print(__name__, sys.argv, sys.path[0], os.getcwd(), os.environ['ASKED'], 'harness' in sys.modules)",
        "import sys; print(sys.stdin.read()); sys.exit(3)",
        "import sys; sys.exit('words')",
        "import sys; sys.exit(None)",
        "1 / 0",
        "import os; os._exit(5)",
        "import os; os.kill(os.getpid(), 9)",
        "import atexit; atexit.register(print, 'at the end'); print('first')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('last'))).start()",
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', 'exit(7)']).returncode)",
        "from named import WORD; print(WORD)",
    ],
)
def test_a_command_ends_as_with_the_plain_interpreter(tmp_path, code):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "named.py").write_text("WORD = 'found'")
    around = os.environ | {"ASKED": "yes", "PYTHONPATH": str(tmp_path / "found")}
    given = {"cwd": tmp_path, "env": around, "input": "said"}
    assert run(warm.python(), "-c", code, "a", **given) == run(sys.executable, "-c", code, "a", **given)


def test_a_module_and_a_file_are_run_as_by_the_plain_interpreter(tmp_path):
    (tmp_path / "shown.py").write_text("import sys; print(__name__, sys.argv, sys.path[0])")
    (tmp_path / "warned.py").write_text("import sys, warnings; print(sys.argv, sys.warnoptions); warnings.warn('now')")
    for arguments in (["-m", "shown", "a"], ["shown.py", "a"], ["-W", "error::UserWarning", "warned.py", "a"]):
        assert run(warm.python(), *arguments, cwd=tmp_path) == run(sys.executable, *arguments, cwd=tmp_path)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the plain interpreter stands in")
def test_torch_is_there_and_who_is_killed_takes_the_command_along():
    code = "import os, sys, time; print(os.getpid(), 'torch' in sys.modules, flush=True); time.sleep(100)"
    with subprocess.Popen([warm.python(), "-c", code], stdout=subprocess.PIPE, text=True) as asking:
        number, imported = asking.stdout.readline().split()
        assert imported == "True"
        assert Path(f"/proc/{number}").exists()
        asking.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{number}").exists()
