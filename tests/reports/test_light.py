"""What needs no model imports none: reports, and refusals of what the command line alone shows to be wrong."""

import subprocess
import sys


def test_reports_load_neither_torch_nor_pytest():
    code = """if True:
        import importlib, sys
        for module in ("reports.table.leaderboard", "reports.page.html", "harness.gate.saved"):
            importlib.import_module(module)
            assert not {"torch", "transformers", "pytest", "_pytest"} & set(sys.modules), module
    """
    subprocess.run([sys.executable, "-c", code], check=True)


REFUSED = """
fit -o x.json --model llava-tiny --reduction 0.5 --device gpu
fit -o x.json --model llava-tiny --reduction 0.5 --keep {file}
flops --model llava-1.5-7b --pruner fastv
flops --model llava-1.5-7b --recipe no-such.json
flops --model llava-1.5-7b --recipe published:no@1
latency --model llava-tiny --layers 2
latency --model llava-tiny --device tpu
latency --model llava-tiny --device auto
latency --model llava-tiny --pruner fastw
tune --model llava-9 --suite gqa --max-drop 5
tune --model llava-tiny --suite gqaa --max-drop 5
tune --model llava-tiny --suite gqa --max-drop 5 --pruner dense
tune --model llava-tiny --suite gqa --max-drop 5 --device gpu
"""


def test_what_the_command_line_shows_to_be_wrong_is_refused_without_torch(tmp_path):
    (tmp_path / "file").touch()
    code = """if True:
        import sys
        from reports.console import main
        for words in sys.argv[1:]:
            assert main(words.split()) == 2, words
            assert "torch" not in sys.modules, words
    """
    lines = REFUSED.format(file=tmp_path / "file").strip().splitlines()
    subprocess.run([sys.executable, "-c", code, *lines], check=True, cwd=tmp_path)


def test_an_option_of_the_suites_is_refused_without_torch(tmp_path):
    code = """if True:
        import sys, pytest
        for option in ("--model=llava-9", "--recipe=no-such.json", "--engine=rai"):
            assert pytest.main(["-q", "-p", "no:cacheprovider", "--pyargs", "suites", option]) == 4, option
            assert "torch" not in sys.modules, option
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
