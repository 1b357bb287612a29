"""A text stream that a long run can trust: writing to it never raises."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class Stream:
    """Passes text on to ``stream`` for as long as that takes it.

    A reader that went away (``netdef train 2>&1 | head``) silences it for good; a full disk loses
    what could not be written, and later text is tried again. Training goes on in either case.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write ``text``, escaping characters the stream cannot show. Returns its length."""
        if not self._gone:
            with self._forgiving():
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
                    self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        if not self._gone:
            with self._forgiving():
                self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._abandon()
        except OSError:
            pass
        except ValueError:  # closed by someone else
            self._gone = True

    def _abandon(self) -> None:
        self._gone = True
        # What is still buffered must not fail when the interpreter flushes it at exit.
        if self._stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
