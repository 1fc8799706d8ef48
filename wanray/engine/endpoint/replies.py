"""HTTP bodies, in and out, and what errors become there."""

import json
import re
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from wanray.engine.endpoint.views import Answer, error
from wanray.errors import StorageError

RETRY_AFTER_S = 10
AWAY = (RayError, RayServeException, TimeoutError)
"""What asking the renderer ends in while there is none."""
ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Refusal(Exception):  # noqa: N818 - it is no error of ours
    """Ends an HTTP request with `args[0]`, an Answer."""


def make_app() -> FastAPI:
    """An application whose routes may raise Refusal, StorageError and what is in AWAY."""
    app = FastAPI(title="wanray", docs_url=None, redoc_url=None, openapi_url=None)

    async def refused(request: Request, refusal: Exception) -> Response:
        return as_response(refusal.args[0])

    async def stranded(request: Request, failed: Exception) -> Response:
        return as_response(error(503, f"the store failed: {failed}", RETRY_AFTER_S))

    async def away(request: Request, lost: Exception) -> Response:
        return as_response(error(503, "the renderer is starting: ask again later", RETRY_AFTER_S))

    async def unknown(request: Request, wrong: Any) -> Response:
        return as_response(error(wrong.status_code, wrong.detail))

    app.add_exception_handler(404, unknown)
    app.add_exception_handler(405, unknown)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(StorageError, stranded)
    for kind in AWAY:
        app.add_exception_handler(kind, away)
    return app


async def read_json(request: Request, most_mib: float) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        Refusal: it is none, or too large, which is seen before it is held in memory.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most_mib * 2**20:
            raise Refusal(error(413, f"the body is larger than serve.max_body_mib={most_mib:g}"))
    try:
        found = json.loads(content, parse_constant=_no_constant)
        json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    except (ValueError, RecursionError) as wrong:
        raise Refusal(error(400, f"the body must be JSON: {wrong}")) from None
    if not isinstance(found, dict):
        raise Refusal(error(400, f"the body must be a JSON object, got {type(found).__name__}"))
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def ranged(content: bytes, wanted: str, kind: str, etag: str) -> Response:
    """A file, or the one range of it that a player asks for when it seeks."""
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{etag}"'}
    found, size = ONE_RANGE.fullmatch(wanted), len(content)
    if found is None or not any(found.groups()) or (all(found.groups()) and int(found[1]) > int(found[2])):
        return Response(content, 200, headers, kind)
    if found[1]:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    else:
        first, last = max(0, size - int(found[2])), size - 1
    if first > last:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(content[first : last + 1], 206, headers, kind)


def as_response(answer: Answer) -> Response:
    """The answer as JSON."""
    return JSONResponse(answer.body, answer.code, answer.headers)
