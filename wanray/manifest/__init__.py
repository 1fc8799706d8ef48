"""From a manifest of any size to requests: read, normalise, validate, fill in, expand, key."""

from wanray.manifest.convert import convert
from wanray.manifest.extension import Extension
from wanray.manifest.media import Keep
from wanray.manifest.problems import Problem
from wanray.manifest.read import read_batches, read_rows
from wanray.manifest.resolve import INVALID_SCHEMA, REQUEST_SCHEMA, Resolved, Resolver, resolve
from wanray.manifest.settings import check_defaults, check_sweep
from wanray.manifest.validate import validate

__all__ = [
    "INVALID_SCHEMA",
    "REQUEST_SCHEMA",
    "Extension",
    "Keep",
    "Problem",
    "Resolved",
    "Resolver",
    "check_defaults",
    "check_sweep",
    "convert",
    "read_batches",
    "read_rows",
    "resolve",
    "validate",
]
