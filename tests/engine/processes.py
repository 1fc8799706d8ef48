"""The processes of a run, so that a test can kill one of them: only those that the test itself started."""

import os
import signal
from pathlib import Path


def children_of(pid):
    """Pids of all processes below `pid`, at any depth."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):  # it has ended meanwhile
                continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def title_of(pid):
    """What the process calls itself, such as `ray::Rank.run`; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def kill_one(pids, word):
    """SIGKILL the first of `pids` with `word` in its title; whether there was one."""
    for pid in sorted(pids):
        if word in title_of(pid):
            os.kill(pid, signal.SIGKILL)
            return True
    return False
