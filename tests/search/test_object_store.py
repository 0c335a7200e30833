"""An index in an object store, here a server of S3 on this machine: the same index, one writer, errors in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import uniadapter as ua
from uniadapter.app.cli import main
from uniadapter.embedded import resolve_embedded
from uniadapter.errors import DataError, UsageError
from uniadapter.search import object_store
from uniadapter.search.places import place_of

pytest.importorskip("lancedb")


@contextmanager
def served() -> Iterator[tuple[str, Callable[[], None]]]:
    """Address of an empty bucket and what stops its server; endpoint and credentials are in the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_REGION": "us-east-1"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        for name, value in settings.items():
            patched.setenv(name, value)
        boto3.client("s3", endpoint_url=settings["AWS_ENDPOINT"]).create_bucket(Bucket="mine")
        try:
            yield "s3://mine", server.stop
        finally:
            server.stop()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """See `served`."""
    pytest.importorskip("moto")
    pytest.importorskip("flask_cors", reason="moto's server needs flask and flask-cors")
    with served() as (address, _):
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures and a file that cannot be indexed."""
    file = Path(resolve_embedded("embedded:drawn/test"))
    (tmp_path / "media").mkdir()
    for number, row in enumerate(json.loads(file.read_text())[:6]):
        shutil.copy(file.parent / row["image"], tmp_path / f"media/{number}.png")
    (tmp_path / "media/page.png").write_text("<html>not found</html>")
    return tmp_path / "media"


def test_it_is_the_index_of_a_folder(tmp_path: Path, folder: Path, bucket: str) -> None:
    where = f"{bucket}/first/my.index"
    plain, index = (ua.Index(one, "embedded:scenes") for one in (tmp_path / "my.index", where))
    assert str(index.add(folder)) == str(plain.add(folder)) == "6 added, 1 not indexed"
    (folder / "3.png").rename(folder / "renamed.png")
    (folder / "4.png").unlink()
    again = ua.Index(where)
    assert again.name == "embedded:scenes", "it knows its model"
    assert str(again.add()) == str(plain.add()) == "1 renamed, 1 removed, 4 unchanged, 1 not indexed"
    assert again.files() == plain.files()
    assert again.problems() == plain.problems()
    assert index.search("a cat") == plain.search("a cat"), "a reader sees what another has written"
    assert again.store.frames().vectors.shape == plain.store.frames().vectors.shape
    assert not (tmp_path / "s3:").exists()


def test_the_commands(folder: Path, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"{bucket}/second"
    assert main(["search", where, "a cat"]) == 2
    assert f"make one with uniadapter index FOLDER --index {where}" in capsys.readouterr().err
    assert main(["index", str(folder), "--index", where, "--model", "embedded:scenes"]) == 0
    assert "6 added, 1 not indexed; 6 files in all" in capsys.readouterr().out
    assert main(["index", "--index", where, "--rebuild"]) == 0
    assert "6 added, 1 not indexed; 6 files in all" in capsys.readouterr().out
    assert main(["search", where, "a cat", "--top", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    for address, said in (
        ("s3://nowhere/my.index", "cannot be reached"),
        ("ftp://mine/my.index", "s3://, gs://, az://"),
    ):
        assert main(["search", address, "a cat"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_one_process_writes(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{bucket}/third"
    index, other = (ua.Index(where, "embedded:scenes") for _ in range(2))
    with index.place.writing(), pytest.raises(UsageError, match="another process is indexing into it"):
        other.add(folder)
    assert str(other.add(folder)) == "6 added, 1 not indexed"
    monkeypatch.setattr(object_store, "BEAT", 0.1)
    with index.place.writing():
        first = until(index.place)
        time.sleep(2)
        assert until(index.place) > first, "the claim is put off"
    assert until(index.place) == 0, "and given back"
    monkeypatch.setattr(object_store, "BEAT", 100)
    with index.place.writing():
        index.place.check()
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + object_store.HELD + 1)  # paused for so long
        with other.place.writing(), pytest.raises(UsageError, match="another process indexes into it since"):
            index.store.put_files(list(other.files()))


def until(place: Any) -> float:
    """The time until which a claim holds."""
    return place._table().search().where("key = 'claim'").to_list()[0]["until"]


def test_a_killed_process_holds_its_claim_for_a_while(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
import os, signal
from uniadapter.search.places import place_of
with place_of("{bucket}/fourth").writing():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], env=dict(os.environ)).returncode == -9
    place = place_of(f"{bucket}/fourth")
    with pytest.raises(UsageError, match="died less than 120 s ago"), place.writing():
        pass
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + object_store.HELD + 1)
    with place.writing():
        pass


def test_of_two_that_claim_at_once_one_wins(bucket: str) -> None:
    def winners(where: str) -> int:
        tried = threading.Semaphore(0)

        def write(_: int) -> bool:
            place = place_of(where)
            try:
                with place.writing():
                    tried.release()
                    until = time.monotonic() + 60
                    while tried._value < 3 and time.monotonic() < until:  # until all have tried
                        time.sleep(0.1)
                    place.check()
                    return True
            except UsageError:
                tried.release()
                return False

        with ThreadPoolExecutor(3) as pool:
            return sum(pool.map(write, range(3)))

    for name in ("fifth", "sixth"):
        assert winners(f"{bucket}/{name}") <= 1, "all make it at once, and may find one another in the way"
        assert winners(f"{bucket}/{name}") == 1


def test_a_broken_description(bucket: str) -> None:
    place = place_of(f"{bucket}/seventh")
    assert place.described() is None
    place._change("description", "{", 0.0)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="its description is broken; build the index again"):
        place.described()
    place.delete()
    assert place.described() is None


def test_a_store_that_is_gone(folder: Path) -> None:
    pytest.importorskip("moto")
    pytest.importorskip("flask_cors", reason="moto's server needs flask and flask-cors")
    with served() as (bucket, stop):
        index = ua.Index(f"{bucket}/eighth", "embedded:scenes")
        index.add(folder)
        stop()
        for work in (lambda: index.search("a cat"), index.files, index.add, lambda: ua.Index(f"{bucket}/eighth")):
            with pytest.raises(DataError, match="cannot be reached; look at the address") as caught:
                work()
            assert "\n" not in str(caught.value)
