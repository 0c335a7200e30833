"""Shards elsewhere: a real HTTP server that hangs, fails and lies."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from shard_files import settings, write_set

from uniadapter.data.layouts.records import DataError, ErrorPolicy
from uniadapter.data.loaders import train_loader
from uniadapter.data.sharded import count_named, load_shards
from uniadapter.data.shards import copies, places
from uniadapter.data.shards.copies import LocalCopies
from uniadapter.data.shards.places import LostShard


class Server:
    """Serves a folder; `faults` says what goes wrong with a name, and how many times."""

    def __init__(self, folder: Path) -> None:
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *given: Any, **more: Any) -> None:
                super().__init__(*given, directory=str(folder), **more)

            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                outer.asked[name] += 1
                fault = outer.faults.get(name, [""])
                now = fault.pop(0) if len(fault) > 1 else fault[0]
                if now == "fail":
                    self.send_error(503)
                elif now == "hang":
                    time.sleep(3)
                elif now == "stall":
                    content = (folder / name).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    time.sleep(3)
                elif now == "cut":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write((folder / name).read_bytes()[:700])
                else:
                    super().do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Six shards of four records with an index, at an address; waiting is short."""
    monkeypatch.setattr(places, "WAITS", (0.05, 0.05, 0.05))
    write_set(tmp_path / "there", (4,) * 6)
    index = count_named(str(tmp_path / "there"), settings(), "retrieval", ErrorPolicy(), checksums=True)
    (tmp_path / "there" / "shards.json").write_bytes(index.to_json())
    one = Server(tmp_path / "there")
    yield one
    one.server.shutdown()
    one.server.server_close()


PATTERN = "/train-{000000..000005}.tar"


def read(server: Server, tmp_path: Path, **changes: Any) -> tuple[list[str], Any]:
    config = settings(cache=str(tmp_path / "cache"), shuffle_buffer=8, **changes)
    split = load_shards(server.address + PATTERN, config, "retrieval")
    loader = train_loader(split, config, size=8, batch_size=4, seed=0)
    found = [text for batch in loader for text in batch.captions]
    loader.close()
    return found, loader


@pytest.mark.parametrize("workers", [0, 2])
def test_each_shard_is_fetched_once_and_few_are_kept(server: Server, tmp_path: Path, workers: int) -> None:
    found, _ = read(server, tmp_path, workers=workers)
    assert sorted(found) == sorted(f"picture {n} take 0" for n in range(24))
    assert max(count for name, count in server.asked.items() if name.endswith(".tar")) == 1
    assert 1 <= len(list((tmp_path / "cache").glob("*.tar"))) <= 6


def test_copies_go_when_there_are_too_many(server: Server, tmp_path: Path) -> None:
    kept = LocalCopies(str(tmp_path / "cache"), 2, "x")
    for number in range(6):
        kept.get(f"{server.address}/train-{number:06d}.tar", 0, "")
        assert len(list((tmp_path / "cache").glob("*.tar"))) <= 2
    temporary = LocalCopies(None, 2, "0123456789abcdef of this test")
    temporary.get(f"{server.address}/train-000000.tar", 0, "")
    assert temporary.folder.is_dir()
    temporary.close()
    assert not temporary.folder.exists()
    kept.close()
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


@pytest.mark.parametrize("fault", ["fail", "hang", "stall"])
def test_a_source_that_fails_for_a_while_is_tried_again(
    server: Server,
    tmp_path: Path,
    fault: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies, "STALLED", 0.7)
    server.faults["train-000002.tar"] = [fault, fault, ""]
    with caplog.at_level(logging.WARNING):
        found, _ = read(server, tmp_path)
    assert sorted(found) == sorted(f"picture {n} take 0" for n in range(24))
    assert server.asked["train-000002.tar"] == 3
    assert caplog.text.count("trying again") == 1


def test_a_transfer_that_is_cut_is_not_taken_for_the_shard(server: Server, tmp_path: Path) -> None:
    server.faults["train-000002.tar"] = ["cut"]
    with pytest.raises(LostShard, match=r"train-000002.tar has 700 bytes, and the index says"):
        read(server, tmp_path)


def test_a_source_that_goes_on_failing_is_left_out_and_counted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "STALLED", 0.7)
    server.faults |= {"train-000001.tar": ["fail"], "train-000004.tar": ["hang"]}
    with pytest.raises(LostShard, match=r"4 times: look at the network"):
        read(server, tmp_path)
    server.asked.clear()
    found, loader = read(server, tmp_path, on_error="skip", most_lost_shards=2, workers=2)
    assert len(found) == 24
    assert not {f"picture {n} take 0" for n in (4, 5, 6, 7, 16, 17, 18, 19)} & set(found)
    assert loader.skipped == {"lost shard": 2}
    assert server.asked["train-000001.tar"] == 4  # by all processes together
    with pytest.raises(LostShard, match=r"2 shards cannot be read, and data.most_lost_shards is 1"):
        read(server, tmp_path, on_error="skip", most_lost_shards=1)


def test_addresses_that_are_not_there_and_files_that_have_changed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_shards(f"{server.address}/none/train-{{0..2}}.tar", settings(cache=str(tmp_path / "c")), "retrieval")
    with pytest.raises(DataError, match=r"Protocol not known"):
        load_shards("wrong-scheme://a/train-0.tar", settings(), "retrieval")
    file = tmp_path / "there" / "train-000003.tar"
    content = bytearray(file.read_bytes())
    content[600] ^= 1
    file.write_bytes(content)
    with pytest.raises(LostShard, match=r"train-000003.tar has another checksum"):
        read(server, tmp_path)
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(DataError, match="4 times: look at the network"):
        load_shards(server.address + PATTERN, settings(cache=str(tmp_path / "d")), "retrieval")


def test_shards_elsewhere_without_an_index_are_counted_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "there" / "shards.json").unlink()
    found, _ = read(server, tmp_path)
    assert sorted(found) == sorted(f"picture {n} take 0" for n in range(24))


def _fetch(folder: str, address: str, ready: Any) -> None:
    ready.wait()
    LocalCopies(folder, 9, "x").get(address, 0, "")


def test_several_processes_fetch_a_shard_once(server: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    address = f"{server.address}/train-000000.tar"
    several = [context.Process(target=_fetch, args=(str(tmp_path / "c"), address, ready)) for _ in range(4)]
    for one in several:
        one.start()
    ready.set()
    for one in several:
        one.join(30)
    assert [one.exitcode for one in several] == [0] * 4
    assert server.asked["train-000000.tar"] == 1
