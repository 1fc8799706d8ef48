"""A page and a trace of a run, from what its output stores. Reads no clip, starts nothing."""

from wanray.report.data import Scope
from wanray.report.trace import write_trace
from wanray.report.write import Written, write_page, write_report

__all__ = ["Scope", "Written", "write_page", "write_report", "write_trace"]
