"""The server's addresses; docs/serve.md describes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, StringConstraints
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from uniadapter.errors import DataError, user_message
from uniadapter.search.queries import LONGEST
from uniadapter.search.ranking import Filters
from uniadapter.serve.adapters import Adapter
from uniadapter.serve.batching import BusyError
from uniadapter.serve.guarding import Guard, Next, refused
from uniadapter.serve.items import Item, UnknownItemError
from uniadapter.serve.measuring import Metrics
from uniadapter.serve.service import Service
from uniadapter.serve.showing import frame_jpeg, media_type, picture_jpeg, thumbnail_jpeg
from uniadapter.serve.uploading import receive
from uniadapter.version import __version__

PAGE = Path(__file__).parent / "page"
MOST_RESULTS = 200
Name = Annotated[str, StringConstraints(max_length=200)]
Words = Annotated[str, StringConstraints(max_length=LONGEST)]


class Asked(BaseModel):
    """A question about an item, for one or several adapters; without a question, its caption."""

    item: Name
    adapters: Annotated[list[Name], Field(min_length=1, max_length=4)] = [""]
    question: Words = ""


class Why(BaseModel):
    """Where the words of a text look, as an adapter reads it."""

    item: Name
    text: Words
    adapter: Name = ""
    task: Literal["vqa", "retrieval"] = "vqa"


def make_app(service: Service, token: str = "", upload_bytes: int = 64 << 20) -> FastAPI:
    """The application.

    Args:
        service: what it does.
        token: that requests must show; "" for none.
        upload_bytes: most bytes of an upload.
    """
    app = FastAPI(title="uniadapter", version=__version__, docs_url=None, redoc_url=None)  # their pages need a network
    metrics = Metrics(service)
    app.middleware("http")(Guard(token))

    @app.middleware("http")
    async def count(request: Request, call_next: Next) -> Response:
        begun = time.perf_counter()
        response = await call_next(request)
        route = request.scope.get("route")
        metrics.count(getattr(route, "path", "other"), response.status_code, time.perf_counter() - begun)
        return response

    _add_errors(app)
    _add_state(app, service, metrics, upload_bytes)
    _add_search(app, service)
    _add_answers(app, service)
    _add_media(app, service, upload_bytes)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _add_errors(app: FastAPI) -> None:
    """One line of JSON for every error; a bug is a plain 500, its traceback in the server's log."""

    def told(status: int) -> Callable[[Request, Exception], Response]:
        return lambda request, error: refused(status, user_message(error) or str(error))

    for kind, status in ((ValueError, 400), (UnknownItemError, 404), (BusyError, 503)):
        app.exception_handler(kind)(told(status))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return refused(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))  # the first says whether it is in the address or in the body
        return refused(422, f"{where or 'the request'}: {first['msg'][:1].lower()}{first['msg'][1:]}")


def _add_state(app: FastAPI, service: Service, metrics: Metrics, upload_bytes: int) -> None:
    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "version": __version__, "files": len(service.items)}

    @app.get("/metrics")
    def measured() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/api/index")
    def described() -> dict[str, Any]:
        service.refresh()
        adapters = {task: list(map(_adapter, service.adapters.of(task))) for task in ("retrieval", "vqa", "caption")}
        return {
            "name": Path(service.index.place.name).name, "files": len(service.items), "videos": service.items.videos,
            "adapters": adapters, "searching": service.adapters.searching.name, "upload_bytes": upload_bytes,
            "fuses": service.index.encoder.can_match,
        }  # fmt: skip


def _add_search(app: FastAPI, service: Service) -> None:
    @app.get("/api/search")
    def search(
        query: Annotated[str, Query(max_length=LONGEST)],
        top: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 24,
        kind: Literal["", "picture", "video"] = "",
        after: datetime | None = None,
        before: datetime | None = None,
        rerank: bool = True,
        adapter: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        begun = time.perf_counter()
        found = service.search(query, top, Filters(kind, after, before), rerank, adapter)
        results = [
            {**_item(one.item), "time": one.match.time, "similarity": one.match.similarity,
             "matching": one.match.matching} for one in found
        ]  # fmt: skip
        return {"query": query, "results": results, "seconds": time.perf_counter() - begun}


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/api/ask")
    def ask(asked: Asked) -> dict[str, Any]:
        return _answered(service, asked, "vqa", asked.question)

    @app.post("/api/caption")
    def caption(asked: Asked) -> dict[str, Any]:
        return _answered(service, asked, "caption", None)

    @app.post("/api/why")
    def why(asked: Why) -> dict[str, Any]:
        item, adapter = service.items[asked.item], service.adapters.named(asked.task, asked.adapter)
        found = service.why(item, asked.text, adapter)
        rows, columns = found.patches.shape[2:]
        return {
            "words": found.words, "rows": rows, "columns": columns, "frames": found.patches.shape[1],
            "maps": [[round(value, 5) for value in word.flatten().tolist()] for word in found.patches],
            "frame_weights": [round(value, 4) for value in found.frame_weights.tolist()],
            "frame_shares": [[round(value, 4) for value in word] for word in found.frames.tolist()],
        }  # fmt: skip


def _answered(service: Service, asked: Asked, task: str, question: str | None) -> dict[str, Any]:
    begun = time.perf_counter()
    adapters = [service.adapters.named(task, name) for name in asked.adapters]
    answers = service.answer(service.items[asked.item], adapters, question)
    told = [
        {"adapter": adapter.name, "text": answer.text, "ranked": [list(pair) for pair in answer.ranked]}
        for adapter, answer in zip(adapters, answers, strict=True)
    ]
    return {"answers": told, "seconds": time.perf_counter() - begun}


def _add_media(app: FastAPI, service: Service, upload_bytes: int) -> None:
    @app.post("/api/upload")
    async def upload(request: Request, name: Annotated[str, Query(max_length=500)] = "upload") -> Any:
        return _item(await receive(request, service.items, name, upload_bytes))

    @app.get("/api/thumbnail/{key}")
    def thumbnail(key: str, time: float = 0.0) -> Response:
        item = service.items[key]
        small = service.thumbnail(item, time) or thumbnail_jpeg(item)
        return Response(small, media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/picture/{key}")
    def picture(key: str) -> Response:
        return Response(picture_jpeg(service.items[key]), media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/frame/{key}/{number}")
    def frame(key: str, number: int, of: Annotated[int, Query(ge=1, le=64)] = 1) -> Response:
        return Response(frame_jpeg(service.items[key], number, of), media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/media/{key}")
    def media(key: str) -> Response:
        item = service.items[key]
        kind = media_type(item)
        if kind is None:
            raise DataError(f"{item.name}: no video that a browser plays", "no video")
        return FileResponse(item.path, media_type=kind, headers=_KEPT)


_KEPT = {"Cache-Control": "private, max-age=300"}


def _adapter(adapter: Adapter) -> dict[str, Any]:
    return {"name": adapter.name, "frames": adapter.settings.frames or 1, "trained": adapter.part is not None}


def _item(item: Item) -> dict[str, Any]:
    return {
        "key": item.key, "name": item.name, "kind": "video" if item.video else "picture", "seconds": item.seconds,
        "plays": media_type(item) or "",
    }  # fmt: skip
