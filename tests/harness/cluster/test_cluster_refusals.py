"""What `--engine` cannot do is said in one line, with exit status 4, before anything is measured."""

import builtins
import os
import socket
import warnings

import pytest

from fitprune import FitPruneError
from harness.cluster import ray_machines
from harness.cluster.engines import check_engine, load_ray
from harness.cluster.ray_machines import connect

pytest_plugins = ["pytester", "tests.support.suite_runs"]


@pytest.fixture
def refused(run):
    def refused(*arguments):
        result = run("--pruner", "dense", *arguments)
        assert result.ret == 4
        said = [line for line in result.errlines + result.outlines if "ERROR: " in line]
        assert len(said) == 1
        assert not run.folder.exists()
        assert not run.log.exists()
        return said[0]

    return refused


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("rey", "unknown --engine 'rey'; write ray, ray:auto or ray://HOST:PORT"),
        ("ray://head", "--engine ray://head names no HOST:PORT; Ray's client port is 10001"),
        ("ray://head:port", "names no HOST:PORT"),
    ],
)
def test_a_text_that_names_no_engine(refused, engine, said):
    assert said in refused("--engine", engine)


def test_without_ray(refused, monkeypatch):
    plain = builtins.__import__

    def without(name, *given, **named):
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return plain(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "--engine ray needs Ray: pip install 'fitprune-bench[cluster]'" in refused("--engine", "ray")


def test_workers_of_xdist_beside_those_of_a_cluster(refused):
    assert "-n and --engine exclude each other" in refused("--engine", "ray", "-n", "2")


def test_a_card_by_its_number(refused):
    assert "--device cuda:1 with --engine: Ray deals the GPUs out" in refused("--engine", "ray", "--device", "cuda:1")


def test_an_address_that_does_not_answer(monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr(ray_machines, "ANSWERS_WITHIN", 0.5)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(
            FitPruneError, match=rf"--engine ray://127.0.0.1:{port}: 127.0.0.1:{port} does not answer \(.*refused"
        ):
            connect(f"ray://127.0.0.1:{port}")


def test_without_rays_client(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed")

    def refuses(**_):
        raise ValueError("Ray Client requires pip package `ray[client]`. If you installed the minimal Ray, reinstall it.")

    monkeypatch.setattr(ray, "init", refuses)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        engine = f"ray://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(FitPruneError, match=rf"^--engine {engine} needs Ray's client: pip install 'ray\[client\]'$"):
            connect(engine)


def test_an_address_that_is_no_ray_is_given_up_within_ten_seconds(monkeypatch):
    """Ray's client tries three times; it waits for the second and third as long as it may."""
    pytest.importorskip("ray", reason="Ray is not installed")
    names = "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S"
    for name in names:
        monkeypatch.delenv(name, raising=False)
    load_ray()
    first, other = (int(os.environ[name]) for name in names)
    assert first + 2 * other <= ray_machines.ANSWERS_WITHIN


@pytest.mark.parametrize("held", ["file", "variable", "none", "mode given"])
def test_a_token_of_this_machine_is_shown_to_a_cluster_elsewhere(monkeypatch, tmp_path, held):
    pytest.importorskip("ray", reason="Ray is not installed")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what is set here goes afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    if held in ("file", "mode given"):
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    if held == "variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    if held == "mode given":
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_engine("ray://127.0.0.1:10001")
    assert os.environ.get("RAY_AUTH_MODE") == {"none": None, "mode given": "disabled"}.get(held, "token")


def test_a_cluster_that_wants_another_token(monkeypatch):
    """Ray's client says no more than that nobody answers, in an error and in a warning."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")

    def refuses(**_):
        warnings.warn("Ray Client connection timed out.", UserWarning, stacklevel=1)
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", refuses)
    with socket.create_server(("127.0.0.1", 0)) as listening, warnings.catch_warnings(action="error"):
        engine = f"ray://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(FitPruneError, match=r"timeout; one that asks for a token takes who has its ~/.ray/auth_token$"):
            connect(engine)


def test_a_machine_of_no_cluster(monkeypatch, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray._private import services

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: None)
    with pytest.raises(FitPruneError, match="--engine ray:auto: this machine is part of no Ray cluster"):
        connect("ray:auto")
