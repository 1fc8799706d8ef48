"""What travels: the request, and the record that carries it from stage to stage, with their Arrow schemas.

Nothing here knows stages, engines or files. JSON is canonical (sorted keys, no spaces, UTF-8), so equal
content has equal bytes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from wanray.errors import FailureCause, FailureClass
from wanray.registry import Guidance

FORMAT_VERSION = 2
"""Part of every key: raised when the same request would give other pixels than before."""

RESUMED = "went on from step"
"""How the note on a record begins that did not pay for all of its steps."""

NOT_EXTENDED = {"method": "none"}
"""`Request.extension` of a prompt that is rendered as written."""

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

COMMITTED, CLAIMED, STOPPED, CANCELLED = SKIPPED = ("committed", "claimed", "stopped", "cancelled")
"""Why a run leaves a record alone: another committed it, another holds it, this one was told to stop, or the
one who asked for it does not want it any more."""

RECORD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("request", pa.string()),
        ("tags", pa.string()),
        ("sources", pa.string()),
        ("payload", pa.large_binary()),
        ("failure", pa.string()),
        ("skipped", pa.string()),
        ("clip", pa.string()),
        ("timings_s", pa.string()),
        ("extended", pa.string()),
        ("tries", pa.string()),
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
    extension: dict[str, Any] = field(default_factory=NOT_EXTENDED.copy)
    """How the prompt is extended before it is encoded: method, model, template (digest), language, seed and
    variant."""
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
class FailedTry:
    """One try of one stage at a request that came to nothing."""

    stage: str
    failure_class: FailureClass
    message: str
    cause: FailureCause = FailureCause.ERROR

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later without any change."""
        passes = self.failure_class is FailureClass.INFRASTRUCTURE
        return passes or self.cause is FailureCause.OUT_OF_MEMORY


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a request could not be rendered: the last try, and all of them."""

    stage: str
    failure_class: FailureClass
    message: str
    cause: FailureCause = FailureCause.ERROR
    tries: tuple[FailedTry, ...] = ()

    @property
    def attempts(self) -> int:
        """Times that it was tried."""
        return max(1, len(self.tries))

    @property
    def retryable(self) -> bool:
        """True where the last try may pass, and memory did not run out twice."""
        too_large = sum(item.cause is FailureCause.OUT_OF_MEMORY for item in self.tries) > 1
        return bool(self.tries) and self.tries[-1].retryable and not too_large


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

    A record with a `failure`, or that is `skipped`, passes the remaining stages untouched; one with a `clip`
    is committed.
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
    skipped: str = ""
    """Why this run does not render it, though nothing failed: one of SKIPPED."""
    clip: Clip | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds per stage of the attempt that succeeded."""
    tries: tuple[FailedTry, ...] = ()
    """What went wrong so far, in all stages and rounds."""
    topology: dict[str, Any] = field(default_factory=dict)
    """Per pool: the gang that did the work."""
    extended: dict[str, Any] = field(default_factory=dict)
    """The `prompt` that a language model made of the request's, or why it was kept as written (`kept`);
    empty where nobody was asked."""
    notes: tuple[str, ...] = ()
    """What the author of the row should know, such as a prompt that was cut."""

    @property
    def prompt(self) -> str:
        """What is encoded: the extended prompt, else the one of the request."""
        return self.extended.get("prompt", self.request.prompt)

    @property
    def attempts(self) -> int:
        """Times that it was tried, this one included."""
        return 1 + len(self.tries)

    @property
    def is_open(self) -> bool:
        """Whether there is anything left to do for it."""
        return self.failure is None and not self.skipped

    def tried(self, *tries: FailedTry) -> "Record":
        """This record after more tries that failed."""
        return replace(self, tries=(*self.tries, *tries))

    def failed(self, failed_try: FailedTry) -> "Record":
        """This record as a failure; its payload is dropped."""
        tries = (*self.tries, failed_try)
        failure = Failure(
            stage=failed_try.stage,
            failure_class=failed_try.failure_class,
            message=failed_try.message,
            cause=failed_try.cause,
            tries=tries,
        )
        return replace(self, failure=failure, tries=tries, payload=b"")

    def skip(self, why: str) -> "Record":
        """This record as one that this run leaves alone."""
        return replace(self, skipped=why, payload=b"")

    def fresh(self) -> "Record":
        """This record as it was planned, with its tries: what another round starts from."""
        return Record(
            key=self.key,
            ids=self.ids,
            request=self.request,
            tags=self.tags,
            sources=self.sources,
            tries=self.tries,
        )

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
        values["tries"] = [asdict(item) for item in self.tries]
        for name in ("tags", "sources", "timings_s", "topology", "extended", "tries"):
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
            skipped=row["skipped"],
            clip=None if row["clip"] is None else Clip(**json.loads(row["clip"])),
            timings_s=json.loads(row["timings_s"]),
            tries=_tries(json.loads(row["tries"])),
            topology=json.loads(row["topology"]),
            extended=json.loads(row["extended"]),
            notes=tuple(row["notes"]),
        )


def _failure(text: str | None) -> Failure | None:
    if text is None:
        return None
    values = json.loads(text)
    return Failure(**values | _words(values) | {"tries": _tries(values["tries"])})


def _tries(items: list[dict[str, Any]]) -> tuple[FailedTry, ...]:
    return tuple(FailedTry(**values | _words(values)) for values in items)


def _words(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "failure_class": FailureClass(values["failure_class"]),
        "cause": FailureCause(values["cause"]),
    }
