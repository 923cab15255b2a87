"""Kinds of settings: what the text of each may be; the rest of them stands in test_settings."""

import pytest

from ratelimit_svc.settings.kinds import ANY_INTEGER, LIST, MAP, METADATA, decimal


@pytest.mark.parametrize(
    ("text", "items"),
    [("", ()), ("  ", ()), ("a", ("a",)), ("a,b", ("a", "b")), (" a , b:1 ", ("a", "b:1")), ("a,", ("a", ""))],
)
def test_lists(text, items):
    """Commas part them; blanks around an item are dropped."""
    assert LIST.read(text) == items


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        (" ", {}),
        ("k:v", {"k": "v"}),
        ("k1:v1,k2:v2", {"k1": "v1", "k2": "v2"}),
        ("k: v, l:", {"k": "v", "l": ""}),
        ("k:1,k:2", {"k": "2"}),
        (":v", {"": "v"}),
    ],
)
def test_maps(text, pairs):
    """As envconfig reads them: of equal keys the last counts."""
    assert dict(MAP.read(text)) == pairs


@pytest.mark.parametrize("text", ["k", "k=v", "k:v,", "k:v:w", "url:http://x"])
def test_not_a_map(text):
    """An item has exactly one colon."""
    with pytest.raises(ValueError):
        MAP.read(text)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("k=v,k2=v2", {"k": "v", "k2": "v2"}),
        ("k=a=b", {"k": "a=b"}),
        ("k:v,l=w", {"l": "w"}),
        ("k=1, k=2", {"k": "2"}),
    ],
)
def test_metadata(text, pairs):
    """Items without an equals sign are passed over, as in the reference implementation."""
    assert dict(METADATA.read(text)) == pairs


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0.0), ("1", 1.0), ("0.8", 0.8), (".5", 0.5), ("1.", 1.0), ("+1e-3", 0.001)]
)
def test_decimal_numbers(text, number):
    """As one writes them in Go."""
    assert decimal(0, 1).read(text) == number


@pytest.mark.parametrize("text", ["", " 1", "1,5", "-0.1", "1.1", "nan", "inf", "1e", "1_0", "0x1p-2", "٠"])
def test_not_a_decimal_number(text):
    """What is none, or out of range."""
    with pytest.raises(ValueError):
        decimal(0, 1).read(text)


def test_any_integer():
    """What Go's int holds, and no more."""
    assert ANY_INTEGER.read("-0x8000000000000000") == -(2**63)
    with pytest.raises(ValueError):
        ANY_INTEGER.read("9223372036854775808")
