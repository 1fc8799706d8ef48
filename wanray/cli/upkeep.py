"""The commands that look after an output."""

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from wanray.cli.pages import print_page
from wanray.errors import ConfigError, ExitCode

WATCH_EVERY_S = 2.0

Url = Annotated[str, typer.Argument(metavar="URL", help="output.url of a render.")]


def status(
    url: Url,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print what an output holds and what its runs do, from any machine that reaches it."""
    from wanray.upkeep.output import open_output
    from wanray.upkeep.pages import status_page
    from wanray.upkeep.status import read_status

    found = read_status(open_output(url))
    if as_json:
        print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        print_page(status_page(found), width=200)


def watch(
    url: Url,
    run: Annotated[str | None, typer.Option(help="Name of the run; the newest if left out.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Lines of JSON for machines, every 5 s and at the end.")
    ] = False,
) -> None:
    """Watch a run from any machine that reaches its output, until it ends; exit code: that of the run."""
    from wanray.live import live_line, show
    from wanray.upkeep.output import open_output
    from wanray.upkeep.pages import end_line
    from wanray.upkeep.watch import Follower

    follower = Follower(open_output(url), run)
    with show(lambda: follower.snapshot, "json" if as_json else "auto", sys.stdout):
        while follower.is_running:
            time.sleep(WATCH_EVERY_S)
            follower.poll()
    if not as_json:
        print(live_line(follower.snapshot))
        print(end_line(follower.view))
    raise typer.Exit(follower.exit_code)


def verify(
    url: Url,
    fast: Annotated[
        bool, typer.Option("--fast", help="Only whether files are there, in their size.")
    ] = False,
    sample: Annotated[int | None, typer.Option(help="Check only so many clips, chosen at random.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Give broken clips back to be rendered.")] = False,
) -> None:
    """Check every committed clip: meta.json, size, sha256, frames, poster, latents.

    With --repair the same render command then renders what is broken. Exit code 0: all fine; 2: some are
    broken, repaired or not.
    """
    from wanray.upkeep.output import open_output
    from wanray.upkeep.pages import damage_line
    from wanray.upkeep.verify import check_clips, keys_to_check, requeue

    if sample is not None and sample < 1:
        raise ConfigError(f"--sample must be at least 1, got {sample}")
    ledger = open_output(url)
    keys, broken = keys_to_check(ledger, sample), []
    for damages in check_clips(ledger, keys, fast=fast):
        broken.append(damages[0].key)
        for damage in damages:
            print(damage_line(damage, ledger.store.url))
    print(f"{len(keys)} clips checked, {len(broken)} are broken")
    if broken and repair:
        requeue(ledger, broken)
        print(f"{len(broken)} are given back: the same `wanray render` renders them again")
    raise typer.Exit(ExitCode.FAILURES if broken else ExitCode.DONE)


def index(url: Url) -> None:
    """Make index/*.parquet anew from every meta.json; runs may go on meanwhile."""
    from wanray.upkeep.output import open_output
    from wanray.upkeep.reindex import rebuild_index

    done = rebuild_index(open_output(url))
    left_out = f", {done.num_unreadable} left out (`wanray verify` tells why)" if done.num_unreadable else ""
    print(
        f"{done.num_clips} clips in {done.num_parts} index files{left_out}; "
        f"{done.num_old_parts} old ones removed, in {done.seconds:.1f} s"
    )


def gc(
    url: Url,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing.")] = False,
    older_than_days: Annotated[
        float, typer.Option(help="Age of what a run could still take up: state, folders without meta.json.")
    ] = 7.0,
    cache: Annotated[
        str | None, typer.Option(help="The cache.url of its renders; URL/cache if left out.")
    ] = None,
    cache_gib: Annotated[float, typer.Option(help="Of the cache the newest so many GiB stay.")] = 100.0,
) -> None:
    """Remove what runs left behind and nobody needs, and the oldest of the cache; runs/ and inputs/ stay."""
    from wanray.sinks.cache import cache_url, trim
    from wanray.storage import Store
    from wanray.upkeep.output import open_output
    from wanray.upkeep.pages import waste_page
    from wanray.upkeep.waste import find_waste, remove

    if not cache_gib >= 0:
        raise ConfigError(f"--cache-gib must be at least 0, got {cache_gib}")
    ledger = open_output(url)
    found = find_waste(ledger, older_than_days)
    if not dry_run:
        remove(ledger, found.waste)
    print_page(waste_page(found.waste), width=120)
    for run in found.running:
        print(f"run {run} is running: what belongs to clips that are not committed is left alone")
    kept = Store.open(cache_url(cache, ledger.store.url))
    trimmed = trim(kept, int(cache_gib * 2**30), dry_run=dry_run)
    if trimmed.entries:
        print(
            f"cache {kept.url}: {trimmed.removed} of {trimmed.entries} entries, "
            f"{trimmed.removed_bytes / 2**30:.2f} of {trimmed.bytes / 2**30:.2f} GiB, above {cache_gib:g} GiB"
        )
    print("nothing was removed (--dry-run)" if dry_run else "removed")
