"""What is wrong with a cluster, and what to do about it: judges the nodes' reports, and shows them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.engine.examine import Answer
from wanray.engine.nodes import NodeReport

MAX_CLOCK_S = 5.0
MIN_TEMPORARY_GIB = 2.0


def diagnose(reports: Sequence[NodeReport]) -> list[NodeReport]:
    """The reports with their problems; the first one is the driver's node."""
    answers = [report.answer for report in reports if report.answer is not None]
    return [replace(report, problems=list(_problems(report, answers))) for report in reports]


def page(reports: Sequence[NodeReport]) -> RenderableType:
    """The nodes for people; the verdict comes last."""
    columns = (
        "node",
        "CPU",
        "GPUs",
        "torch",
        "attention",
        "xfuser",
        "free memory",
        "free disk",
        "store",
        "clock",
    )
    table = Table(*columns, "", box=None, pad_edge=False)
    for report in reports:
        count = len(report.problems)
        state = f"{count} problem{'s' if count > 1 else ''}" if count else "ok"
        table.add_row(*_cells(report), state, style="red" if report.problems else None)
    problems = [f"{report.name} ({report.id[:8]}): {text}" for report in reports for text in report.problems]
    lines = [Text(f"problem    {text}", style="red") for text in problems]
    sick = sum(bool(report.problems) for report in reports)
    count = f"{len(reports)} node{'s' if len(reports) != 1 else ''}"
    verdict = (
        f"not usable: {sick} of {count} ha{'s' if sick == 1 else 've'} problems"
        if sick
        else f"healthy: {count}"
    )
    return Group(table, *lines, Text(verdict, style="bold"))


def _problems(report: NodeReport, answers: Sequence[Answer]) -> Iterator[str]:
    answer = report.answer
    if answer is None:
        yield f"{report.trouble}: is wanray installed there, and are its processes well?"
        return
    yield from answer.problems
    yield from _version_problems(answer, answers)
    yield from _gpu_problems(report, answer)
    if "h264" not in answer.codecs:
        yield "PyAV has no encoder for h264 here: install av from its wheel"
    if answer.temporary_free_gib < MIN_TEMPORARY_GIB:
        yield (
            f"{answer.temporary_free_gib:.1f} GiB are free for temporary files, where Ray spills: make room, "
            "or give `ray start` another --temp-dir"
        )
    if report.clock_ahead_s is not None and abs(report.clock_ahead_s) - report.clock_within_s > MAX_CLOCK_S:
        yield (
            f"its clock is {report.clock_ahead_s:+.0f} s off the driver's: its times mislead, and S3 refuses "
            "15 minutes; run an NTP service"
        )
    files = [other.checkpoint_files for other in answers if other.checkpoint_files]
    if answer.checkpoint_files and answer.checkpoint_files != Counter(files).most_common(1)[0][0]:
        yield "its checkpoint has other files, or files of other sizes, than most nodes have: copy it again"


def _version_problems(answer: Answer, answers: Sequence[Answer]) -> Iterator[str]:
    for name, version in answer.versions.items():
        if version != answers[0].versions[name]:
            yield f"{name} {version} here, {answers[0].versions[name]} at the driver: install the same"
    torches = [other.machine["torch"] for other in answers if other.machine]
    if answer.machine and answer.machine["torch"] != (usual := Counter(torches).most_common(1)[0][0]):
        yield f"torch {answer.machine['torch']} here, {usual} elsewhere: pixels may differ, install the same"


def _gpu_problems(report: NodeReport, answer: Answer) -> Iterator[str]:
    if answer.machine is None:
        return
    promised, found = report.resources.get("GPU", 0), len(answer.machine["gpus"])
    if promised > found:
        cuda = answer.machine["cuda"]
        yield (
            f"Ray offers {promised:g} GPUs and torch ({f'for CUDA {cuda}' if cuda else 'without CUDA'}) sees "
            f"{found}: check the driver with nvidia-smi, and which torch is installed"
        )
    for name, state in answer.machine["libraries"].items():
        if state.startswith("broken"):
            torch = answer.machine["torch"]
            yield f"{name} is installed and {state}: install its build for torch {torch}, or remove it"


def _cells(report: NodeReport) -> list[str]:
    name, cpus = f"{report.name} ({report.id[:8]})", f"{report.resources.get('CPU', 0):g}"
    answer = report.answer
    if answer is None:
        return [name, cpus, f"{report.resources.get('GPU', 0):g}?", *["?"] * 7]
    machine = answer.machine or {"gpus": [], "torch": "?", "sdpa": [], "libraries": {}, "driver": None}
    present = [
        f"{library} {state}"
        for library, state in machine["libraries"].items()
        if library != "xfuser" and state != "absent" and not state.startswith("broken")
    ]
    store = "-"
    if answer.write_mb_per_s and answer.read_mb_per_s:
        store = f"write {answer.write_mb_per_s:.0f}, read {answer.read_mb_per_s:.0f} MB/s"
    clock = "-" if report.clock_ahead_s is None else f"{report.clock_ahead_s:+.3f} s"
    return [
        name,
        cpus,
        _gpus(machine["gpus"], machine["driver"]),
        machine["torch"],
        ", ".join([f"sdpa {kind}" for kind in machine["sdpa"]] + present) or "sdpa",
        machine["libraries"].get("xfuser", "?").partition(":")[0],
        f"{answer.memory_free_gib:.0f} GiB",
        f"{answer.temporary_free_gib:.0f} GiB",
        store,
        clock,
    ]


def _gpus(gpus: Sequence[dict[str, object]], driver: object) -> str:
    counts = Counter(f"{gpu['name']} {gpu['memory_gib']} GiB" for gpu in gpus)
    named = ", ".join(f"{number} x {name}" for name, number in counts.items())
    return f"{named} (driver {driver})" if named else "-"
