"""The token of the debug side: who gets in, who does not, and what they are told."""

from http import HTTPStatus
from pathlib import Path

import pytest

from ratelimit_svc.admin.token import LONGEST_BYTES, Refusal, Token


def told(token: Token, authorization: str) -> tuple[int, str]:
    """What somebody with this header is told."""
    refusal = token.refuses(authorization)
    assert isinstance(refusal, Refusal)
    return refusal.status, refusal.text


def test_the_token_lets_in():
    """And nothing else does."""
    token = Token("sesame")
    assert token.refuses("Bearer sesame") is None
    assert told(token, "") == (401, "this needs the token: send `Authorization: Bearer` with it")
    for scheme in ("Basic sesame", "sesame", "bearer sesame", "Bearer"):
        assert told(token, scheme)[0] == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("wrong", ["", "Sesame", "sesame ", "sesam", "sesamee", "sésame", "\udcff", "x" * 10_000])
def test_what_is_not_the_token_is_refused(wrong):
    """Whatever bytes a header can hold, and it does not repeat them."""
    assert told(Token("sesame"), f"Bearer {wrong}") == (401, "this is not the token")


def test_without_a_token_nobody_gets_in():
    """Not even with an empty one; and it is told how that is changed."""
    for authorization in ("", "Bearer ", "Bearer x"):
        status, text = told(Token(), authorization)
        assert status == HTTPStatus.FORBIDDEN
        assert "set DEBUG_TOKEN, or DEBUG_TOKEN_FILE" in text


def test_a_file_is_read_each_time(tmp_path: Path):
    """A newline after the token is not of it; an empty file, or one that has gone, lets nobody in."""
    file = tmp_path / "token"
    token = Token(file=file)
    assert told(token, "Bearer x")[0] == HTTPStatus.FORBIDDEN
    file.write_text("one\n")
    assert token.refuses("Bearer one") is None
    file.write_text("two")
    assert told(token, "Bearer one")[0] == HTTPStatus.UNAUTHORIZED
    assert token.refuses("Bearer two") is None
    file.write_text("\n")
    assert told(token, "Bearer ")[0] == HTTPStatus.FORBIDDEN


def test_a_large_file_is_not_read_whole(tmp_path: Path):
    """A path that names a disk by mistake does no harm."""
    file = tmp_path / "token"
    file.write_bytes(b"x" * 10 * LONGEST_BYTES)
    assert Token(file=file).refuses("Bearer " + "x" * LONGEST_BYTES) is None


def test_the_token_does_not_show():
    """In no repr."""
    assert "sesame" not in repr(Token("sesame"))
