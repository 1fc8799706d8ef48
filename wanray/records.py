"""What travels: the request, and the record that carries it from stage to stage, with their Arrow schemas.

Nothing here knows stages, engines or files. JSON is canonical (sorted keys, no spaces, UTF-8), so equal
content has equal bytes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from wanray.errors import FailureClass
from wanray.registry import Guidance

FORMAT_VERSION = 2
"""Part of every key: raised when the same request would give other pixels than before."""

PLAN_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("priority", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("num_frames", pa.int64()),
        ("steps", pa.int64()),
        ("request", pa.string()),
        ("tags", pa.string()),
        ("sources", pa.string()),
    ]
)
"""One row per request left to do; `request`, `tags` and `sources` are canonical JSON."""

RECORD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("request", pa.string()),
        ("tags", pa.string()),
        ("sources", pa.string()),
        ("payload", pa.large_binary()),
        ("failure", pa.string()),
        ("clip", pa.string()),
        ("timings_s", pa.string()),
        ("attempts", pa.int64()),
        ("topology", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)
"""One row per record between two stages; the structured fields are canonical JSON."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_head(model: dict[str, str], numerics: dict[str, str]) -> str:
    """The text that stands before the request in what a key is the hash of; a `}` follows the request."""
    head = canonical_json({"format": FORMAT_VERSION, "model": model, "numerics": numerics})
    return f'{head[:-1]},"request":'


def content_key(request_json: str, model: dict[str, str], numerics: dict[str, str]) -> str:
    """The key of a request: sha256 in hex over the canonical JSON of all that decides its pixels."""
    return hashlib.sha256(f"{key_head(model, numerics)}{request_json}}}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A manifest row with every parameter resolved; with model and numerics it decides every pixel."""

    task: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    fps: float
    seed: int
    steps: int
    shift: float
    guidance: Guidance
    solver: str
    extension: dict[str, Any] = field(default_factory=lambda: {"method": "none"})
    """How the prompt is extended before it is encoded."""
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Manifest column -> sha256 of its media, in order."""
    key_frames: tuple[int, ...] = ()
    """VACE: where the key images stand in the video; negative numbers count from its end."""
    context_scale: float | None = None
    """VACE: strength of the control branch."""
    video_sampling: str | None = None
    """VACE with a source video: how its frames are chosen, `even` or `cut`."""

    def to_json(self) -> str:
        """Canonical JSON, the form that is hashed and stored."""
        return canonical_json(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Request":
        """The request that `to_json` wrote."""
        values = json.loads(text)
        inputs = {column: tuple(digests) for column, digests in values["inputs"].items()}
        nested = {"guidance": Guidance(**values["guidance"]), "inputs": inputs}
        return Request(**values | nested | {"key_frames": tuple(values["key_frames"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a request could not be rendered."""

    stage: str
    failure_class: FailureClass
    message: str
    attempts: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A committed video file; `path` is relative to the output URL."""

    path: str
    sha256: str
    bytes: int
    codec: str
    width: int
    height: int
    num_frames: int
    fps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A request on its way: what the stages so far made of it.

    A record with a `failure` passes the remaining stages untouched; one with a `clip` is committed.
    """

    key: str
    ids: tuple[str, ...]
    request: Request
    tags: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """sha256 of a medium -> where it can be read."""
    payload: bytes = b""
    """Tensors for the next stage as safetensors (`wanray.stages.payload`)."""
    failure: Failure | None = None
    clip: Clip | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds per stage of the attempt that succeeded."""
    attempts: int = 1
    """The largest number of attempts that any stage needed."""
    topology: dict[str, Any] = field(default_factory=dict)
    """Per pool: the gang that did the work."""
    notes: tuple[str, ...] = ()
    """What the author of the row should know, such as a prompt that was cut."""

    def failed(self, failure: Failure) -> "Record":
        """This record as a failure; its payload is dropped."""
        return replace(self, failure=failure, payload=b"")

    @staticmethod
    def from_plan(row: dict[str, Any]) -> "Record":
        """The fresh record of one row of a plan file (`PLAN_SCHEMA`)."""
        return Record(
            key=row["key"],
            ids=tuple(row["ids"]),
            request=Request.from_json(row["request"]),
            tags=json.loads(row["tags"]),
            sources=json.loads(row["sources"]),
        )

    def to_table(self) -> pa.Table:
        """One Arrow row of `RECORD_SCHEMA`."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        values["request"] = self.request.to_json()
        for name in ("failure", "clip"):
            values[name] = None if values[name] is None else canonical_json(asdict(values[name]))
        for name in ("tags", "sources", "timings_s", "topology"):
            values[name] = canonical_json(values[name])
        return pa.table({name: [values[name]] for name in RECORD_SCHEMA.names}, schema=RECORD_SCHEMA)

    @staticmethod
    def from_table(table: pa.Table) -> "Record":
        """The record in the first row of `table`, a row of `RECORD_SCHEMA` or of `PLAN_SCHEMA`."""
        row = {name: table[name][0].as_py() for name in table.column_names}
        record = Record.from_plan(row)
        if "payload" not in row:
            return record
        return replace(
            record,
            payload=row["payload"],
            failure=_failure(row["failure"]),
            clip=None if row["clip"] is None else Clip(**json.loads(row["clip"])),
            timings_s=json.loads(row["timings_s"]),
            attempts=row["attempts"],
            topology=json.loads(row["topology"]),
            notes=tuple(row["notes"]),
        )


def _failure(text: str | None) -> Failure | None:
    if text is None:
        return None
    values = json.loads(text)
    return Failure(**values | {"failure_class": FailureClass(values["failure_class"])})
