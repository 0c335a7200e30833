"""An upload, written to disk as it comes and refused as soon as it is too large."""

from __future__ import annotations

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from uniadapter.serve.items import Item, Items


class TooLargeError(HTTPException):
    """More bytes than the limit."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"the file has more than {most / 2**20:.0f} MB, the limit of this server")


async def receive(request: Request, items: Items, name: str, most: int) -> Item:
    """Keep the body of a request as an item.

    Args:
        request: whose body is the file.
        items: to add it to.
        name: that it has at home.
        most: bytes.

    Raises:
        TooLargeError: it is longer; what was written is deleted.
        DataError: it is no picture and no video.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most:
        raise TooLargeError(most)
    file = items.new_file()
    written = 0
    try:
        with file.open("wb") as stream:
            async for part in request.stream():
                written += len(part)
                if written > most:
                    raise TooLargeError(most)
                await run_in_threadpool(stream.write, part)
    except (TooLargeError, ClientDisconnect, OSError):
        file.unlink(missing_ok=True)
        raise
    return await run_in_threadpool(items.add, file, name)
