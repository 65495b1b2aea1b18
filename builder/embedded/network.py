"""How uv and pip reach their indexes: what they run with, instead of their configuration files.

Where pip works, Drydock works. `read` (builder/embedded/network_settings.py) says which settings are in force;
`environment` is what uv runs with, `pip_environment` what pip runs with. Both run without configuration files, so that
nothing else of these is in force. Everything travels in variables: an argument can be seen by every user of a machine.

Sources: uv 0.13, "Environment variables" and "TLS certificates"; pip 25, "Configuration".
"""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List, Mapping, Optional
from urllib.parse import quote, urlsplit

from builder.embedded.network_settings import AS_THEY_ARE, Network, absolute, read, without_name

NO_INDEX = "file:///no-index"
"""What stands for the default index where no index is to be asked: uv has no variable for that."""

# Settings of uv that say where bytes come from and where they are kept, and never which: every byte is checked by hash.
# All other variables whose names begin with UV_ would decide what is built.
_HARMLESS = (
    "UV_AZURE_ENDPOINT_URL",
    "UV_CACHE_DIR",
    "UV_CONCURRENT_BUILDS",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_INSTALLS",
    "UV_CREDENTIALS_DIR",
    "UV_GCS_ENDPOINT_URL",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_LINK_MODE",
    "UV_LOCK_TIMEOUT",
    "UV_MANAGED_PYTHON",
    "UV_NO_CACHE",
    "UV_NO_MANAGED_PYTHON",
    "UV_NO_PROGRESS",
    "UV_NO_WRAP",
    "UV_PYTHON_BIN_DIR",
    "UV_PYTHON_CACHE_DIR",
    "UV_PYTHON_INSTALL_BIN",
    "UV_PYTHON_INSTALL_DIR",
    "UV_PYTHON_SEARCH_PATH",
    "UV_S3_ENDPOINT_URL",
)
_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")


def environment(environ: Mapping[str, str], index: Optional[str] = None, root: str = "/") -> Dict[str, str]:
    """The whole environment for uv. `index` is the only index to ask, instead of those that are configured."""
    found = read(environ, root)
    kept = {name: value for name, value in environ.items() if not name.startswith(("UV_", "PIP_")) or _is_kept(name)}
    kept.update({name: absolute(kept[name], environ) for name in _HARMLESS if name.endswith("_DIR") and name in kept})
    new = {"UV_NO_CONFIG": "1"}
    default = (absolute(index, environ) if index else None) or (
        NO_INDEX if found.first("no-index") else found.first("index")
    )
    if default:
        new["UV_DEFAULT_INDEX"] = default
    if not index and not found.first("no-index") and found.all("extra-index"):
        new["UV_INDEX"] = " ".join(found.all("extra-index"))
    if found.all("find-links"):
        new["UV_FIND_LINKS"] = ",".join(_escaped(value, ",") for value in found.all("find-links"))
    if found.all("insecure-host"):
        new["UV_INSECURE_HOST"] = " ".join(found.all("insecure-host"))
    new["UV_SYSTEM_CERTS"] = "1" if found.first("system-certificates") else "0"
    named = {
        "timeout": "UV_HTTP_TIMEOUT",
        "retries": "UV_HTTP_RETRIES",
        **{variable: variable for _, variable in AS_THEY_ARE},
    }
    new.update({variable: value for name, variable in named.items() for value in found.all(name)[:1]})
    if "native-auth" in re.split(r"[,\s]+", environ.get("UV_PREVIEW_FEATURES", "")):
        new["UV_PREVIEW_FEATURES"] = "native-auth"
    return {**_without_certificates(kept), **new, **_standard(found)}


def pip_environment(environ: Mapping[str, str], index: Optional[str] = None, root: str = "/") -> Dict[str, str]:
    """The whole environment for pip. `index` is the only index to ask; those that are not encrypted are trusted too.

    To be used with --require-hashes: then whoever serves a file cannot change it.
    """
    found = read(environ, root)
    kept = {name: value for name, value in environ.items() if not name.startswith(("UV_", "PIP_"))}
    kept.update({name: environ[name] for name in ("PIP_CACHE_DIR", "PIP_NO_CACHE_DIR") if name in environ})
    new = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    if index is None and found.first("no-index"):
        new["PIP_NO_INDEX"] = "1"
    default = index or found.first("index")
    if default:
        new["PIP_INDEX_URL"] = without_name(default)
    if index is None:
        new["PIP_EXTRA_INDEX_URL"] = " ".join(map(without_name, found.all("extra-index")))
        new["PIP_FIND_LINKS"] = " ".join(_escaped(value, " ") for value in found.all("find-links"))
    hosts = [*found.all("insecure-host"), *_plain_hosts([index] if index else found.places)]
    new["PIP_TRUSTED_HOST"] = " ".join(hosts)
    for name, variable in (
        ("timeout", "PIP_DEFAULT_TIMEOUT"),
        ("retries", "PIP_RETRIES"),
        ("keyring", "PIP_KEYRING_PROVIDER"),
    ):
        new[variable] = found.first(name) or ""
    system = found.first("system-certificates") or ""
    trusted = found.first("certificates") or found.first("certificate-folders")
    new["PIP_CERT"] = trusted or (system if system.startswith("/") else "")
    new["PIP_CLIENT_CERT"] = found.first("client-certificate") or ""
    return {**_without_certificates(kept), **{name: value for name, value in new.items() if value}, **_standard(found)}


def _escaped(value: str, separator: str) -> str:
    """A path or URL without what would part it in two in a list."""
    if separator not in value:
        return value
    if "://" in value:
        return value.replace(separator, quote(separator, safe=""))
    return "file://" + quote(os.path.abspath(value), safe="/")


def _plain_hosts(places: Iterable[str]) -> List[str]:
    """The hosts of places that are not encrypted: pip asks none that it does not trust."""
    urls = map(without_name, places)
    return list(dict.fromkeys(urlsplit(url).netloc.rpartition("@")[2] for url in urls if url.startswith("http://")))


def _is_kept(name: str) -> bool:
    return name in _HARMLESS or bool(_CREDENTIALS.fullmatch(name))


def _without_certificates(environ: Dict[str, str]) -> Dict[str, str]:
    # One that cannot be read would leave uv and OpenSSL without any.
    return {name: value for name, value in environ.items() if name not in ("SSL_CERT_FILE", "SSL_CERT_DIR")}


def _standard(found: Network) -> Dict[str, str]:
    """The variables that uv, pip and OpenSSL share."""
    names = {
        "certificates": ("SSL_CERT_FILE",),
        "certificate-folders": ("SSL_CERT_DIR",),
        "client-certificate": ("SSL_CLIENT_CERT",),
        "http-proxy": ("HTTP_PROXY", "http_proxy"),
        "https-proxy": ("HTTPS_PROXY", "https_proxy"),
        "no-proxy": ("NO_PROXY", "no_proxy"),
    }
    return {
        variable: found.all(name)[0] for name, variables in names.items() if found.all(name) for variable in variables
    }
