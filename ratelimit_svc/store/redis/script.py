"""The script: one for all algorithms, put together from the Lua twins, known to Redis by its hash.

Redis runs all of it in every call, definitions too; for a batch of one line they are half of what it takes. So an algorithm
is made when the first charge asks for it, and constants are written where they are used: for each function that uses one, a
local costs the making of the function some 40 ns. (Measured, of a batch of one line: some 5 % of Redis's CPU.)
"""

import re
from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files

from ratelimit_svc.model import Algorithm

ALGORITHMS = {
    Algorithm.SLIDING_WINDOW: "sliding_window",
    Algorithm.FIXED_WINDOW: "fixed_window",
    Algorithm.TOKEN_BUCKET: "token_bucket",
    Algorithm.REFERENCE_WINDOW: "reference_window",
}
"""The Lua twin of each algorithm."""

_CONSTANTS = re.compile(r"^ *local ([A-Z_]+(?:, [A-Z_]+)*) = (.+)$", re.MULTILINE)


def twin(name: str) -> str:
    """Return the text of a Lua twin, as it stands in `windows`."""
    return files("ratelimit_svc.windows").joinpath(f"{name}.lua").read_text("utf-8")


def script(text_of: Callable[[str], str] = twin) -> bytes:
    """Return the script: each algorithm under its letter, made when the first charge asks for it, then the batch.

    Args:
        text_of: gives the text of each twin.
    """
    parts = ["local algorithms = setmetatable({}, {__index = function(made, letter)\n"]
    for algorithm, name in ALGORITHMS.items():
        made = f"made[letter] = (function()\n{_inlined(text_of(name))}\nreturn {_class(name)}\nend)()"
        parts.append(f"if letter == '{algorithm.value}' then\n{made}\nend\n")
    return "".join([*parts, "return rawget(made, letter)\nend})\n", _inlined(text_of("batch"))]).encode()


def _inlined(text: str) -> str:
    """Write constants (locals in capitals) where they are used. Lines keep their places, for error messages."""
    while found := _CONSTANTS.search(text):
        text = text[: found.start()] + text[found.end() :]
        for name, value in zip(found[1].split(", "), found[2].split(", "), strict=True):
            text = re.sub(rf"(?<![.\w]){name}\b", f"({value})", text)
    return text


def _class(name: str) -> str:
    """Return the name of the twin's table: SlidingWindow for sliding_window."""
    return "".join(word.capitalize() for word in name.split("_"))


SCRIPT = script()
SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
