"""What needs no model imports none: reports, and refusals of what the command line alone shows to be wrong."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["reports.table.leaderboard", "reports.page.html", "harness.gate.saved"])
def test_reports_load_neither_torch_nor_pytest(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'pytest', '_pytest'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


@pytest.mark.parametrize("option", ["--model=llava-9", "--recipe=no-such.json", "--engine=rai"])
def test_an_option_of_the_suites_is_refused_without_torch(option, tmp_path):
    code = "import sys, pytest; print(int(pytest.main(sys.argv[1:])), 'torch' in sys.modules)"
    words = ["-q", "-p", "no:cacheprovider", "--pyargs", "suites", option]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "4 False"
