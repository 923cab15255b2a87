"""nghttp: a few requests, with PRIORITY, padding and trailers, as gRPC's own clients never send them; and it prints what it hears."""

import re

import pytest

from tests.nghttp2.conftest import run


@pytest.mark.parametrize(
    ("arguments", "answers"),
    [
        (["--multiply=20"], 20),
        (["--trailer", "x-end: 1"], 1),
        (["--header-table-size=0", "--multiply=2"], 2),
        (["--window-bits=1", "--multiply=5"], 5),
    ],
)
async def test_each_is_answered_and_counted(service, arguments, answers):
    """The status is where gRPC wants it: in the block that ends the stream. That of a small table begins with its size, or nghttp
    ends the connection.
    """
    await answered(service, arguments, answers)


@pytest.mark.parametrize("engine", ["http2"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "answers"),
    [(["--padding=200", "--multiply=5"], 5), (["--header-table-size=0", "--header-table-size=8192"], 1)],
)
async def test_what_the_library_gets_wrong(service, arguments, answers):
    """Padding beside a priority, which it decodes as fields; a table that was none and is large again, of which it does not tell."""
    await answered(service, arguments, answers)


async def answered(service, arguments, answers):
    """Run nghttp, and look for so many answers."""
    before = await service.counts()
    said = await run("nghttp", "--verbose", "--null-out", *arguments, *service.call)
    trailers = re.findall(
        r"recv \(stream_id=(\d+)\) grpc-status: 0\n(?:.*recv \(.*\n)*.*recv HEADERS .*stream_id=\1>\n +; END_STREAM",
        said,
    )
    assert len(trailers) == len(set(trailers)) == answers, said
    assert (await service.counts()).since(before).requests == answers


async def test_its_header_blocks_get_smaller_and_it_is_told_to_keep_no_table(service):
    """The first fills its table; our engine asks it to keep none, which disturbs nobody."""
    said = await run("nghttp", "--verbose", "--null-out", "--multiply=3", *service.call)
    sizes = [int(size) for size in re.findall(r"send HEADERS frame <length=(\d+)", said)]
    assert sizes[0] > sizes[1] == sizes[2]
    assert ("[SETTINGS_HEADER_TABLE_SIZE(0x01):0]" in said) == (service.engine == "http2")


@pytest.mark.parametrize("engine", ["http2"], indirect=True)
async def test_a_header_block_that_is_too_long_is_told_so(service):
    """`--continuation` makes it longer than 16 KiB, in several frames: our engine says why it goes. The library takes it."""
    said = await run("nghttp", "--verbose", "--null-out", "--continuation", *service.call)
    assert "error_code=ENHANCE_YOUR_CALM" in said
    assert "a header block has more than 16384 bytes" in said
