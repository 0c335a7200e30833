"""The command `serve`."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniadapter.app.display import say
from uniadapter.errors import UsageError
from uniadapter.search.index import Index
from uniadapter.search.places import check_there

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a server is, and for whom.

    Args:
        host: address to bind to.
        port: 0 takes a free one.
        token: that visitors must show; "" makes one up where the host is not this machine alone.
        upload_bytes: most bytes of an upload.
        waiting: most requests that wait.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str = ""
    upload_bytes: int = 64 << 20
    waiting: int = 64


def run_server(
    index: str | Path,
    model: str | None,
    adapters: Sequence[str] | None,
    address: Address,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve an index until the process is told to stop.

    Args:
        index: its folder, or its address.
        model: the index's model under another name.
        adapters: see `Adapters`.
        address: where to serve it.
        on_start: called with the page's address.

    Raises:
        CheckpointError, DataError: see `Index` and `Adapters`.
        UsageError: FastAPI or uvicorn is missing, or the address cannot be bound.
    """
    try:
        import uvicorn

        from uniadapter.serve.adapters import Adapters
        from uniadapter.serve.guarding import is_local
        from uniadapter.serve.service import Service
        from uniadapter.serve.web import make_app
    except ImportError as error:
        raise UsageError(f'serving needs {error.name}: pip install "uniadapter[serve]"') from None
    check_there(index)
    bound = _bound(address)  # before the model is loaded, which takes seconds
    opened = Index(index, model)
    service = Service(opened, Adapters(opened.encoder.loaded, adapters), address.waiting)
    token = address.token or ("" if is_local(address.host) else secrets.token_urlsafe(24))
    app = make_app(service, token, address.upload_bytes)
    host = (
        "localhost" if is_local(address.host) else socket.gethostname() if address.host == "0.0.0.0" else address.host
    )
    url = f"http://{host}:{bound.getsockname()[1]}/{f'?token={token}' if token else ''}"
    say(f"{len(opened)} files, {', '.join(_named(service.adapters.of(task), task) for task in _TASKS)}")
    say(f"open {url}; Ctrl+C stops the server")
    on_start(url)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    try:
        server.run(sockets=[bound])
    finally:
        service.close()
        bound.close()


_TASKS = {"retrieval": "to rank by", "vqa": "to ask", "caption": "to caption"}


def _named(adapters: Sequence[object], task: str) -> str:
    count = len(adapters)
    return f"{count or 'no'} adapter{'' if count == 1 else 's'} {_TASKS[task]}"


def _bound(address: Address) -> socket.socket:
    """A socket at the address.

    Raises:
        UsageError: it cannot be bound.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(128)  # who comes early waits
    except OSError as error:
        advice = "another program has it: name another --port, or 0 for a free one" if error.errno == 98 else str(error)
        raise UsageError(f"{address.host}:{address.port} cannot be served: {advice}") from None
    return found
