"""Flags as Go's library reads them."""

import pytest

from ratelimit_svc.shims.go_flags import Flag, FlagError, HelpAsked, parse, usage

FLAGS = {
    "address": Flag("whom to ask", "localhost:1"),
    "name": Flag("a name, again and again"),
    "use-tls": Flag("ask over TLS", is_switch=True),
}
UNSAID = {"address": ["localhost:1"], "name": [], "use-tls": ["false"]}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {}),
        (["-address", "a:2"], {"address": ["a:2"]}),
        (["--address", "a:2"], {"address": ["a:2"]}),
        (["-address=a:2"], {"address": ["a:2"]}),
        (["--address="], {"address": [""]}),
        (["-name=a=b", "--name", "c=d"], {"name": ["a=b", "c=d"]}),
        (["-name", "-use-tls"], {"name": ["-use-tls"]}),  # a value is whatever comes next
        (["-use-tls", "-name", "a"], {"use-tls": ["true"], "name": ["a"]}),
        (["--use-tls=F", "-use-tls=1"], {"use-tls": ["false", "true"]}),
    ],
)
def test_flags_are_read_as_go_reads_them(arguments, given):
    """One dash or two, `=` or the next word, again and again; a switch stands alone."""
    assert parse(FLAGS, arguments) == UNSAID | given


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-add", "x"], "flag provided but not defined: -add"),  # no name is found by its beginning
        (["-name"], "flag needs an argument: -name"),
        (["-use-tls=maybe"], 'invalid boolean value "maybe" for -use-tls: must be true or false'),
        (["---name"], "bad flag syntax: ---name"),
        (["-=x"], "bad flag syntax: -=x"),
        (["-use-tls", "false"], "unexpected argument: 'false'"),
        (["-"], "unexpected argument: '-'"),
        (["--"], "unexpected argument: '--'"),
    ],
)
def test_what_is_no_flag_is_told(arguments, text):
    """Which one, and what is wrong with it."""
    with pytest.raises(FlagError, match=f"^{text}$"):
        parse(FLAGS, arguments)


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_is_asked_for(asked):
    """Whatever comes before it."""
    with pytest.raises(HelpAsked):
        parse(FLAGS, ["-name", "x", asked])


def test_the_usage_names_every_flag_with_its_default():
    """In the form of Go's programs."""
    assert usage("asker", FLAGS).splitlines() == [
        "Usage of asker:",
        "  -address string",
        '    \twhom to ask (default "localhost:1")',
        "  -name string",
        "    \ta name, again and again",
        "  -use-tls",
        "    \task over TLS",
    ]
