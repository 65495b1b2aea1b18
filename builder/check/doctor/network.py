"""Whether the indexes that a lock comes from answer, and what their clocks say."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from builder.check.doctor.diagnosis import Diagnosis
from builder.embedded.network_settings import shown_url

if TYPE_CHECKING:
    from builder.profile.model import Profile

TIMEOUT = 10.0
"""Seconds that all indexes together have: names, connections, and pages."""

# A page names every file of a package: the longest on PyPI are a few MB. More than this is no such page.
_LONGEST = 64 * 2**20

# hivemind.utils.timed_storage, MAX_DHT_TIME_DISCREPANCY_SECONDS (1.1.12): peers whose clocks differ more are refused.
_PEERS = 3.0
# AWS, "RequestTimeTooSkewed": S3, where models and data sets are, refuses a signed request that is 15 minutes off.
_SIGNATURES = 900.0


@dataclass(frozen=True)
class Index:
    """An index, and the file to ask it for: `url` is where it is, None where nobody says.

    `name` is that of the profile, None for the default one. `local` says that folders of wheels have all of its files.
    """

    name: str | None
    url: str | None
    package: str
    file: str
    local: bool = False
    version: str = ""

    @property
    def what(self) -> str:
        """How it is called."""
        return f"index {self.name}" if self.name else "default index"

    @property
    def variable(self) -> str:
        """What names another place for it."""
        return f"DRYDOCK_INDEX_{self.name.upper().replace('-', '_')}" if self.name else "UV_DEFAULT_INDEX"

    @property
    def page(self) -> str:
        """Where the files of the package are listed (PEP 503)."""
        return f"{(self.url or '').rstrip('/')}/{self.package}/"


@dataclass(frozen=True)
class Answer:
    """What came back: a status of HTTP, or a `problem` in words; `sent` and `received` are times of our clock.

    `distrusted`: the certificate of the server is what the problem is.
    """

    status: int | None = None
    problem: str = ""
    distrusted: bool = False
    body: bytes = b""
    date: str | None = None
    age: str | None = None
    sent: float = 0.0
    received: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether uv finds the file of an index; else why not, and what to do about it."""

    good: bool
    words: str
    hint: str | None


def ask(indexes: Sequence[Index], timeout: float = TIMEOUT) -> list[Answer]:
    """Ask all indexes for their pages, side by side; one that does not answer in `timeout` seconds has a problem."""
    import threading

    answers: list[Answer | None] = [None] * len(indexes)

    def fetch(at: int) -> None:
        answers[at] = _request(indexes[at].page, timeout)

    # Threads, as nothing else ends a name server that does not answer, or a server that sends a byte a second.
    threads = [threading.Thread(target=fetch, args=(at,), daemon=True) for at in range(len(indexes))]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [answer or Answer(problem=_late(timeout)) for answer in answers]


def _late(timeout: float) -> str:
    return f"no whole answer in {timeout:g} s"


def _request(url: str, timeout: float) -> Answer:
    from builder.embedded.web import DistrustedError, RefusedError, open_url

    sent = time.time()
    try:
        accept = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"}
        with open_url(url, limit=_LONGEST, seconds=timeout, headers=accept) as reply:
            received = time.time()
            date, age = reply.headers.get("Date"), reply.headers.get("Age")
            return Answer(reply.status, body=reply.read(), date=date, age=age, sent=sent, received=received)
    except RefusedError as error:
        date, age = error.headers.get("Date"), error.headers.get("Age")
        return Answer(error.code, date=date, age=age, sent=sent, received=time.time())
    except DistrustedError as error:
        return Answer(problem=str(error), distrusted=True)
    except TimeoutError:
        return Answer(problem=_late(timeout))
    except OSError as error:
        return Answer(problem=str(error) or type(error).__name__)


def ask_uv(indexes: Sequence[Index], profile: Profile, timeout: float = TIMEOUT) -> list[Verdict | None]:
    """What uv finds of each index, asked as a build asks: with the same settings, by the same program.

    None stands for an index whose file uv cannot be asked for: one that is built from source, or where there is no uv.
    """
    import threading

    found: list[Verdict | None] = [None] * len(indexes)

    def question(at: int) -> None:
        found[at] = _by_uv(indexes[at], profile, timeout)

    threads = [threading.Thread(target=question, args=(at,), daemon=True) for at in range(len(indexes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout + 5)
    return found


def _by_uv(one: Index, profile: Profile, timeout: float) -> Verdict | None:
    import tempfile

    from builder import process, uv
    from builder.errors import ToolError

    if not one.file.endswith(".whl"):
        return None
    with tempfile.TemporaryDirectory(prefix="drydock-doctor-") as folder:
        try:
            command, env = uv.question_of_index(
                f"{one.package}=={one.version}",
                profile.target,
                profile.python.version,
                one.url if one.name else None,
                folder,
            )
        except ToolError:
            return None
        done = process.run_all([command], timeout=timeout, env=env)[0]
    if done is None:
        return Verdict(False, _late(timeout), None)
    return Verdict(done.code == 0, uv.reason(done.stderr), uv.hint(done.stderr))


def settings() -> list[Diagnosis]:
    """How servers are reached, each setting with who says so; what had to be passed over is a warning."""
    from builder.embedded.network_settings import read

    found = read(os.environ)
    by_name: dict[str, list[str]] = {}
    for one in found.settings:
        by_name.setdefault(one.name, []).append(f"{shown_url(one.value)} ({one.source})")
    lines = [Diagnosis(f"network, {name}", "ok", "; ".join(values)) for name, values in by_name.items()]
    notes = [Diagnosis("network", "warn", note, "", "correct it, or take it away") for note in found.notes]
    return [*lines, *notes] or [Diagnosis("network", "ok", "no setting of uv or pip is in force")]


def is_remote(url: str | None) -> bool:
    """Whether an index is one to be asked over HTTP; others are folders."""
    return url is not None and url.startswith(("http://", "https://"))


def index(one: Index, answer: Answer | None, verdict: Verdict | None = None) -> Diagnosis:
    """Whether an index has what the lock takes from it; `answer` is None where it was not asked.

    What uv finds decides, as it is uv that builds; where uv was not asked, the page of the index does.
    """
    if one.local:
        return Diagnosis(one.what, "ok", "not needed: folders of wheels have all of its files")
    if one.url is None:
        return Diagnosis(one.what, "skipped", "uv does not say which it is")
    if not is_remote(one.url):
        if Path(unquote(one.url.removeprefix("file://"))).is_dir():
            return Diagnosis(one.what, "ok", f"the folder {one.url}")
        fix = f"correct {one.variable}, or the profile"
        return Diagnosis(one.what, "fail", f"{shown_url(one.url)} is not a folder", "", fix)
    if answer is None:
        return Diagnosis(one.what, "skipped", "not asked")
    by_page = _answered(one, answer)
    if verdict is None or verdict.good == (by_page.state == "ok"):
        return by_page
    if verdict.good:
        return Diagnosis(one.what, "ok", f"uv finds {one.file}; {by_page.found}")
    return Diagnosis(one.what, "fail", f"uv does not find {one.file}: {verdict.words}", "", verdict.hint or by_page.fix)


def _answered(one: Index, answer: Answer) -> Diagnosis:
    fix = f"is the network there, and the proxy? {one.variable} names a mirror, UV_FIND_LINKS a folder of wheels"
    place, wanted = shown_url(one.page), f"a page that lists {one.file}"
    if answer.distrusted:
        fix = "is the clock right? SSL_CERT_FILE names the certificates of a proxy, or of a company"
        return Diagnosis(one.what, "fail", f"{place}: {answer.problem}", "", fix)
    if answer.status is None:
        return Diagnosis(one.what, "fail", f"{place}: {answer.problem}", "", fix)
    if answer.status in (401, 403, 407):
        fix = "it wants a user and a password: in a netrc file, a keyring, or the URL"
    if answer.status != 200:
        return Diagnosis(one.what, "fail", f"{place}: HTTP status {answer.status}", wanted, fix)
    if not any(name.encode() in answer.body for name in (one.file, quote(one.file))):
        fix = f"is it an index, and no page to log in at? {one.variable} names another"
        return Diagnosis(one.what, "fail", f"{place} answers something else", wanted, fix)
    return Diagnosis(one.what, "ok", f"{place} lists {one.file}, in {answer.received - answer.sent:.1f} s")


def skew(answer: Answer) -> float | None:
    """By how many seconds our clock is ahead of a server's, at the least; None where it tells no time.

    `Date` is in whole seconds, cut off (RFC 9110), and was true at some moment between request and answer. A cache
    may hand on an old one, and says its `Age` (RFC 9111): then it may be that much later.

    >>> skew(Answer(200, date="Mon, 23 Nov 2026 12:00:00 GMT", sent=1795435210.0, received=1795435210.5))
    9.0
    """
    try:
        told = parsedate_to_datetime(answer.date or "").timestamp()
        older = max(0, int(answer.age or 0))
    except (ValueError, TypeError, OverflowError):
        return None
    least, most = answer.sent - (told + older + 1), answer.received - told
    return 0.0 if least <= 0 <= most else least if least > 0 else most


def clock(answers: Sequence[Answer], *, peers: bool) -> Diagnosis:
    """Whether our clock is that of the servers that told theirs; `peers` says that hivemind is to find others."""
    found = [one for one in map(skew, answers) if one is not None]
    if not found:
        return Diagnosis("clock of the network", "skipped", "no index sent its time")
    least = min(found, key=abs)  # one wrong server is no proof
    limit, why = (_PEERS, "for hivemind's peers") if peers else (_SIGNATURES, "for signed downloads")
    told = (
        "the indexes' own"
        if abs(least) < 1
        else f"{abs(least):.0f} s {'ahead of' if least > 0 else 'behind'} the indexes'"
    )
    wanted = f"less than {limit:g} s off, {why}"
    if abs(least) < limit:
        return Diagnosis("clock of the network", "ok", told, wanted)
    return Diagnosis("clock of the network", "fail" if peers else "warn", told, wanted, "set the clock, by NTP")
