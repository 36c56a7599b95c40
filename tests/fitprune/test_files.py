"""A file that is written whole or not at all: its mode, its flushes, what an error leaves."""

import os
import stat

import pytest

from fitprune.files import replacing


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
