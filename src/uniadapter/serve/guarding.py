"""Who may use the server: names under which it is reached, the token, and headers that keep a page to itself."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request, Response
from starlette.responses import JSONResponse, RedirectResponse

COOKIE = "uniadapter_token"
OPEN_PATHS = ("/health",)  # for whatever watches the server
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Next = Callable[[Request], Awaitable[Response]]


def is_local(host: str) -> bool:
    """Whether a server that is bound to this address is reached from its own machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses what comes from elsewhere.

    Without a token the server is for its own machine: requests that name it otherwise come from a page that pretends
    to be it (DNS rebinding). A request that changes something must not come from another site's page.

    Args:
        token: that requests must show; "" for none.
    """

    def __init__(self, token: str) -> None:
        self.token = token

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """As FastAPI's middleware."""
        response = self._refusal(request)
        if response is None:
            response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _refusal(self, request: Request) -> Response | None:
        if request.url.path in OPEN_PATHS:
            return None
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if not self.token and not is_local(host):
            return refused(403, "this server is for its own machine: open it as localhost")
        origin = request.headers.get("origin")
        if origin and request.method != "GET" and urlsplit(origin).netloc != request.headers.get("host"):
            return refused(403, "the request comes from another site's page")
        if not self.token:
            return None
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and request.url.path == "/" and self._fits(given):
            response: Response = RedirectResponse("/", 303)  # so that the token does not stay in the address
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict", secure=request.url.scheme == "https")
            return response
        header = request.headers.get("authorization", "")
        shown = header.removeprefix("Bearer ") if header.startswith("Bearer ") else request.cookies.get(COOKIE, "")
        if not self._fits(shown):
            return refused(401, "this server wants its token: open the address that it printed, or send it as Bearer")
        return None

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def refused(status: int, error: str) -> JSONResponse:
    """An error for a program or the page."""
    return JSONResponse({"error": error}, status, {"Retry-After": "1"} if status == 503 else None)
