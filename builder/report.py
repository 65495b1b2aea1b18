"""What Drydock says while it works: to stderr, never to stdout, which is for data.

A workflow reports; which reporter listens is decided once, by the CLI: rich on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TextIO

from builder import log, secrets
from builder.embedded.words import printable
from builder.errors import DrydockError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from rich.status import Status

_SELDOM = 10.0  # seconds between two lines of progress in a log
_OFTEN = 0.5  # seconds between two looks at what grows
_SHORTEST_BAR, _LONGEST_BAR = 8, 40  # in columns


def sanitized(text: str) -> str:
    """A text as it may be shown: without secrets, and without what could steer a terminal, wherever it came from.

    >>> print(sanitized("a server said \\x1b[2J"))
    a server said \\x1b[2J
    """
    return secrets.redacted(printable(text, "\n\t"))


# What a line begins with, and how a terminal shows it (ECMA-48, SGR); the word itself says the same without colour.
_STYLES = {"error:": "1;31", "FAIL": "1;31", "warning:": "33", "warn": "33", "ok": "32", "hint:": "36", "fix:": "36"}


def span(seconds: float) -> str:
    """A time in words; whole seconds where they are given as such.

    >>> span(4.2), span(4), span(400), span(4000.0), span(100_000)
    ('4.2 s', '4 s', '6 min', '1 h 6 min', '27 h 46 min')
    """
    if seconds < 120:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    whole = int(seconds)
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def is_coloured(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what goes to a stream: not with NO_COLOR (no-color.org), else with FORCE_COLOR
    (force-color.org), else on a terminal that can.
    """
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (stream.isatty() and environ.get("TERM") != "dumb")


def painted(text: str, stream: TextIO) -> str:
    """A text whose lines begin with a word such as "error:", coloured where the stream is to be."""
    if not is_coloured(stream):
        return text
    beginning = rf"^( *)({'|'.join(_STYLES)})(?= )"
    return re.sub(
        beginning, lambda found: f"{found[1]}\x1b[{_STYLES[found[2]]}m{found[2]}\x1b[0m", text, flags=re.MULTILINE
    )


class Reporter(Protocol):
    """Hears what a workflow has to say."""

    def step(self, text: str) -> None:
        """A step that is done or begins."""

    def detail(self, text: str) -> None:
        """A line from a program that works for us."""

    def failed(self) -> None:
        """The step that was reported last has failed: shows its details, where `quiet` held them back."""

    def warn(self, text: str) -> None:
        """Something the user should know, which stops nothing."""

    def busy(self, text: str) -> AbstractContextManager[None]:
        """A context during which something of unknown length is under way."""

    def progress(self, progress: Progress) -> None:
        """How much is done of what is under way, where a person looks; heard within `busy`."""

    @property
    def is_live(self) -> bool:
        """Whether progress is shown as it comes."""


class Progress(NamedTuple):
    """How much of something is done, after some seconds; of nothing known (`of` 0), only that it goes on."""

    what: str
    done: int
    of: int
    is_size: bool
    """Whether these are bytes."""
    seconds: float

    def __str__(self) -> str:
        if self.is_size and self.done >= 1e6 and not self.of:
            return f"{self.what}: {self.done / 1e6:.0f} MB, {self.done / 1e6 / max(self.seconds, 0.1):.1f} MB/s"
        from builder.embedded.progress import words  # here, because most steps are short

        return words(self.what, self.done, self.of, self.is_size, self.seconds)


class Meter:
    """Measures what is under way for a reporter: to be called with how much is done of how much."""

    def __init__(self, report: Reporter, what: str) -> None:
        self.what = what
        self._report = report
        self._began = time.monotonic()

    def __call__(self, done: int, of: int, *, is_size: bool = True) -> None:
        """Report; `is_size` where these are bytes."""
        self._report.progress(Progress(self.what, done, of, is_size, time.monotonic() - self._began))


class Growth:
    """Watches a folder that programs fetch to, and says for the latest `step` how many bytes of it have come: how many
    there will be is known to none of git, uv and a server that packs as it sends. For as long as a `with` lasts.

    With a `prefix` only what begins with it is looked at in the folder, where else much may stand.
    """

    def __init__(self, report: Reporter, what: str, folder: Path, prefix: str = "") -> None:
        self._report = report
        self._folder, self._prefix = folder, prefix
        self._meter, self._before = Meter(report, what), 0  # bytes that were there at the beginning of the step
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = self._bytes()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def step(self, text: str) -> None:
        """A detail that begins: from here on the bytes are of this."""
        self._report.detail(text)
        self._before = self._bytes()
        self._meter = Meter(self._report, re.split(", |: ", text)[0])

    def _watch(self) -> None:
        while not self._over.wait(_OFTEN):
            self._meter(max(0, self._bytes() - self._before), 0)

    def _bytes(self) -> int:
        """The size of the files, which change while they are looked at."""
        size = 0
        for inside, folders, names in os.walk(self._folder):
            if inside == str(self._folder):
                folders[:] = [name for name in folders if name.startswith(self._prefix)]
                names = [name for name in names if name.startswith(self._prefix)]
            for name in names:
                with suppress(OSError):
                    size += os.lstat(f"{inside}/{name}").st_size
        return size


class PlainReporter:
    """Lines to a stream; with `quiet` only warnings."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._held: list[str] = []
        self._under_way, self._spoken = "", 0.0

    def step(self, text: str) -> None:
        log.add(text)
        self._held.clear()
        if not self._quiet:
            self._write(text)

    def detail(self, text: str) -> None:
        log.add(f"  {text}")
        if self._quiet:
            self._held.append(text)
        else:
            self._write(f"  {text}")

    def failed(self) -> None:
        for text in self._held:
            self._write(f"  {text}")

    def warn(self, text: str) -> None:
        log.add(f"warning: {text}")
        self._write(f"warning: {text}")

    is_live = False

    def progress(self, progress: Progress) -> None:
        """A log gets a line now and then, and none of what is done soon."""
        now = time.monotonic()
        if progress.what != self._under_way:
            self._under_way, self._spoken = progress.what, now
        elif now - self._spoken > _SELDOM and not self._quiet:
            self._spoken = now
            self._write(f"  {progress}")

    @contextmanager
    def _as_step(self, text: str) -> Iterator[None]:
        self.step(text)
        yield

    def busy(self, text: str) -> AbstractContextManager[None]:
        return self._as_step(text)

    def _write(self, text: str) -> None:
        print(painted(sanitized(text), self._stream), file=self._stream, flush=True)


class RichReporter:
    """A spinner with the current work, and finished steps above it; for a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._held: list[str] = []
        self._status: Status | None = None
        self._busy = ""

    def step(self, text: str) -> None:
        log.add(text)
        self._held.clear()
        if self._status is not None:
            self._status.update(self._busy)
        if not self._quiet:
            self._console.print(sanitized(text), markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        log.add(f"  {text}")
        if self._quiet:
            self._held.append(text)
        else:
            self._console.print(f"  {sanitized(text)}", style="dim", markup=False, soft_wrap=True)

    def failed(self) -> None:
        for text in self._held:
            self._console.print(f"  {sanitized(text)}", style="dim", markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        log.add(f"warning: {text}")
        self._console.print("[yellow]warning:[/] ", end="")
        self._console.print(sanitized(text), markup=False, soft_wrap=True)

    @contextmanager
    def _spinning(self, text: str) -> Iterator[None]:
        from rich.markup import escape

        log.add(text)
        if self._status is not None:  # within another: one line is enough
            outer, self._busy = self._busy, sanitized(text)
            self._status.update(escape(self._busy))
            try:
                yield
            finally:
                self._busy = outer
                self._status.update(escape(outer))
            return
        with self._console.status(escape(sanitized(text))) as status:
            self._status, self._busy = status, sanitized(text)
            try:
                yield
            finally:
                self._status = None

    is_live = True

    def progress(self, progress: Progress) -> None:
        """A bar in place of what is said to be under way, as wide as there is room for."""
        status = self._status
        if status is None:
            return
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        text = sanitized(str(progress))
        room = self._console.width - len(text) - 6
        row = Table.grid(padding=(0, 1))
        if progress.of and room >= _SHORTEST_BAR:
            bar = ProgressBar(progress.of, progress.done, width=min(room, _LONGEST_BAR))
            row.add_row(Text(text, no_wrap=True, overflow="ellipsis"), bar)
        else:
            row.add_row(Text(text, no_wrap=True, overflow="ellipsis"))
        status.update(row)

    def busy(self, text: str) -> AbstractContextManager[None]:
        return self._spinning(text)


def waiting(report: Reporter, text: str) -> AbstractContextManager[None]:
    """A context during which something is under way that only who waits for it cares about: a log has no line of it."""
    return report.busy(text) if report.is_live else nullcontext()


def reporter(*, quiet: bool = False) -> Reporter:
    """The reporter for this terminal; honours NO_COLOR (no-color.org) and TERM=dumb through rich."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return RichReporter(quiet=quiet)
    return PlainReporter(sys.stderr, quiet=quiet)


def explain(error: DrydockError) -> str:
    """An error in words: what, where, and what to do now.

    >>> from builder.errors import ProfileError, Where
    >>> print(explain(ProfileError("unknown key", hint='did you mean "env"?', where=Where("m4.toml", 3, "enf"))))
    error: unknown key
      where: m4.toml:3: enf
      hint: did you mean "env"?
    """
    lines = [f"error: {error.message}"]
    if error.where is not None:
        lines.append(f"  where: {error.where}")
    if error.hint is not None:
        lines.append(f"  hint: {error.hint}")
    return sanitized("\n".join(lines))
