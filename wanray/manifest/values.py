"""From any Python value to the one form of a manifest column: one function per kind of column.

Each raises ValueError with the rule that the value breaks. Ranges are not checked here.
"""

import hashlib
import json
import math
from decimal import Decimal
from typing import Any

from wanray.records import canonical_json

INT64_MAX = 2**63 - 1


def text(value: Any) -> str:
    """Text that can be stored as UTF-8."""
    if not isinstance(value, str):
        raise ValueError("must be UTF-8 text")
    return encodable(value)


def identifier(value: Any) -> str:
    """Text, or a whole number written as text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)


def integer(value: Any) -> int:
    """A whole number of 64 bits; text and floats are taken where they hold one."""
    number = _number(value, "must be a whole number")
    if number != int(number):
        raise ValueError("must be a whole number")
    if not -INT64_MAX <= number <= INT64_MAX:
        raise ValueError(f"must be at most {INT64_MAX} either side of 0")
    return int(number)


def real(value: Any) -> float:
    """A finite number; text is taken where it holds one."""
    return float(_number(value, "must be a finite number"))


def guidance(value: Any) -> dict[str, float]:
    """{high, low}: one number stands for both; JSON text is parsed."""
    rule = "must be a number or {high, low} with two numbers"
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _parsed(value, rule)
    if not isinstance(value, dict):
        number = float(_number(value, rule))
        return {"high": number, "low": number}
    if set(value) != {"high", "low"}:
        raise ValueError(rule)
    return {name: float(_number(part, rule)) for name, part in value.items()}


def integers(value: Any) -> list[int]:
    """A list of whole numbers, or such a list as JSON text."""
    rule = "must be a list of whole numbers such as [0, 1]"
    items = _parsed(value, rule)
    if not isinstance(items, list):
        raise ValueError(rule)
    return [integer(item) for item in items]


def media(value: Any) -> dict[str, Any]:
    """{bytes, path}, one of them given; a URI stands for its path."""
    rule = "must be a URI or {bytes, path} with one of the two"
    source = {"path": value} if isinstance(value, str) else value
    if not isinstance(source, dict) or not set(source) <= {"bytes", "path"}:
        raise ValueError(rule)
    content, path = source.get("bytes") or None, source.get("path") or None
    if not isinstance(content, bytes | None) or not isinstance(path, str | None) or not (content or path):
        raise ValueError(rule)
    return {"bytes": content, "path": None if path is None else encodable(path)}


def medias(value: Any) -> list[dict[str, Any]]:
    """A list of media, or such a list as JSON text."""
    rule = "must be a list of URIs or of {bytes, path}"
    items = _parsed(value, rule)
    if not isinstance(items, list):
        raise ValueError(rule)
    return [media(item) for item in items]


def loras(value: Any) -> list[dict[str, Any]]:
    """A list of {path, weight, expert}, or it as JSON text; weight 1 and both experts if left out."""
    rule = "must be a list of {path, weight, expert} with expert high, low or left out"
    items = _parsed(value, rule)
    if not isinstance(items, list):
        raise ValueError(rule)
    return [_lora(item, rule) for item in items]


def tags(value: Any) -> str:
    """Canonical JSON of an object; taken from a dict, a map (list of pairs) or JSON text."""
    rule = "must be an object such as {'scene': 'beach'}"
    parsed = _parsed(value, rule)
    if isinstance(parsed, list) and all(isinstance(pair, tuple) for pair in parsed):
        parsed = dict(parsed)
    if not isinstance(parsed, dict):
        raise ValueError(rule)
    return encodable(canonical_json(plain(parsed)))


def plain(value: Any) -> Any:
    """`value` in the types that JSON has: bytes become their digest, all else that JSON lacks its text."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return f"sha256:{hashlib.sha256(value).hexdigest()}"
    if isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def encodable(value: str) -> str:
    """`value` unless it holds half of a surrogate pair, which no file can store."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8 text") from None
    return value


def _number(value: Any, rule: str) -> int | float | Decimal:
    if isinstance(value, str):
        value = _number_in(value, rule)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not _is_finite(value):
        raise ValueError(rule)
    return value


def _is_finite(value: int | float | Decimal) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _number_in(value: str, rule: str) -> int | float:
    for parse in (int, float):
        try:
            return parse(value)
        except ValueError:
            continue
    raise ValueError(rule)


def _parsed(value: Any, rule: str) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(rule) from None


def _lora(value: Any, rule: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not {"path"} <= set(value) <= {"path", "weight", "expert"}:
        raise ValueError(rule)
    if value.get("expert") not in (None, "high", "low"):
        raise ValueError(rule)
    weight = 1.0 if value.get("weight") is None else real(value["weight"])
    return {"path": text(value["path"]), "weight": weight, "expert": value.get("expert")}
