"""Puts template, style, scripts and data into one HTML file that needs nothing else. Knows no run.

Texts of others never become markup: they are data in a script of type JSON, and scripts only ever set texts.
A content security policy with the digests of style and script keeps out whatever would slip through.
"""

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any

SCRIPTS = (
    "dom.js",
    "format.js",
    "overview.js",
    "plots.js",
    "timeline.js",
    "filters.js",
    "media.js",
    "clip.js",
    "compare.js",
    "gallery.js",
    "failures.js",
    "main.js",
)
"""In the order in which they need each other; all in one scope."""
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def make_page(data: dict[str, Any], origin: str = "") -> str:
    """The page as HTML. Pictures and videos may come from beside it, from HTTPS and from `origin`."""
    style = _source("report.css")
    script = f'"use strict";\n(() => {{\n{"".join(map(_source, SCRIPTS))}}})();\n'
    media = f"'self' https: data: file: {origin}".rstrip()
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        f"img-src {media}; media-src {media}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy, quote=False),
        "title": html.escape(f"{data['run']['name']} - wanray report"),
        "style": style,
        "data": to_script_json(data),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _source("template.html"))


def to_script_json(value: Any) -> str:
    """JSON that is safe inside of a script element: nothing in it can end the element or a line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def _source(name: str) -> str:
    return resources.files("wanray.report").joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
