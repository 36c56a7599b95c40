"""The Slurm script of docs/cluster.md, run by bash where `scontrol` and `srun` are stand-ins, and read by Ray's own parser."""

import os
import re
import subprocess
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "cluster.md"
STAND_INS = {"scontrol": 'test "$*" = "show hostnames node[1-4]" && printf "node%s\\n" 1 2 3 4', "srun": 'printf "%s\\n" "$@"'}


def test_the_script_starts_ray_on_each_node_and_the_command_on_the_first(tmp_path):
    symmetric = pytest.importorskip("ray.scripts.symmetric_run", reason="Ray is not installed, or older than symmetric-run")
    (script,) = re.findall(r"```\n(#!/bin/bash\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "SLURM_JOB_NODELIST": "node[1-4]", "SLURM_JOB_NUM_NODES": "4"}
    run = subprocess.run(["bash", "-eu"], input=script, env=environment, capture_output=True, text=True, check=True)
    words = run.stdout.splitlines()
    assert words[:2] == ["ray", "symmetric-run"]
    place = words.index("--")
    assert symmetric.curate_and_validate_ray_start_args(words[2:place]) == []
    given = symmetric.symmetric_run.make_context("_", words[2:place]).params
    assert (given["address"], given["min_nodes"]) == ("node1:6379", 4)
    assert words[place + 1 : place + 6] == ["pytest", "--pyargs", "suites", "--engine", "ray:auto"]
