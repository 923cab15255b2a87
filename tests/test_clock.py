"""The store's clock: never too late in vain, hardly ever charged late, and a step is seen at once."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.store.redis.clock import DRIFT, StoreClock

SECOND = 1_000_000
ROUNDING_US = 2

replies = st.lists(
    st.tuples(
        st.floats(0, 30),  # s since the last
        st.floats(0, 0.05),  # s on the way there
        st.floats(0, 0.05),  # s on the way back
    ),
    min_size=1,
    max_size=30,
)
aheads = st.floats(-1e15, 1.8e15)


@given(replies, aheads, st.floats(-0.9 * DRIFT, 0.9 * DRIFT), st.floats(0, 0.1))
def test_a_take_is_never_too_late_in_vain_nor_much_too_late(several, ahead, drift, patience):
    """The estimate is at or after the store's time, and by no more than the fastest way there and the drift allow."""
    clock, now, fastest = StoreClock(), 1000.0, 1.0

    def store_us(at_s):
        return ahead + at_s * (1 + drift) * SECOND

    for pause, there, back in several:
        sent = now + pause
        now = sent + there + back
        clock.note(int(store_us(sent + there)), sent, now)
        fastest = min(fastest, there)
        due = now + patience
        latest = clock.latest(due, now)
        assert latest >= store_us(due) - ROUNDING_US
        drifted = 2 * DRIFT * (due - 1000) * SECOND
        assert latest <= store_us(due) + fastest * SECOND + drifted + ROUNDING_US


@given(replies, aheads, st.floats(0.2, 1e6), st.booleans(), st.tuples(st.floats(0, 0.05), st.floats(0, 0.05)))
def test_a_stepped_clock_is_seen_in_the_next_reply(several, ahead, step, back, way):
    """Forward or back, one reply later nothing is too late in vain, and the estimate is as good as that reply."""
    clock, now = StoreClock(), 1000.0
    for pause, there, again in several:
        sent = now + pause
        now = sent + there + again
        clock.note(int(ahead + (sent + there) * SECOND), sent, now)
    ahead += -step * SECOND if back else step * SECOND
    there, again = way
    sent, now = now, now + there + again
    clock.note(int(ahead + (sent + there) * SECOND), sent, now)
    true = ahead + now * SECOND
    drifted = DRIFT * (now - sent) * SECOND
    assert true - ROUNDING_US <= clock.latest(now, now) <= true + there * SECOND + drifted + ROUNDING_US


def test_nothing_is_too_late_by_a_clock_that_is_not_known():
    """Before the first reply there is no estimate."""
    assert StoreClock().latest(1000.0, 1000.0) == 0
