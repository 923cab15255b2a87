"""A unix socket in place of a TCP port (GRPC_UDS): its file comes and goes with the one who listens.

Rule 1: a file that nobody listens at was left by a process that was killed: it is replaced. One where somebody listens, or that is
        no socket, is not touched.
Rule 2: whoever may write to the file may connect. Its rights are those that the process's umask leaves (0755 by the usual one: the
        same user alone), as in the reference implementation; who may reach it otherwise is decided by the folder it stands in.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def place(path: Path) -> Iterator[None]:
    """Make room for a socket at this path, and take its file away at the end, when nobody listens there any more.

    Error handling: OSError if something else is there, or the folder is not ours to write to.
    """
    _clear(path)
    try:
        yield
    finally:
        with suppress(OSError):  # somebody else has it by now, or it has gone
            _clear(path)


def listener(path: Path, backlog: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        OSError: the address cannot be had.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(os.fspath(path))
        made.listen(backlog)
    except OSError as error:
        made.close()
        raise _cannot(path, error.errno or 0, error.strerror or str(error)) from error
    return made


def _clear(path: Path) -> None:
    """Remove what a process that has gone left there."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise _cannot(path, errno.EEXIST, "there is a file that is no socket")
        if _somebody_listens(path):
            raise _cannot(path, errno.EADDRINUSE, "another process listens there")
        path.unlink()
    except FileNotFoundError:
        return


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)  # one whose queue is full answers that it would block: it is there
        try:
            asking.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
    return True


def _cannot(path: Path, number: int, why: str) -> OSError:
    return OSError(number, f"gRPC cannot listen on {path}: {why}")
