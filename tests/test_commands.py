"""Commands on the wire: the short way for one charge writes and reads what the long way does."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_svc.model import BAD_KEY, Grant, Line, Outcome
from ratelimit_svc.store.redis import commands
from ratelimit_svc.store.redis.script import SHA
from tests.histories import batches, charge


@given(batches(), st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**53))
def test_one_charge_is_written_as_any_other_batch(lines, number, now, not_after):
    """Whatever the line is."""
    for line in lines:
        for one in line.charges:
            alone = [Line((one,), line.n)]
            packed = commands.pack(alone, number=number, now=now, not_after=not_after)
            written = commands.take(alone, receipt=b"receipt", number=number, now=now, not_after=not_after)
            assert written == commands.of(b"EVALSHA", SHA, b"2", one.key, b"receipt", packed)
            assert commands.bring_script(written) is not None


def test_the_reply_to_one_charge_is_read_as_any_other():
    """Granted, denied, overdrawn, a bad key, too late."""
    one = [Line((charge("k", 5),), 3)]
    told = commands.ONE_TOLD.pack
    assert commands.taken(told(7, 2, 3, 4, 5), one) == commands.Taken(7, [Grant(2, (Outcome(3, 4, 5),))])
    assert commands.taken(told(7, 0, 3, 4, 5), one) == commands.Taken(7, [Grant(0, (Outcome(3, 4, 5),))])
    overdrawn = Grant(1, (Outcome(3, 4, 5),), overdrawn=True)
    assert commands.taken(told(7, commands.ONE_OVERDRAWN, 3, 4, 5), one) == commands.Taken(7, [overdrawn])
    assert commands.taken(told(7, BAD_KEY, 0, 0, 0), one) == commands.Taken(7, [Grant(BAD_KEY, ())])
    assert commands.taken(commands.NOW.pack(7), one) == commands.Taken(7, None)
