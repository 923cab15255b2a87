"""Attacks on the http2 engine as it runs: real sockets, a process of its own, and an honest client that asks all the while.

`make attacks` prints what each costs. Slow attacks are in `test_slow`, on an engine whose seconds are the test's.
"""
