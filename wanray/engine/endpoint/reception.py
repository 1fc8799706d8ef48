"""From the JSON of one request to a record: the rules are those of a manifest with this one row."""

import base64
import difflib
from typing import Any
from uuid import uuid4

import pyarrow as pa

from wanray.manifest import Resolved, Resolver, resolve
from wanray.manifest.arrays import table_of
from wanray.manifest.columns import COLUMNS, MEDIA, MEDIA_COLUMNS
from wanray.manifest.problems import excerpt
from wanray.records import Record


class RefusedError(Exception):
    """A request that breaks rules; `problems` are all of them, with the field where there is one."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        super().__init__("; ".join(_words(problem) for problem in problems))
        self.problems = problems


class Reception:
    """Of one job. `allow_uris`: requests may name media, which the resolver's rules still judge."""

    def __init__(self, resolver: Resolver, allow_uris: bool) -> None:
        self._resolver, self._allow_uris = resolver, allow_uris

    def accept(self, row: dict[str, Any]) -> tuple[Record, int]:
        """The record of a request, and its priority.

        Raises:
            RefusedError: it breaks a rule.
            StorageError: its media could not be read or stored.
        """
        problems = [_unknown(name) for name in row if name not in COLUMNS]
        media = {name: self._media(name, row[name], problems) for name in row if name in MEDIA_COLUMNS}
        resolved = self._resolve({name: row[name] for name in row if name in COLUMNS}, media)
        told = {problem["field"] for problem in problems}
        others = [item for item in resolved.problems if item.column not in told]
        problems += [_problem(item.column, item.message) for item in others]
        if problems:
            raise RefusedError(problems)
        if len(resolved.requests) != 1:
            made = f"makes {len(resolved.requests)} requests: send one each"
            raise RefusedError([_problem("seeds", made)])
        return Record.from_table(resolved.requests), resolved.requests["priority"][0].as_py()

    def _resolve(self, row: dict[str, Any], media: dict[str, Any]) -> Resolved:
        named = {"id": uuid4().hex} | {name: value for name, value in row.items() if value is not None}
        try:
            table = table_of([{"prompt": None} | {name: named[name] for name in named if name not in media}])
            for name, value in media.items():
                table = table.append_column(name, pa.array([value], COLUMNS[name].type))
            (resolved,) = resolve(iter([table]), self._resolver)
        except RecursionError:
            raise RefusedError([_problem("", "a value is nested too deeply")]) from None
        return resolved

    def _media(self, name: str, value: Any, problems: list[dict[str, str]]) -> Any:
        """Of a column of media: `{bytes, path}` or a list of these; None where there is a problem."""
        if value is None:
            return None
        takes_many = COLUMNS[name].type != MEDIA
        if takes_many and not isinstance(value, list):
            problems.append(_problem(name, f"must be a list, got {excerpt(value)}"))
            return None
        found = []
        for item in value if takes_many else [value]:
            try:
                found.append(self._medium(item))
            except ValueError as error:
                problems.append(_problem(name, f"{error}, got {excerpt(item)}"))
                return None
        return found if takes_many else found[0]

    def _medium(self, value: Any) -> dict[str, Any]:
        if isinstance(value, str) and value.startswith("data:"):
            if not (content := _decoded(value)):
                raise ValueError("must not be empty")
            return {"bytes": content, "path": None}
        if not self._allow_uris:
            raise ValueError(
                "must come along as data:TYPE;base64,... (or the operator sets serve.allow_uris)"
            )
        if not isinstance(value, str) or not value:
            raise ValueError("must be a URI, or data:TYPE;base64,...")
        return {"bytes": None, "path": value}


def _decoded(uri: str) -> bytes:
    head, comma, content = uri.partition(",")
    try:
        if comma and head.endswith(";base64"):
            return base64.b64decode(content, validate=True)
    except ValueError:
        pass
    raise ValueError("must be data:TYPE;base64,... with whole base64 behind the comma")


def _unknown(name: str) -> dict[str, str]:
    close = difflib.get_close_matches(name, COLUMNS, n=1)
    hint = f"did you mean {close[0]}?" if close else "put what is only to be kept into tags"
    return _problem(name[:80], f"is not known: {hint}")


def _problem(field: str, message: str) -> dict[str, str]:
    return {"field": field, "message": message}


def _words(problem: dict[str, str]) -> str:
    return f"{problem['field']} {problem['message']}".strip()
