"""How hits are counted. Each algorithm is a pair of twins: the same names and order of lines in Python and in Lua.

`batch` takes lines of charges on any of them, all or nothing; `sliding_window` is the default algorithm, `fixed_window` the
reference implementation's, `token_bucket` for those who want a burst. The memory store runs the Python, the redis store the
Lua; `tests/test_twins.py` holds one against the other.

Rules for what stands here: no I/O, no clock of its own (the store says what time it is), integers only.
"""

KEEP_BUDGET_US = 3_600_000_000
"""A key that was made a budget is kept for so long beyond its hits: the cost of a stream may come an hour after its check."""
