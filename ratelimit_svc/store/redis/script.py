"""The script: one for all algorithms, put together from the Lua twins, known to Redis by its hash."""

from hashlib import sha1
from importlib.resources import files

from ratelimit_svc.model import Algorithm

ALGORITHMS = {
    Algorithm.SLIDING_WINDOW: "sliding_window",
    Algorithm.FIXED_WINDOW: "fixed_window",
    Algorithm.TOKEN_BUCKET: "token_bucket",
}
"""The Lua twin of each algorithm."""


def script() -> bytes:
    """Return the script: each algorithm under its letter, made when the first charge asks for it, then the batch."""
    parts = ["local algorithms = setmetatable({}, {__index = function(made, letter)\n"]
    for algorithm, name in ALGORITHMS.items():
        made = f"made[letter] = (function()\n{_lua(name)}\nreturn {_class(name)}\nend)()"
        parts.append(f"if letter == '{algorithm.value}' then\n{made}\nend\n")
    return "".join([*parts, "return rawget(made, letter)\nend})\n", _lua("batch")]).encode()


def _lua(name: str) -> str:
    return files("ratelimit_svc.windows").joinpath(f"{name}.lua").read_text("utf-8")


def _class(name: str) -> str:
    """Return the name of the twin's table: SlidingWindow for sliding_window."""
    return "".join(word.capitalize() for word in name.split("_"))


SCRIPT = script()
SHA = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
