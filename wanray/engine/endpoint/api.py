"""HTTP: paths and codes of the endpoint, and nothing else. A Ray Serve deployment."""

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from ray import serve
from ray.serve.handle import DeploymentHandle

from wanray.config import ServeConfig
from wanray.engine.endpoint.archive import Archive, media_type
from wanray.engine.endpoint.replies import AWAY, Refusal, as_response, make_app, ranged, read_json
from wanray.engine.endpoint.views import Answer, error
from wanray.errors import ConfigError, StorageError
from wanray.storage import Store

ANSWER_TIMEOUT_S = 20.0
"""Patience with the renderer, which for minutes is not there after it died."""
LOOK_TIMEOUT_S = 5.0
EVENTS_EVERY_S = 1.0
ENDED = ("completed", "failed", "cancelled")

app = make_app()


@serve.ingress(app)
class Api:
    """Stateless; any number may run. Ray Serve copies the class from here: what it uses is imported above."""

    def __init__(self, output_url: str, config: ServeConfig, renderer: DeploymentHandle) -> None:
        self._archive, self._config, self._renderer = Archive(Store.open(output_url)), config, renderer
        self._token = None if config.token_env is None else os.environ.get(config.token_env, "")
        if self._token == "":
            raise ConfigError(f"serve.token_env names {config.token_env}, which is not set where Ray runs")

    @app.post("/v1/videos")
    async def submit(self, request: Request) -> Response:
        """Accept a request; the body is a manifest row as JSON."""
        self._let_in(request)
        row = await read_json(request, self._config.max_body_mib)
        return as_response(await self._ask(self._renderer.submit, row))

    @app.get("/v1/videos")
    async def videos(self, request: Request) -> Response:
        """All open requests."""
        self._let_in(request)
        return JSONResponse({"object": "list", "data": await self._ask(self._renderer.videos)})

    @app.get("/v1/videos/{key}")
    async def video(self, request: Request, key: str) -> Response:
        """How far a request is, or how it ended."""
        self._let_in(request)
        return JSONResponse(await self._look(key))

    @app.get("/v1/videos/{key}/events")
    async def events(self, request: Request, key: str) -> Response:
        """The same as server-sent events, one per change, until it has ended."""
        self._let_in(request)
        changes = self._changes(key, await self._look(key))
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
        return StreamingResponse(changes, 200, headers, "text/event-stream")

    @app.get("/v1/videos/{key}/content")
    async def content(self, request: Request, key: str) -> Response:
        """The video."""
        self._let_in(request)
        meta = await asyncio.to_thread(self._archive.meta, key)
        if meta is None:
            view = await self._look(key)
            raise Refusal(error(409, f"there is no video yet: the request is {view['status']}"))
        return await asyncio.to_thread(self._content, meta["video"], request.headers.get("range", ""))

    @app.delete("/v1/videos/{key}")
    async def cancel(self, request: Request, key: str) -> Response:
        """Cancel an open request. What is committed stays."""
        self._let_in(request)
        await self._look(key)
        return as_response(await self._ask(self._renderer.cancel, key))

    @app.get("/v1/status")
    async def status(self, request: Request) -> Response:
        """What the whole endpoint does: queue, pools, gangs, rates."""
        self._let_in(request)
        return JSONResponse(await self._ask(self._renderer.snapshot))

    def _let_in(self, request: Request) -> None:
        brought = request.headers.get("authorization", "")
        if self._token is None or hmac.compare_digest(brought.encode(), f"Bearer {self._token}".encode()):
            return
        body = error(401, "bring the endpoint's token as Authorization: Bearer TOKEN").body
        raise Refusal(Answer(401, body, {"WWW-Authenticate": "Bearer"}))

    async def _ask(self, method: Any, *arguments: Any, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        async with asyncio.timeout(timeout_s):
            return await method.remote(*arguments)

    async def _look(self, key: str) -> dict[str, Any]:
        """The view of a request: the renderer knows of what is open, the output of what has ended."""
        try:
            view = await self._ask(self._renderer.look, key, timeout_s=LOOK_TIMEOUT_S)
        except AWAY:
            view = None
        view = view or await asyncio.to_thread(self._archive.video, key)
        if view is None:
            raise Refusal(error(404, "there is no such request"))
        return view

    async def _changes(self, key: str, view: dict[str, Any]) -> AsyncIterator[str]:
        told = ""
        while True:
            text = json.dumps(view)
            yield f"data: {text}\n\n" if text != told else ": still here\n\n"
            if view["status"] in ENDED:
                return
            told = text
            await asyncio.sleep(EVENTS_EVERY_S)
            try:
                view = await self._look(key)
            except (Refusal, StorageError):  # who listens asks again
                return

    def _content(self, video: dict[str, Any], wanted: str) -> Response:
        path, store = video["path"], self._archive.store
        if not media_type(path).startswith(("video/", "image/")):
            raise Refusal(error(409, f"the video is a folder of frames: {store.uri(path)}"))
        if self._config.presign_s is not None:
            return RedirectResponse(store.presigned(path, self._config.presign_s), 307)
        return ranged(store.read(path), wanted, media_type(path), video["sha256"])
