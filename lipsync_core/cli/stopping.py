"""Ctrl-C and SIGTERM end a command within two seconds, whatever it is at.

Python runs a signal's handler between two steps of the main thread's own code; a long call into native code, or a
thread that is waited for, would hold it up. So a second thread is told of the signal by the system itself, and ends the
process where unwinding takes too long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from lipsync_core.cli import EXIT_INTERRUPTED

_GRACE_S = 0.7  # for unwinding; the rest of the two seconds is for deleting what is half done, on a busy machine


@contextlib.contextmanager
def stops_promptly(tidy: Callable[[], None], message: str) -> Iterator[None]:
    """Within the block a signal raises `KeyboardInterrupt`; the process ends soon after, in any case.

    Then `message` is said once, on stderr. tidy: deletes what is half done, called where unwinding did not get to it.
    Does nothing in other threads than the main one, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = _Told(message)
    hear, wake = socket.socketpair()
    wake.setblocking(False)
    watched = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
    came = threading.Event()

    def interrupt(number: int, frame: object) -> NoReturn:
        came.set()
        for each in watched:  # once is enough: a second one would break into the unwinding
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, interrupt) for number in watched}
    descriptor = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(hear, set(watched), tidy, told), name="stopping", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        told.say()
        raise
    except Exception as error:
        if not came.is_set():
            raise
        told.say()  # the interrupt came out of a library's own code as another error
        raise KeyboardInterrupt from error
    finally:
        if not came.is_set():
            signal.set_wakeup_fd(descriptor)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            wake.close()  # ends the watching thread


class _Told:
    """A message that is said once, whichever thread comes first."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._lock = threading.Lock()
        self.said = False

    def say(self) -> None:
        with self._lock:
            if not self.said:
                sys.stderr.write(f"lipsync: {self._message}\n")
                sys.stderr.flush()
            self.said = True


def _watch(hear: socket.socket, numbers: set[signal.Signals], tidy: Callable[[], None], told: _Told) -> None:
    with hear:
        heard = b""
        while not numbers & set(heard):
            heard = hear.recv(64)
            if not heard:
                return
        time.sleep(_GRACE_S)
        told.say()
        tidy()
        os._exit(EXIT_INTERRUPTED)
