"""Values that several threads need at once are computed by one of them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wanray.stages.once import Once


def test_all_who_ask_at_once_get_what_one_computed():
    once, calls = Once(10), []

    def compute():
        calls.append(threading.get_ident())
        time.sleep(0.2)
        return object()

    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(lambda _: once.get("a", compute), range(8)))
    assert len(calls) == 1
    assert len(set(map(id, values))) == 1


def test_an_error_is_not_kept():
    once = Once(10)
    with pytest.raises(ZeroDivisionError):
        once.get("a", lambda: 1 // 0)
    assert once.get("a", lambda: 2) == 2


def test_the_oldest_goes():
    once = Once(2)
    for name in "abc":
        once.get(name, lambda name=name: name)
    assert once.get("c", lambda: "new") == "c"
    assert once.get("a", lambda: "new") == "new"
