"""What a variable that holds a secret is called, and an environment without any."""

from __future__ import annotations

from collections.abc import Mapping

_WORDS = ("TOKEN", "API_KEY", "APIKEY", "SECRET", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY", "PASSWORD", "PASSWD")
_NAMES = tuple(f"_{words}" for words in _WORDS)
_INDEX = "UV_INDEX_"  # how uv is told the user and the password of an index; without them it fetches nothing


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds a secret.

    >>> [is_secret(name) for name in ("HF_TOKEN", "wandb_api_key", "Secret", "TOKENIZERS_PARALLELISM", "NOTOKEN")]
    [True, True, True, False, False]
    """
    return f"_{name.upper()}".endswith(_NAMES)


def cleaned(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a build of what others wrote: mirrors, proxies and certificates, and no secret.

    Neither do our own variables belong there: DRYDOCK_INDEX_NAME may be a URL with a password.

    >>> sorted(cleaned(dict.fromkeys(("HF_TOKEN", "UV_PUBLISH_TOKEN", "DRYDOCK_CACHE", "UV_INDEX_A_PASSWORD"), "x")))
    ['UV_INDEX_A_PASSWORD']
    >>> cleaned({"HTTPS_PROXY": "x"})
    {'HTTPS_PROXY': 'x'}
    """
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_INDEX) or not (name.startswith("DRYDOCK_") or is_secret(name))
    }
