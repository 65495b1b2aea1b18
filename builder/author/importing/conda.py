"""conda's `environment.yml`: its pip part, and what its Python packages are called on PyPI.

Read as nodes, of which no object is ever made: a tag of YAML does nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from builder.author.importing.conda_names import on_pypi
from builder.errors import ProfileError, Where
from builder.project.requirements.model import Imported, pick_python, safe_excerpt
from builder.project.requirements.pip import Read, read_lines

_WITH_WHEELS = ("pytorch-cuda", "cudatoolkit", "cudnn", "nccl", "pytorch-mutex", "cuda-version", "cuda-toolkit", "cuda")
# Channels whose packages are called as on conda-forge.
_CHANNELS = (
    *("conda-forge", "defaults", "main", "pkgs/main", "anaconda", "pytorch", "pytorch-nightly", "nvidia", "xformers"),
    *("huggingface", "fastai", "fvcore", "iopath", "pytorch3d", "pyg", "dglteam", "bioconda", "intel", "rapidsai"),
)
_INSTALLERS = ("pip", "uv", "setuptools", "wheel")
_BUILD = "its build was taken out: wheels have none of conda's"
_NO_PACKAGE = "no Python packages: wheels bring the libraries that they need, and the machine the programs"
_LONGEST = 200
_SPEC = re.compile(r"(?:([\w./:-]+)::)?([A-Za-z0-9_][\w.-]*)\s*(?:([<>=!~ ].*))?")


def read_environment(path: str, text: str, read: Read) -> Imported:
    """Return what a conda environment requires, as far as PyPI has it. Raises ProfileError where it is not one."""
    root = _composed(path, text)
    if not isinstance(root, yaml.MappingNode):
        raise ProfileError("not a conda environment: no keys", where=Where(path, 1))
    imported, pip = Imported(), list[tuple[int, str]]()
    for key, value in root.value:
        where = Where(path, key.start_mark.line + 1)
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name == "name" and isinstance(value, yaml.ScalarNode):
            imported.name = value.value
        elif name == "dependencies" and isinstance(value, yaml.SequenceNode):
            for item in value.value:
                pip += _dependency(item, path, imported)
        elif name == "variables" and isinstance(value, yaml.MappingNode):
            _variables(value, path, imported)
        elif name == "channels":
            imported.leave("channels", "packages come from a Python index, not from channels of conda", where)
        elif name != "prefix":
            imported.leave(name or "a key", "not known in a conda environment", where)
    read_lines(iter(pip), path, read, imported)
    imported.settle_constraints()
    return imported


def _composed(path: str, text: str) -> yaml.Node | None:
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ProfileError(
            f"not YAML: {safe_excerpt(str(error.problem or error.context))}", where=Where(path, line)
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "characters that it cannot have"
        raise ProfileError(f"not YAML: {reason}", where=Where(path)) from None
    for node in _nodes(root):
        if not str(node.tag).startswith("tag:yaml.org,2002:") or "python/" in node.tag:
            raise ProfileError(
                f"a tag of YAML ({safe_excerpt(node.tag)}) has no place in an environment",
                hint="remove it",
                where=Where(path, node.start_mark.line + 1),
            )
    return root


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield all nodes, each once, however often an alias names it."""
    waiting, seen = [root] if root is not None else [], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [half for pair in node.value for half in pair]


def _variables(node: yaml.MappingNode, path: str, imported: Imported) -> None:
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode):
            imported.env[key.value] = value.value
            imported.env_at[key.value] = Where(path, key.start_mark.line + 1)


def _dependency(item: yaml.Node, path: str, imported: Imported) -> Iterator[tuple[int, str]]:
    """Add one dependency; returns the lines of the pip part, if it is that."""
    where = Where(path, item.start_mark.line + 1)
    if isinstance(item, yaml.MappingNode):
        for key, value in item.value:
            if isinstance(key, yaml.ScalarNode) and key.value == "pip" and isinstance(value, yaml.SequenceNode):
                lines = (one for one in value.value if isinstance(one, yaml.ScalarNode))
                yield from ((one.start_mark.line + 1, one.value.strip()) for one in lines if one.value.strip())
            else:
                imported.leave("a table", "not known in a conda environment", where)
        return
    text = item.value.strip() if isinstance(item, yaml.ScalarNode) else ""
    found = _SPEC.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ProfileError(f"not a package of conda: {safe_excerpt(text)}", where=where)
    package(found[2], (found[3] or "").strip(), found[1], imported, where)


def package(name: str, version: str, channel: str | None, imported: Imported, where: Where) -> None:
    """Add a package of conda by its name on PyPI, with a version as conda writes it, "" for any."""
    version = "" if version == "*" else version
    text = f"{name}{version if version[:1] in ('', '<', '>', '=', '!', '~') else f' {version}'}"
    pypi = on_pypi(name)
    if name == "python":
        imported.python = _python(version, imported, where)
    elif name in _WITH_WHEELS:
        imported.leave(text, "torch's wheels bring CUDA with them", where, expected=True)
    elif channel is not None and channel.rpartition(".org/")[2].partition("/linux")[0] not in _CHANNELS:
        imported.leave(
            text, f"of the channel {safe_excerpt(channel)}: PyPI may have something else by that name", where
        )
    elif pypi is None:
        imported.leave(text, _NO_PACKAGE, where)
    elif pypi not in _INSTALLERS:
        range_ = _specifier(version, text, imported, where)
        if range_ is None:
            imported.leave(text, "a range of versions that only conda has", where)
        else:
            imported.require(f"{pypi}{range_}", where)


def _python(version: str, imported: Imported, where: Where) -> str:
    return pick_python(_specifier(version, f"python {version}", imported, where), imported, where)


def _specifier(version: str, text: str, imported: Imported, where: Where) -> str | None:
    """Return a version range of conda as one of PEP 440; None where there is no such range.

    >>> texts = ("=1.2", "==1.2.3", "1.2", ">=1,<2", "=1.2=py311_0", "=1.*=py*")
    >>> [_specifier(text, "", Imported(), Where("")) for text in texts]
    ['==1.2.*', '==1.2.3', '==1.2', '>=1,<2', '==1.2', '==1.*']
    """
    build = re.fullmatch(r"=?=?\s*([\w.!+*]+)(?:=|\s+)[^\s=<>!]+", version)
    if build is not None:
        imported.leave(text, _BUILD, where, expected=True)
        version = build[1] if build[1].endswith("*") else f"=={build[1]}"
    if version in ("", "*"):
        return ""
    if re.fullmatch(r"=\s*[\w.!+]+", version):
        found = f"=={version[1:].strip()}.*"
    elif re.fullmatch(r"=?\s*[\w.!+]+\*", version):
        found = f"=={version.lstrip('= ').removesuffix('*').removesuffix('.')}.*"
    else:
        found = f"=={version}" if re.fullmatch(r"[\w.!+]+", version) else version
    try:
        SpecifierSet(found)
    except InvalidSpecifier:
        return None
    return found
