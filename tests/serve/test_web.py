"""The server's addresses: what they give, and what they refuse."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from serving import CLIPS, make_service

import uniadapter as ua
from uniadapter.serve import items
from uniadapter.serve.adapters import Adapters
from uniadapter.serve.service import Service
from uniadapter.serve.web import make_app


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return TestClient(make_app(service, upload_bytes=200_000), "http://localhost:7860")


def found(client: TestClient, **asked: Any) -> list[dict[str, Any]]:
    response = client.get("/api/search", params=asked)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def png(size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 1).save(stream, "PNG")
    return stream.getvalue()


def test_search_is_that_of_the_index(client: TestClient, service: Service) -> None:
    given = found(client, query="a dog", top=5)
    right = service.index.search("a dog", 5)
    assert [one["name"] for one in given] == [str(Path(*Path(one.path).parts[-2:])) for one in right]
    assert [one["matching"] for one in given] == pytest.approx([one.matching for one in right])
    assert all(one["kind"] == "video" and one["time"] is not None for one in found(client, query="a dog", kind="video"))
    assert len(found(client, query="a dog", kind="video")) == CLIPS
    assert not found(client, query="a dog", after="2999-01-01")
    quick = found(client, query="a dog", top=5, rerank=False)
    assert all(one["matching"] is None for one in quick)


def test_another_adapter_ranks(client: TestClient) -> None:
    own, other = (found(client, query="a dog", top=16, adapter=name) for name in ("scenes", "base"))
    assert {one["key"] for one in own} == {one["key"] for one in other}
    assert [one["matching"] for one in own] != [one["matching"] for one in other]
    assert [one["matching"] for one in other] == sorted((one["matching"] for one in other), reverse=True)


def test_what_looks_like_a_file_of_the_index(client: TestClient) -> None:
    one = found(client, query="a dog", kind="picture")[0]
    for query in (f"./{one['key']}", f"./{one['name']}"):
        assert found(client, query=query)[0]["key"] == one["key"]


def test_questions_captions_and_looks(client: TestClient) -> None:
    key = found(client, query="a dog", kind="picture")[0]["key"]
    asked = {"item": key, "question": "how many things are there?", "adapters": ["vqa", "base"]}
    answers = client.post("/api/ask", json=asked).json()["answers"]
    assert [one["adapter"] for one in answers] == ["vqa", "base"]
    assert answers[0]["text"] == answers[0]["ranked"][0][0]
    written = client.post("/api/caption", json={"item": key}).json()["answers"]
    assert written[0]["adapter"] == "caption"
    assert written[0]["text"]
    for task, text in (("vqa", "is there a dog?"), ("retrieval", "a dog")):
        why = client.post("/api/why", json={"item": key, "text": text, "task": task}).json()
        assert "dog" in why["words"]
        assert len(why["maps"][0]) == why["frames"] * why["rows"] * why["columns"]
    clip = found(client, query="a dog", kind="video")[0]["key"]
    why = client.post("/api/why", json={"item": clip, "text": "what comes first?", "adapter": "videoqa"}).json()
    assert why["frames"] == len(why["frame_weights"]) > 1


def test_media(client: TestClient, service: Service) -> None:
    picture, clip = (found(client, query="a dog", kind=kind)[0] for kind in ("picture", "video"))
    for address in (
        f"/api/thumbnail/{picture['key']}",
        f"/api/picture/{clip['key']}",
        f"/api/frame/{clip['key']}/2?of=4",
    ):
        response = client.get(address)
        assert response.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(response.content)).width > 32
    stored = service.index.search("a dog", 50)
    match = next(one for one in stored if one.path.endswith(clip["name"]))
    assert client.get(f"/api/thumbnail/{clip['key']}?time={clip['time']}").content == match.thumbnail
    part = client.get(f"/api/media/{clip['key']}", headers={"Range": "bytes=0-99"})
    assert part.status_code == 206
    assert part.headers["content-type"] == "video/mp4"
    assert len(part.content) == 100
    assert "no video that a browser plays" in client.get(f"/api/media/{picture['key']}").json()["error"]


def test_an_upload_is_an_item(client: TestClient) -> None:
    item = client.post("/api/upload?name=red.png", content=png()).json()
    assert (item["name"], item["kind"]) == ("red.png", "picture")
    assert client.post("/api/caption", json={"item": item["key"]}).json()["answers"][0]["text"]
    assert client.get(f"/api/thumbnail/{item['key']}").status_code == 200
    assert found(client, query=f"./{item['key']}", top=3)


BAD = {
    "too large": ("big.png", b"x" * 200_001, 413, "more than 0 MB"),
    "a text called .mp4": ("film.mp4", b"this is no film\n" * 50, 400, "film.mp4"),
    "html": ("page.html", b"<script>alert(1)</script>", 400, "page.html"),
    "nothing": ("empty.png", b"", 400, "empty.png"),
    "a bomb": ("bomb.png", png((40_000, 4_000), "1"), 400, "bomb.png"),
    "a path": ("../../etc/passwd", b"root:x:0:0", 400, "passwd"),
    "markup in the name": ("<img src=x onerror=alert(1)>.png", b"x", 400, "<img src=x onerror=alert(1)>.png"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_uploads(client: TestClient, service: Service, what: str) -> None:
    name, body, status, told = BAD[what]
    before = set(service.items._room.iterdir())
    response = client.post("/api/upload", params={"name": name}, content=body)
    assert response.status_code == status, response.text
    assert told in response.json()["error"]
    assert "\n" not in response.json()["error"]
    assert str(service.items._room) not in response.text
    assert set(service.items._room.iterdir()) == before, "nothing of it is kept"


def test_two_gigabytes_are_refused_before_they_are_sent(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        yield b"x" * 100
        raise AssertionError("read on")

    response = client.post("/api/upload", content=body(), headers={"Content-Length": str(2 << 30)})
    assert response.status_code == 413


def test_uploads_are_few_and_not_for_ever(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "MOST_UPLOADS", 2)
    keys = [client.post("/api/upload?name=red.png", content=png()).json()["key"] for _ in range(3)]
    assert client.get(f"/api/thumbnail/{keys[0]}").status_code == 404
    assert client.get(f"/api/thumbnail/{keys[2]}").status_code == 200
    monkeypatch.setattr(items, "KEPT_SECONDS", 0.0)
    client.post("/api/upload?name=red.png", content=png())
    assert client.get(f"/api/thumbnail/{keys[2]}").status_code == 404
    assert len(list(service.items._room.iterdir())) == 0


ASKED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "an empty query": ("/api/search", {"query": ""}, 400, "empty term"),
    "a long one": ("/api/search", {"query": "a" * 10_001}, 422, "query: string should have at most 10000"),
    "a file that is elsewhere": ("/api/search", {"query": "./../../etc/passwd"}, 404, "not in the index"),
    "an absolute one": ("/api/search", {"query": "/etc/passwd"}, 404, "not in the index"),
    "only what should not be": ("/api/search", {"query": "- dog"}, 400, "only what should not be there"),
    "no adapter of that name": (
        "/api/search",
        {"query": "a", "adapter": "nobody"},
        400,
        "there is scenes, clips, base",
    ),
    "too many": ("/api/search", {"query": "a", "top": 9999}, 422, "top: "),
    "another kind": ("/api/search", {"query": "a", "kind": "sound"}, 422, "kind: "),
    "no date": ("/api/search", {"query": "a", "after": "soon"}, 422, "after: "),
    "no item": ("/api/thumbnail/..%2F..%2Fetc%2Fpasswd", {}, 404, ""),
    "a frame that is none": ("/api/frame/x/-1", {}, 404, "not in the index"),
    "no such address": ("/api/nothing", {}, 404, "Not Found"),
}


@pytest.mark.parametrize("what", ASKED)
def test_bad_requests(client: TestClient, what: str) -> None:
    address, asked, status, told = ASKED[what]
    response = client.get(address, params=asked)
    assert response.status_code == status, response.text
    assert told in response.json()["error"]


def test_bad_questions(client: TestClient) -> None:
    key = found(client, query="a dog")[0]["key"]
    for asked, status, told in (
        ({"item": key, "question": "  "}, 400, "the question is empty"),
        ({"item": "nothing", "question": "a?"}, 404, "not in the index"),
        ({"item": key, "question": "a?", "adapters": ["caption"]}, 400, "no adapter 'caption' for vqa"),
        ({"item": key, "question": "a?", "adapters": []}, 422, "adapters: "),
        ({"question": "a?"}, 422, "item: field required"),
        ({"item": key, "question": "\ud800"}, 422, "question: input should be a valid string"),
    ):
        response = client.post("/api/ask", content=_json(asked), headers={"Content-Type": "application/json"})
        assert response.status_code == status, response.text
        assert told in response.json()["error"]
    assert client.post("/api/ask", json={"item": key, "question": "кто там? " * 200}).status_code == 200


def _json(value: object) -> bytes:
    import json

    return json.dumps(value).encode()


def test_other_machines_and_other_pages_are_refused(service: Service, client: TestClient) -> None:
    assert client.get("/api/index", headers={"Host": "evil.example"}).status_code == 403
    assert client.post("/api/upload", content=png(), headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/upload", content=png(), headers={"Origin": "http://localhost:7860"}).status_code == 200
    headers = client.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_token(service: Service) -> None:
    app = make_app(service, "secret")
    other = TestClient(app, "http://192.0.2.7:7860", follow_redirects=False)
    assert other.get("/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "uniadapter_token=wrong"}):
        assert other.get("/api/index", headers=headers).status_code == 401
        assert other.get("/", headers=headers).status_code == 401
    assert other.get("/api/index", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert other.get("/?token=wrong").status_code == 401
    entered = other.get("/?token=secret")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "HttpOnly" in entered.headers["set-cookie"]
    assert other.get("/api/index").status_code == 200, "by the cookie"


def test_busy_is_said_and_a_visitor_who_left_is_forgotten(tmp_path: Path) -> None:
    made = make_service(tmp_path, ["embedded:caption"], waiting=2)
    client = TestClient(make_app(made), "http://localhost")
    key = found(client, query="a dog")[0]["key"]
    with made._computing:  # as if a long batch were running
        threads = [
            threading.Thread(target=client.post, args=("/api/caption",), kwargs={"json": {"item": key}})
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.3)
        response = client.post("/api/caption", json={"item": key})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    for thread in threads:
        thread.join()
    assert client.post("/api/caption", json={"item": key}).status_code == 200
    made.close()


def test_health_and_metrics(client: TestClient, service: Service) -> None:
    assert client.get("/health").json() == {"status": "ok", "version": ua.__version__, "files": len(service.index)}
    found(client, query="a dog")
    told = client.get("/metrics").text
    assert f"uniadapter_files {float(len(service.index))}" in told
    assert 'uniadapter_requests_total{path="/api/search",status="200"}' in told
    assert "secret" not in told


def test_two_servers_of_one_index(client: TestClient, service: Service) -> None:
    again = ua.Index(service.index.place.name)
    second = Service(again, Adapters(again.encoder.loaded, []))
    other = TestClient(make_app(second), "http://localhost:7861")
    assert found(other, query="a dog") == found(client, query="a dog")
    second.close()


def test_what_is_indexed_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_service(tmp_path, [])
    monkeypatch.setattr("uniadapter.serve.service.LOOK_SECONDS", 0.0)
    client = TestClient(make_app(made), "http://localhost")
    before = client.get("/health").json()["files"]
    picture = next((tmp_path / "media" / "scenes").iterdir())
    copy = Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    copy.save(tmp_path / "media" / "<b>new<b>.png")
    ua.Index(tmp_path / "my.index").add()
    assert "<b>new<b>.png" in [one["name"] for one in found(client, query="a dog", top=100)]
    assert client.get("/health").json()["files"] == before + 1
    assert client.get("/api/index").json()["adapters"]["vqa"] == []
    made.close()
