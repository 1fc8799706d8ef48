"""The tests that failed in the last run, once more and one at a time: `make test-again`.

Fault tests kill processes and wait for others on a machine that may be busy with something else. What
passes alone is printed as flaky, a fault to mend like any other; what fails twice, or in more than a few
files, is a failure.
"""

import json
import subprocess
import sys
from pathlib import Path

FAILURES = Path(".pytest_cache/v/cache/lastfailed")
MOST_FILES = 5


def main() -> int:
    """0 where all that failed pass alone; else pytest's exit status, or 1 where they are too many."""
    if not FAILURES.exists():
        print("the last run left no list of failed tests: nothing to run again")
        return 1
    failed = list(json.loads(FAILURES.read_text()))
    if unread := [name for name in failed if "::" not in name]:
        print(f"FAILED: {', '.join(unread)} could not be read as tests, which is no accident")
        return 1
    files = {test.partition("::")[0] for test in failed}
    if len(files) > MOST_FILES:
        print(f"tests failed in {len(files)} files, which is no accident: at most {MOST_FILES} are run again")
        return 1
    status = subprocess.call([sys.executable, "-m", "pytest", "--last-failed", "-v", *sys.argv[1:]])
    for test in failed:
        print(f"{'FLAKY: failed, then passed alone' if status == 0 else 'FAILED'}: {test}")
    return status


if __name__ == "__main__":
    sys.exit(main())
