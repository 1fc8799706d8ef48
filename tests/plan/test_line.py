"""The tandem queue: against arithmetic, against bounds, and as fast as a plan may be."""

import random
import time

import pytest

from wanray.plan.line import MAX_SIMULATED, Batch, Station, line_s


def stations(*workers, waiting=6):
    return [Station(num_workers=number, num_waiting=waiting) for number in workers]


def batch(number, *seconds):
    return Batch(num_requests=number, seconds=seconds)


@pytest.mark.parametrize("number", [1, 2, 7, 50])
def test_equal_stages_take_the_number_of_requests_and_the_length_of_the_line(number):
    assert line_s(stations(1, 1, 1, 1), [batch(number, 1, 1, 1, 1)]) == pytest.approx(number + 3)


def test_the_slowest_pool_decides_and_the_rest_is_fill_and_drain():
    line = stations(1, 4, 1)
    assert line_s(line, [batch(40, 0.5, 4.0, 0.25)]) == pytest.approx(0.5 + 10 * 4.0 + 3 * 0.5 + 0.25)


def test_a_last_round_of_gangs_counts_whole():
    """Nine requests on four gangs are three rounds."""
    assert line_s(stations(4), [batch(9, 10.0)]) == 30.0


def test_workers_beyond_the_requests_are_no_use():
    assert line_s(stations(64), [batch(10, 3.0)]) == 3.0


def test_shapes_with_other_bottlenecks_follow_each_other():
    """While gangs work off the first shape, encoders are only as far ahead as there is room."""
    slow_gang, slow_encoder = batch(20, 0.1, 1.0), batch(20, 1.0, 0.1)
    little = line_s(stations(1, 1, waiting=2), [slow_gang, slow_encoder])
    much = line_s(stations(1, 1, waiting=100), [slow_gang, slow_encoder])
    assert much == pytest.approx(0.1 * 20 + 20 + 0.1, abs=0.5), "encoders did all their work ahead"
    assert little == pytest.approx(0.1 + 20 + 20 - 3 + 0.1, abs=1.0)


def test_no_line_is_faster_than_its_slowest_pool_or_slower_than_one_request_at_a_time():
    chance = random.Random(5)
    for _ in range(50):
        line = stations(*(chance.randint(1, 5) for _ in range(4)), waiting=chance.randint(1, 9))
        batches = [batch(chance.randint(1, 30), *(chance.random() for _ in line)) for _ in range(3)]
        work = [
            sum(item.num_requests * item.seconds[index] for item in batches) for index in range(len(line))
        ]
        whole_s = line_s(line, batches)
        assert whole_s >= max(
            seconds / station.num_workers for seconds, station in zip(work, line, strict=True)
        )
        assert whole_s <= sum(work) + 1e-9
        more = [Station(num_workers=item.num_workers, num_waiting=99) for item in line]
        assert line_s(more, batches) <= whole_s + 1e-9, "room in front of pools can only help"


@pytest.mark.parametrize("factor", [2, 10, 250])
def test_what_is_not_simulated_takes_what_the_slowest_pool_takes(factor):
    """A million requests come to the same as the formula for one batch."""
    number = MAX_SIMULATED * factor
    line, seconds = stations(1, 3, 1), (0.2, 1.5, 0.3)
    expected = 0.2 + number / 3 * 1.5 + 0.3
    assert line_s(line, [batch(number, *seconds)]) == pytest.approx(expected, rel=1e-3)
    halves = [batch(number // 2, *seconds), batch(number - number // 2, *seconds)]
    assert line_s(line, halves) == pytest.approx(expected, rel=1e-3)


def test_many_shapes_of_a_few_requests_are_all_counted():
    number = 3 * MAX_SIMULATED
    assert line_s(stations(1), [batch(1, 1.0)] * number) == pytest.approx(number)


def test_it_is_quick():
    line, batches = stations(2, 8, 4, 2), [batch(10**5, 0.1, 2.0, 1.0, 0.3)] * 10
    began_s = time.process_time()
    line_s(line, batches)
    assert time.process_time() - began_s < 0.3
