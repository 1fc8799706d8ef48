"""Label selectors: which labels a condition takes, and what is no condition."""

import pytest

from wanray.engine.labels import takes, values_of
from wanray.errors import ConfigError

H100 = {"ray.io/accelerator-type": "H100", "market": "spot"}


@pytest.mark.parametrize(
    ("condition", "takes_h100", "takes_none"),
    [
        ("H100", True, False),
        ("A100", False, False),
        ("!A100", True, True),
        ("!H100", False, True),
        ("in(H100)", True, False),
        ("in(A100, H100)", True, False),
        ("in(A100,L40S)", False, False),
        ("!in(A100,H100)", False, True),
        ("!in(A100, L40S)", True, True),
    ],
)
def test_one_condition(condition, takes_h100, takes_none):
    selector = {"ray.io/accelerator-type": condition}
    assert takes(selector, H100) is takes_h100
    assert takes(selector, {"market": "spot"}) is takes_none


def test_all_conditions_must_hold():
    assert takes({}, {})
    assert takes({"market": "in(spot, on-demand)", "ray.io/accelerator-type": "H100"}, H100)
    assert not takes({"market": "!spot", "ray.io/accelerator-type": "H100"}, H100)


@pytest.mark.parametrize("condition", ["", "in()", "in(a,)", "!!a", "in(a,!b)", "a b", "-a", "not in(a)"])
def test_what_is_no_condition(condition):
    with pytest.raises(ConfigError, match="market must be a value, '!value'"):
        takes({"market": condition}, H100)


def test_values_of_the_labels_that_are_asked_for():
    assert values_of({"market": "!spot"}, [H100, {}]) == "market is none or spot"
    assert values_of({}, [H100]) == ""
