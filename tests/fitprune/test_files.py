"""A file that is written whole or not at all: its mode, its flushes, what an error leaves."""

import os
import stat
from pathlib import Path

import pytest

from fitprune.errors import FitPruneError
from fitprune.files import check_folder, check_target, is_written_through, replacing


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_what_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert (tmp_path / "a").read_text() == "x"


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    done, plain = [], os.replace

    def flushed(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if folder else os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda *names: done.append("rename") or plain(*names))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("seven…")
    assert done == [8, "rename", "folder"]


def test_after_an_error_nothing_is_left(tmp_path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as temporary:
        raise ZeroDivisionError(temporary.write_text("half"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_link_stays_one_and_the_file_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_text("before")
    (tmp_path / "link").symlink_to("far/a")
    check_target(tmp_path / "link")
    with replacing(tmp_path / "link") as temporary:
        temporary.write_text("after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_text() == "after"
    (tmp_path / "dangling").symlink_to("nowhere/a")
    with pytest.raises(FitPruneError, match=r"dangling: its folder does not exist$"):
        check_target(tmp_path / "dangling")


def test_a_pipe_is_written_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_target(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with replacing(tmp_path / "pipe") as through:
        through.write_text("rows")
    assert os.read(reader, 100) == b"rows"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    os.close(reader)


def test_what_is_written_through():
    assert is_written_through(Path("/dev/stdout"))
    assert is_written_through(Path("/dev/null"))
    assert not is_written_through(Path("/dev"))
    check_target(Path("/dev/null"))


def test_a_folder_is_there_or_can_be_made(tmp_path):
    check_folder(tmp_path / "a" / "b", "the page")
    (tmp_path / "a").write_text("")
    with pytest.raises(FitPruneError, match=r"^cannot write the page to \S+/a/b: \S+/a is a file$"):
        check_folder(tmp_path / "a" / "b", "the page")
    with pytest.raises(FitPruneError, match=r"a: it is a file$"):
        check_folder(tmp_path / "a", "the page")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_in(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FitPruneError, match=r"its folder cannot be written in$"):
        check_target(tmp_path / "a")
    with pytest.raises(FitPruneError, match=r"it cannot be written in$"):
        check_folder(tmp_path, "the page")
