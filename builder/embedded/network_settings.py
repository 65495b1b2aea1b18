"""The settings with which this machine reaches package indexes and other servers, and who says so.

A setting of uv goes before one of pip, a variable before a file, a near file before a far one.
"""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple
from urllib.parse import quote, unquote, urlsplit

from builder.embedded import caller
from builder.embedded.config_files import is_true, pip_options, uv_tables
from builder.embedded.words import printable

# Of a uv.toml, as they are: key and the variable that says the same.
AS_THEY_ARE = (
    ("cache-dir", "UV_CACHE_DIR"),
    ("offline", "UV_OFFLINE"),
    ("keyring-provider", "UV_KEYRING_PROVIDER"),
    ("python-downloads", "UV_PYTHON_DOWNLOADS"),
    ("python-downloads-json-url", "UV_PYTHON_DOWNLOADS_JSON_URL"),
    ("python-install-mirror", "UV_PYTHON_INSTALL_MIRROR"),
    ("python-preference", "UV_PYTHON_PREFERENCE"),
)
# Where systems keep the certificates that they trust, as openssl-probe, which uv asks, looks for them.
_SYSTEM_CERTIFICATES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/cacert.pem",
    "etc/ssl/cert.pem",
    "var/lib/ca-certificates/ca-bundle.pem",
)


class Setting(NamedTuple):
    """One setting that is in force: its `name`, its `value`, and the `source` that says so. `value` may be secret."""

    name: str
    value: str
    source: str

    def __str__(self) -> str:
        return printable(f"{self.name}: {shown_url(self.value)} ({self.source})")


class Network(NamedTuple):
    """All settings that are in force, and `notes` on what cannot be."""

    settings: Tuple[Setting, ...]
    notes: Tuple[str, ...]

    def all(self, name: str) -> List[str]:
        """The values of a setting, in the order in which they count."""
        return [one.value for one in self.settings if one.name == name]

    def first(self, name: str) -> Optional[str]:
        """The value of a setting; None where nobody says."""
        return next(iter(self.all(name)), None)

    @property
    def places(self) -> List[str]:
        """The indexes and folders that are asked."""
        return [*self.all("index"), *self.all("extra-index"), *self.all("find-links")]

    @property
    def folders(self) -> List[Path]:
        """The folders of wheels that exist."""
        paths = (_local(value) for value in self.all("find-links"))
        return [path for path in paths if path is not None and path.is_dir()]

    def lines(self) -> List[str]:
        """What is in force and who says so, without passwords."""
        return [*map(str, self.settings), *self.notes]


def shown_url(text: str) -> str:
    """A value without what is secret in it: user and password, and what may be a token in a query.

    >>> shown_url("https://me:secret@host:8080/a?token=b"), shown_url("/etc/ssl/cert.pem"), shown_url("me:pw@proxy:80")
    ('https://host:8080/a', '/etc/ssl/cert.pem', 'proxy:80')
    """
    if "://" not in text:
        return text if text.startswith("/") else text.rpartition("@")[2]
    return re.sub(r"[?#].*", "", re.sub(r"://([^@\s]*:[^@\s]*|[^/?#\s]*)@", "://", text))


def absolute(place: str, environ: Mapping[str, str], folder: str = "") -> str:
    """A path made absolute, also where it stands for an index that may have a name; URLs stay.

    It is relative to `folder`; without one to where the caller stood, or else to where we stand.

    >>> absolute("../wheels", {}, "/home/me"), absolute("own=https://host/simple", {}, "/home/me")
    ('/home/me/../wheels', 'own=https://host/simple')
    """
    url = without_name(place)
    if "://" in url or not url:
        return place
    return place[: len(place) - len(url)] + os.path.join(folder or caller.folder_of(environ), _expanded(url, environ))


def without_name(index: str) -> str:
    """The URL of an index that may have a name, which only uv knows.

    >>> without_name("internal=https://host/simple"), without_name("https://host/simple?a=b")
    ('https://host/simple', 'https://host/simple?a=b')
    """
    return re.sub(r"^[\w.-]+=(?=\w+:|/)", "", index)


def read(environ: Mapping[str, str], root: str = "/") -> Network:
    """The settings that are in force. `root` is the folder that the files of the system are below.

    Paths are absolute: what asks may stand in another folder than the caller.
    """
    notes: List[str] = []
    sources = _Sources(environ, uv_tables(environ, root, notes), pip_options(environ, root, notes), root, notes)
    found: List[Setting] = []
    for part in (_indexes, _links, _certificates, _proxies, _patience, _rest):
        found.extend(part(sources))
    return Network(tuple(found), tuple(notes))


class _Sources(NamedTuple):
    """Variables, the tables of uv's files (path and content, the nearest first), pip's options, and who wrote them."""

    environ: Mapping[str, str]
    uv: Sequence[Tuple[str, Dict[str, Any]]]
    pip: Mapping[str, Tuple[str, str]]
    root: str
    notes: List[str]

    def variables(self, *names: str) -> Iterator[Tuple[str, str]]:
        """Those of the variables that are set: value and name."""
        return ((self.environ[name], name) for name in names if self.environ.get(name))

    def in_uv(self, key: str) -> Iterator[Tuple[Any, str]]:
        """What uv's files say for a key; the settings of `uv pip`, in [pip], go first."""
        for path, table in self.uv:
            for part in (table.get("pip"), table):
                if isinstance(part, dict) and key in part:
                    yield self._beside(path, key, part[key]), f'"{key}" in {path}'
                    break

    def _beside(self, path: str, key: str, value: Any) -> Any:
        """A value of a uv.toml: paths there are relative to the folder of the file."""
        if key not in ("cache-dir", "extra-index-url", "find-links", "index-url", "url"):
            return value
        if isinstance(value, list):
            return [self._beside(path, key, one) for one in value]
        return (
            absolute(value, self.environ, os.path.dirname(os.path.abspath(path))) if isinstance(value, str) else value
        )

    def absolute(self, place: str) -> str:
        return absolute(place, self.environ)

    def indexes(self) -> Iterator[Tuple[Dict[str, Any], str]]:
        """The [[index]] tables of uv's files that have a URL."""
        for path, table in self.uv:
            rows = table.get("index")
            for row in rows if isinstance(rows, list) else ():
                if isinstance(row, dict) and isinstance(row.get("url"), str):
                    row = {**row, "url": self._beside(path, "url", row["url"])}
                    yield row, f"[[index]] {row.get('name') or shown_url(row['url'])} in {path}"

    def in_pip(self, *keys: str) -> Iterator[Tuple[str, str]]:
        return (self.pip[key] for key in keys if key in self.pip)


def _indexes(sources: _Sources) -> Iterator[Setting]:
    default: List[Tuple[str, str]] = list(sources.variables("UV_DEFAULT_INDEX", "UV_INDEX_URL"))
    extra = _words(sources.variables("UV_INDEX", "UV_EXTRA_INDEX_URL"))
    for row, source in sources.indexes():
        unknown = sorted(set(row) - {"name", "url", "default", "explicit", "format"})
        sources.notes.extend(f"passed over: {key} of {source}, as there is no variable for it" for key in unknown)
        # Which package comes from where is said by the profile; flat ones are found by `_links`.
        if row.get("explicit") is not True and row.get("format") != "flat":
            value = f"{row['name']}={row['url']}" if isinstance(row.get("name"), str) else row["url"]
            (default if row.get("default") is True else extra).append((value, source))
    strategy: List[Tuple[str, str]] = []
    default += _texts(sources.in_uv("index-url"))
    extra += _texts(sources.in_uv("extra-index-url"))
    no_index = [source for value, source in sources.in_uv("no-index") if value is True]
    if not default:
        default = list(sources.in_pip("index-url"))
        if not extra:
            extra = _words(sources.in_pip("extra-index-url"))
            # pip takes what fits from any of its indexes. This does too, but what an earlier one has goes before what a
            # later one has, however new: somebody else's file of that name does not win by its version.
            strategy = [("unsafe-first-match", source) for _, source in extra[:1]]
        no_index += [source for value, source in sources.in_pip("no-index") if is_true(value)]
    default, extra = ([(sources.absolute(value), source) for value, source in some] for some in (default[:1], extra))
    yield from (Setting("no-index", "yes", source) for source in no_index[:1])
    yield from (Setting("index", value, source) for value, source in default)
    yield from (Setting("extra-index", value, source) for value, source in extra)
    yield from (Setting("index-strategy", value, source) for value, source in strategy)
    yield from _named([value for value, _ in (*default, *extra)], sources)


def _named(indexes: Sequence[str], sources: _Sources) -> Iterator[Setting]:
    """The indexes of profiles that have another place here, and those whose credentials are in variables."""
    for variable, value in sorted(sources.environ.items()):
        if variable.startswith("DRYDOCK_INDEX_") and value:
            yield Setting("named-index", value, variable)
    for name, url in ((index[: -len(without_name(index)) - 1], without_name(index)) for index in indexes):
        variable = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        user, password = (sources.environ.get(f"{variable}_{word}", "") for word in ("USERNAME", "PASSWORD"))
        if name and (user or password) and "://" in url:
            scheme, _, rest = url.partition("://")
            pair = f"{quote(user, safe='')}:{quote(password, safe='')}"
            yield Setting("named-index", f"{scheme}://{pair}@{rest.rpartition('@')[2]}", f"{variable}_USERNAME")


def _links(sources: _Sources) -> Iterator[Setting]:
    found = [(word, name) for value, name in sources.variables("UV_FIND_LINKS") for word in value.split(",")]
    found += _texts(sources.in_uv("find-links"))
    found += [(row["url"], source) for row, source in sources.indexes() if row.get("format") == "flat"]
    found += _words(sources.in_pip("find-links"))
    seen: Set[object] = set()
    for value, source in ((sources.absolute(value.strip()), source) for value, source in found):
        folder = _local(value)
        if folder is not None and value and not folder.exists():  # uv would give up
            sources.notes.append(f"passed over: {source} names {value}, which does not exist")
        elif value and (folder or value) not in seen:
            seen.add(folder or value)
            yield Setting("find-links", value, source)


def _certificates(sources: _Sources) -> Iterator[Setting]:
    """Who is trusted. What is named is trusted alone, as with uv and pip; else the system's own, where it has any."""
    by_uv = next(_system_by_uv(sources), (None, "the system's own"))
    named = _trusted(sources.variables("SSL_CERT_FILE", "SSL_CERT_DIR"), sources)
    if not named and not by_uv[0]:
        others = [*sources.in_pip("cert"), *sources.variables("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
        named = _trusted(others, sources)[:1]
    yield from named
    if not named and by_uv[0] is not False:
        yield from (Setting("system-certificates", path, by_uv[1]) for path in _system_certificates(sources)[:1])
    for value, source in [*sources.variables("SSL_CLIENT_CERT"), *sources.in_pip("client-cert")][:1]:
        yield Setting("client-certificate", sources.absolute(value), source)
    hosts = _words(sources.variables("UV_INSECURE_HOST")) + _texts(sources.in_uv("allow-insecure-host"))
    hosts += _words(sources.in_pip("trusted-host"))
    first = dict(reversed(hosts))  # each once, with who says it first
    yield from (Setting("insecure-host", host, first[host]) for host in dict(hosts))


def _system_by_uv(sources: _Sources) -> Iterator[Tuple[Optional[bool], str]]:
    for value, name in sources.variables("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):
        yield is_true(value), name
    for key in ("system-certs", "native-tls"):
        yield from ((value is True, source) for value, source in sources.in_uv(key))


def _system_certificates(sources: _Sources) -> List[str]:
    paths = [os.path.join(sources.root, path) for path in _SYSTEM_CERTIFICATES]
    found = [path for path in paths if os.path.isfile(path)]
    return ["the keychain", *found] if sys.platform == "darwin" else found


def _trusted(named: Iterable[Tuple[str, str]], sources: _Sources) -> List[Setting]:
    """The certificates that settings name, as far as they are there."""
    found = []
    for value, source in named:
        places = [sources.absolute(place) for place in value.split(os.pathsep)]
        value, folders = os.pathsep.join(places), [place for place in places if os.path.isdir(place)]
        if os.path.isfile(value) and os.access(value, os.R_OK):
            found.append(Setting("certificates", value, source))
        elif folders:
            found.append(Setting("certificate-folders", os.pathsep.join(folders), source))
        else:
            sources.notes.append(f"passed over: {source} names {value}, which cannot be read")
    return found


def _proxies(sources: _Sources) -> Iterator[Setting]:
    of_pip = list(sources.in_pip("proxy"))
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        # HTTP_PROXY in capitals could come from a header where a web server starts us (CGI; httpoxy).
        capitals = [] if scheme == "http" and "REQUEST_METHOD" in sources.environ else [name.upper()]
        found = [*sources.variables(name, *capitals), *sources.variables("all_proxy", "ALL_PROXY")]
        found += [(str(value), source) for value, source in sources.in_uv(f"{scheme}-proxy")]
        for value, source in [*found, *of_pip][:1]:
            yield Setting(f"{scheme}-proxy", value if "://" in value else f"http://{value}", source)
    without = [*sources.variables("no_proxy", "NO_PROXY"), *_texts(sources.in_uv("no-proxy"), ",")]
    for value, source in without[:1]:
        yield Setting("no-proxy", value, source)


def _patience(sources: _Sources) -> Iterator[Setting]:
    names = (("timeout", ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT"), ("timeout", "default-timeout")),)
    for name, variables, keys in (*names, ("retries", ("UV_HTTP_RETRIES",), ("retries",))):
        for value, source in [*sources.variables(*variables), *sources.in_pip(*keys)]:
            number = _number(value)
            if number is not None:
                yield Setting(name, str(number), source)
                break
            sources.notes.append(f"passed over: {source} is not a number")


def _rest(sources: _Sources) -> Iterator[Setting]:
    for key, variable in AS_THEY_ARE:
        words = [(str(value), source) for value, source in sources.in_uv(key) if isinstance(value, str)]
        words += [("1", source) for value, source in sources.in_uv(key) if value is True]
        if key == "keyring-provider":
            words += [
                ("subprocess", source) for value, source in sources.in_pip(key) if value not in ("auto", "disabled")
            ]
        for value, source in [*sources.variables(variable), *words][:1]:
            yield Setting(variable, sources.absolute(value) if key == "cache-dir" else value, source)
    for value, source in sources.in_pip("keyring-provider"):
        yield Setting("keyring", value, source)
    netrc = sources.environ.get("NETRC") or os.path.join(sources.environ.get("HOME", "/"), ".netrc")
    if os.path.isfile(netrc):
        yield Setting("netrc", sources.absolute(netrc), "NETRC" if sources.environ.get("NETRC") else "the home")


def _words(found: Iterable[Tuple[str, str]]) -> List[Tuple[str, str]]:
    return [(word, source) for value, source in found for word in value.split()]


def _texts(found: Iterable[Tuple[Any, str]], joined: str = "") -> List[Tuple[str, str]]:
    rows = [([value] if isinstance(value, str) else value, source) for value, source in found]
    rows = [
        ([one for one in value if isinstance(one, str)], source) for value, source in rows if isinstance(value, list)
    ]
    if joined:
        return [(joined.join(value), source) for value, source in rows if value]
    return [(one, source) for value, source in rows for one in value]


def _number(value: str) -> Optional[int]:
    """A number of seconds, or of tries; uv wants whole ones.

    >>> _number("7.2"), _number("x"), _number("nan")
    (8, None, None)
    """
    try:
        found = float(value)
    except ValueError:
        return None
    return math.ceil(found) if 0 <= found < 1e6 else None


def _expanded(value: str, environ: Mapping[str, str]) -> str:
    return os.path.join(environ.get("HOME", "/"), value[2:]) if value.startswith("~/") else value


def _local(value: str) -> Optional[Path]:
    if value.startswith("file://"):
        return Path(unquote(urlsplit(value).path))
    return None if "://" in value else Path(value)
