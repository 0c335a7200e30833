"""`uniadapter serve` as a process: it says where it is, stops when told, and says in a line why it cannot begin."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from serving import make_index

from uniadapter.app.cli import main


@pytest.mark.slow
def test_a_server_begins_answers_and_stops(tmp_path: Path) -> None:
    make_index(tmp_path, 3)
    command = [sys.executable, "-m", "uniadapter", "serve", str(tmp_path / "my.index"), "--port", "0"]
    command += ["--adapter", "embedded:caption"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line)
        if line.startswith("open "):
            break
    assert lines[0].startswith("7 files, 2 adapters to rank by, no adapters to ask, 2 adapters to caption"), lines
    url = lines[-1].split()[1].rstrip(";")
    assert json.load(urlopen(f"{url}health"))["files"] == 7
    again = subprocess.run(
        [*command[:6], url.rstrip("/").rsplit(":", 1)[1]], capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "another program has it: name another --port" in again.stderr
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=60)
    assert "Traceback" not in errors
    assert server.returncode in (0, 130, -signal.SIGINT)


def test_a_host_for_others_has_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uniadapter.app.serving import Address, run_server

    make_index(tmp_path, 2)
    said = list[str]()

    class Server:
        def __init__(self, config: object) -> None: ...

        def run(self, sockets: list[socket.socket]) -> None: ...

    monkeypatch.setattr("uvicorn.Server", Server)
    run_server(tmp_path / "my.index", None, [], Address("0.0.0.0", 0), said.append)
    run_server(tmp_path / "my.index", None, [], Address("127.0.0.1", 0), said.append)
    run_server(tmp_path / "my.index", None, [], Address("0.0.0.0", 0, "mine"), said.append)
    assert len(said[0].split("?token=")[1]) > 20
    assert "token" not in said[1]
    assert said[2].endswith("?token=mine")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.index"], "no index; make one with uniadapter index FOLDER"),
        (["INDEX", "--adapter", "embedded:nothing"], "there is no adapter 'embedded:nothing'"),
        (["INDEX", "--adapter", "nowhere"], "nowhere"),
        (["INDEX", "--host", "no.such.host.invalid"], "cannot be served"),
        (["INDEX", "--port", "70000"], "--port"),
        (["INDEX", "--upload-mb", "0"], "--upload-mb"),
        ([], "index"),
    ],
)
def test_what_it_cannot_serve(
    served: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["serve", *(str(served) if one == "INDEX" else one for one in arguments)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    make_index(folder, 2)
    return folder / "my.index"
