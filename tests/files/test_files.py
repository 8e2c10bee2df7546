"""Files: what is not ours stays, what is too large is not read, and what cannot be locked is said."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pyro_onebit import InputError
from pyro_onebit.errors import WriteError
from pyro_onebit.files import claim, is_locked, lock, read_table, read_whole, remove, write_table, write_whole
from pyro_onebit.studies import records

MARK = rb"\Aours"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"theirs, not ours"), "exists and is not ours; .* --force"),
        (Path.mkdir, "is a directory"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to(path.with_name("ours")), "is a link"),
        (lambda path: path.symlink_to(path.with_name("nothing")), "is a link"),
    ],
)
@pytest.mark.parametrize("write", [lambda path: write_whole(path, b"ours", MARK), lambda path: remove(path, MARK)])
def test_what_is_not_ours_stays(
    make: Callable[[Path], object], message: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "ours").write_bytes(b"ours")
    target = tmp_path / "target"
    make(target)
    before = target.lstat()
    with pytest.raises(InputError, match=message):
        write(target)
    after = target.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert (tmp_path / "ours").read_bytes() == b"ours"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_stays(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises(InputError, match="is a device"):
        write_whole(tmp_path / "null", b"", force=True)
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_what_is_ours_empty_or_forced_is_replaced(tmp_path: Path) -> None:
    for name, before, force in (("ours", b"ours, older", False), ("empty", b"", False), ("theirs", b"theirs", True)):
        (tmp_path / name).write_bytes(before)
        write_whole(tmp_path / name, b"ours", MARK, force=force)
        assert (tmp_path / name).read_bytes() == b"ours"
    (tmp_path / "theirs").write_bytes(b"theirs")
    claim(tmp_path / "theirs", MARK, force=True)
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("mask", [0o077, 0o027])
def test_modes_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_table_that_is_another_s_stays(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, pd.DataFrame({"a": [1], "b": [2]}))
    write_table(path, pd.DataFrame({"a": [1], "b": [2], "c": [3]}))
    with pytest.raises(InputError, match="is not ours"):
        write_table(path, pd.DataFrame({"b": [1], "a": [2]}))


@pytest.mark.parametrize("content", ["a,b\n" + "1" * 400 + ",2\n", "a,b\n1\n", 'a,b\n"1,2\n', "a,a\n1,2\n", "\udcff"])
def test_a_table_that_is_none_names_its_file(content: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"table\.csv is damaged") as caught:
        read_table(path)
    assert len(str(caught.value)) < 300


def test_a_file_is_not_read_if_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="no such file of ours is that large"):
        read_table(path)
    with pytest.raises(InputError, match=r"needs 1,\d{3}\.\d GB of memory, and .* are free"):
        read_whole(path)
    with pytest.raises(InputError, match="does not begin with b'onebit'"):
        read_whole(path, magic=b"onebit")


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    message = "No locks available; choose a directory on a file system that has locks"
    with pytest.raises(InputError, match=message), lock(tmp_path / ".lock"):
        pass


def test_a_lock_that_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("another program's")
    with pytest.raises(InputError, match="is no lock of ours"), lock(tmp_path / ".lock"):
        pass
    assert (tmp_path / ".lock").read_text() == "another program's"


def test_what_cannot_be_removed_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that became read-only: the write's own error is what is said, and the lock is given back."""
    path = tmp_path / "file"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(WriteError, match=r"cannot write .*file: Operation not permitted"), lock(tmp_path / "lock"):
            write_whole(path, b"content")
    assert (tmp_path / "lock").exists()
    assert not is_locked(tmp_path / "lock")


def test_write_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    write_whole(target, b"first", b"first")
    target.chmod(0o640)
    write_whole(target, b"second", b"first")
    assert target.read_bytes() == b"second"
    assert target.stat().st_mode & 0o777 == 0o640  # as it was before
    assert [p.name for p in target.parent.iterdir()] == ["file"]
    with pytest.raises(InputError, match="cannot write"):
        write_whole(target / "below", b"")
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_table_keeps_every_digit(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": 0.1 + 0.2, "c": "gaussian"}, {"a": 2, "b": 1e-300, "c": "x,y"}]
    write_table(tmp_path / "t.csv", pd.DataFrame(rows))
    assert records(read_table(tmp_path / "t.csv")) == rows
