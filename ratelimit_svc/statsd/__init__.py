"""statsd: the reference implementation's numbers, sent to a server that speaks its protocol.

    lines        numbers → lines, and which of them were told already
    mogrifiers   a name as statsd has it → what DogStatsD is to call it, and its tags
    sender       lines → a server, over TCP or UDP

Rule: a server that is away, slow or gone harms nobody. What was not told is told later, in one sum; nothing waits in a queue.
"""
