"""`setup.cfg` and `setup.py` of setuptools: read as data, never run.

Of a setup.py what stands there as text counts: lists of strings, and names of such. What it works out is not known.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.project.requirements.model import Imported, pick_python, safe_excerpt

if TYPE_CHECKING:
    from builder.project.requirements.pip import Read
    from builder.project.requirements.pyproject import Wanted

CONFIG, SCRIPT = "setup.cfg", "setup.py"
_BY_ITSELF = "the project can say it: uv pip compile {file} -o requirements.txt, which runs it; import that"
_MOST_STEPS = 10_000

_Lines = list[tuple[str, Where]]


def read_setup_cfg(path: str, text: str, wanted: Wanted, read: Read) -> Imported:
    """Return what a setup.cfg requires. Raises ProfileError where it is not one, or has no requirements."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except (configparser.Error, ValueError) as error:
        raise ProfileError(f"not a setup.cfg: {safe_excerpt(str(error))}", where=Where(path)) from None
    lines = _config_lines(text)
    imported = Imported()
    imported.name = parser.get("metadata", "name", fallback=None)
    _set_python(parser.get("options", "python_requires", fallback=None), imported, wanted, Where(path))
    section = parser["options.extras_require"] if parser.has_section("options.extras_require") else {}
    places = {key: Where(path, lines.get(("options.extras_require", key))) for key in section}
    extras = {str(canonicalize_name(key)): _config_items(value, places[key]) for key, value in section.items()}
    required = parser.get("options", "install_requires", fallback=None)
    if required is None and not extras:
        hint = "name the file that does: pyproject.toml, setup.py, requirements.txt"
        raise ProfileError("it has no requirements", hint=hint, where=Where(path))
    items = _config_items(required or "", Where(path, lines.get(("options", "install_requires"))))
    for line, where in [*items, *_chosen(extras, wanted, imported, Where(path))]:
        if (found := re.fullmatch(r"file:\s*(.+)", line)) is None:
            imported.require(line, where)
            continue
        for name in re.split(r"[,\s]+", found[1].strip()):
            _add_file(name, where, wanted, read, imported)
    return imported


def _config_items(value: str, where: Where) -> _Lines:
    """The lines of a value, each with its place, without comments."""
    first = where.line or 0
    lines = ((re.sub(r"(^|\s)#.*", "", line).strip(), first + number) for number, line in enumerate(value.split("\n")))
    return [(line, where._replace(line=number or None)) for line, number in lines if line]


def read_setup_py(path: str, text: str, wanted: Wanted, read: Read) -> Imported:
    """Return what a setup.py requires, as far as that stands in it. Raises ProfileError where it does not."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProfileError(f"not Python: {safe_excerpt(str(error))}", where=Where(path)) from None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _named(node.func) == "setup"]
    if not calls:
        raise ProfileError("it does not call setup()", hint=_hint(path), where=Where(path))
    arguments = {one.arg: one.value for one in calls[-1].keywords if one.arg is not None}
    try:
        return _of_setup(path, _Values(path, tree), arguments, wanted, read)
    except RecursionError:  # a list that has itself in it
        raise ProfileError("its requirements are computed when it runs", hint=_hint(path), where=Where(path)) from None


def _of_setup(path: str, values: _Values, arguments: Mapping[str, ast.expr], wanted: Wanted, read: Read) -> Imported:
    imported = Imported()
    imported.name = values.text(arguments.get("name"))
    _set_python(values.text(arguments.get("python_requires")), imported, wanted, Where(path))
    required = arguments.get("install_requires")
    found = values.texts(required) if required is not None else []
    extras = values.table(arguments.get("extras_require"))
    if found is None:
        where = Where(path, required.lineno if required is not None else None)
        file = values.file_of(required)
        try:
            _add_file(file or "", where, wanted, read, imported)
        except ProfileError as error:
            if file is not None and error.where is not None and error.where.file != path:
                raise
            raise ProfileError("its requirements are computed when it runs", hint=_hint(path), where=where) from None
        imported.leave(
            "install_requires", f"setup.py reads it from {safe_excerpt(file or '')}, whose lines were taken", where
        )
    for line, where in [*(found or ()), *_chosen(extras, wanted, imported, Where(path))]:
        imported.require(line, where)
    return imported


def _hint(path: str) -> str:
    return _BY_ITSELF.format(file=path)


def _chosen(there: Mapping[str, _Lines], wanted: Wanted, imported: Imported, where: Where) -> _Lines:
    """The requirements of the extras that are wanted. Raises ProfileError for one that does not exist."""
    chosen = [str(canonicalize_name(one)) for one in wanted.extras]
    for name in chosen:
        if name not in there:
            known = ", ".join(sorted(there)) or "none"
            raise ProfileError(f'there is no extra "{name}" in it', hint=f"there: {safe_excerpt(known)}", where=where)
    if others := [name for name in there if name not in chosen]:
        named = f"the extra{'s' if others[1:] else ''} {', '.join(others)}"
        imported.leave(named, "only by option: --extra NAME", where, expected=True)
    return [line for name in chosen for line in there[name]]


def _set_python(spec: str | None, imported: Imported, wanted: Wanted, where: Where) -> None:
    if spec:
        imported.python_range, imported.python_at = spec, where
        imported.python = pick_python(spec, imported, where, wanted.python)


def _add_file(name: str, where: Where, wanted: Wanted, read: Read, imported: Imported) -> None:
    from builder.project.requirements.pip import inside, read_requirements  # which reads projects too

    path = inside(name, where)
    imported.add(read_requirements(path, read(path, where), read, wanted))


def _config_lines(text: str) -> dict[tuple[str, str], int]:
    """The line of each key of an INI file, by section."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\[([^\]]+)\]", line):
            section = header[1]
        elif key := re.match(r"([^\s#;:=][^:=]*?)\s*[:=]", line):
            found.setdefault((section, key[1].lower()), number)
    return found


def _named(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _assigned(tree: ast.Module) -> dict[str, dict[str, ast.expr | None]]:
    """What is assigned to the items of tables, by name: `table["a"] = …`; None where it is not one line at the top."""
    found: dict[str, dict[str, ast.expr | None]] = {}
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                items, key = found.setdefault(_named(target.value), {}), str(target.slice.value)
                once = key not in items and node in tree.body
                items[key] = node.value if once and isinstance(node, ast.Assign) else None
    return found


def _changed(node: ast.AST) -> str | None:
    """The name whose list a statement changes."""
    if isinstance(node, ast.AugAssign):
        return _named(node.target)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    changes = node.func.attr in ("append", "extend", "insert", "update", "remove", "pop")
    return _named(node.func.value) if changes else None


def _path(node: ast.expr) -> str:
    """The path in a text, or in texts that are joined by /; "" where there is none."""
    if isinstance(node, ast.BinOp):
        return "/".join(text for text in (_path(node.left), _path(node.right)) if text)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


class _Values:
    """The values that stand in a module as text, those of its names too."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._path, self._steps = path, 0
        self._names: dict[str, ast.expr] = {}
        self._functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        changed = set[str]()
        opened = [item for node in ast.walk(tree) if isinstance(node, ast.With) for item in node.items]
        self._opened = {_named(one.optional_vars): one.context_expr for one in opened if one.optional_vars is not None}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in (one for one in node.targets if isinstance(one, ast.Name)):
                    changed |= {target.id} & self._names.keys()
                    self._names[target.id] = node.value
            elif (name := _changed(node)) is not None:
                changed.add(name)
        for name in changed:
            self._names.pop(name, None)
        self._items = {name: items for name, items in _assigned(tree).items() if name not in changed}

    def text(self, node: ast.expr | None) -> str | None:
        node = self._followed(node)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    def texts(self, node: ast.expr | None) -> _Lines | None:
        """The strings of a list with their places; None where something is not known."""
        node = self._followed(node)
        if isinstance(node, ast.List | ast.Tuple):
            found: _Lines = []
            for item in node.elts:
                inner = self.texts(item.value) if isinstance(item, ast.Starred) else self._item(item)
                if inner is None:
                    return None
                found += inner
            return found
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.texts(node.left), self.texts(node.right)
            return None if left is None or right is None else left + right
        if isinstance(node, ast.Call) and _named(node.func) in ("list", "tuple", "sorted") and len(node.args) == 1:
            return self.texts(node.args[0])
        if isinstance(node, ast.Call):
            return self._of_helper(node)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            return self.texts(self._entries(node.value).get(self.text(node.slice) or ""))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [(line.strip(), Where(self._path, node.lineno)) for line in node.value.split("\n") if line.strip()]
        return None

    def _of_helper(self, call: ast.Call) -> _Lines | None:
        """Of `helper("a", "b")` where that is `def helper(*names): return [table[name] for name in names]`."""
        function = self._functions.get(_named(call.func))
        last = function.body[-1] if function is not None else None
        made = last.value if isinstance(last, ast.Return) else None
        if function is None or function.args.vararg is None or not isinstance(made, ast.ListComp):
            return None
        loop, table = made.generators[0], made.elt
        if len(made.generators) > 1 or loop.ifs or _named(loop.iter) != function.args.vararg.arg:
            return None
        if not isinstance(table, ast.Subscript) or _named(table.slice) != _named(loop.target):
            return None
        found = [self._by_name(ast.Subscript(table.value, argument, ast.Load())) for argument in call.args]
        return None if None in found else [line for lines in found for line in lines or ()]

    def table(self, node: ast.expr | None) -> dict[str, _Lines]:
        """The lists of a table that are known, by name."""
        found = {}
        for name, value in self._entries(node).items():
            if value is not None and (lines := self.texts(value)) is not None:
                found[str(canonicalize_name(name))] = lines
        return found

    def _entries(self, node: ast.expr | None) -> dict[str, ast.expr | None]:
        """What stands in a table, and what is assigned to its items later."""
        items = self._items.get(node.id, {}) if isinstance(node, ast.Name) else {}
        node = self._followed(node)
        pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
        return {**{name: value for key, value in pairs if (name := self.text(key)) is not None}, **items}

    def file_of(self, node: ast.expr | None) -> str | None:
        """The one requirement file that an expression, or a function that it calls, names; None for none or several."""
        node = self._followed(node)
        if node is None:
            return None
        calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
        called: list[ast.AST] = [
            self._functions[name] for one in calls if (name := _named(one.func)) in self._functions
        ]
        named = [_named(one) for one in ast.walk(node) if isinstance(one, ast.Name)]
        called += [self._opened[name] for name in named if name in self._opened]
        every = [one for part in (node, *called) for one in ast.walk(part)]
        divided = [one for one in every if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Div)]
        inner = {part for one in divided for part in (one.left, one.right)}
        texts = {_path(one) for one in every if isinstance(one, ast.Constant | ast.BinOp) and one not in inner}
        files = {one for one in texts if re.fullmatch(r"[\w./-]+\.(txt|in)", one)}
        return files.pop() if len(files) == 1 else None

    def _item(self, node: ast.expr) -> _Lines | None:
        if isinstance(node, ast.Subscript):
            return self._by_name(node)
        text = self.text(node)
        return None if text is None else [(text, Where(self._path, node.lineno))]

    def _by_name(self, node: ast.Subscript) -> _Lines | None:
        """The requirement of a list for `table["name"]`, where the table is made of that list, as Hugging Face does."""
        table, name = self._followed(node.value), self.text(node.slice)
        if not isinstance(table, ast.DictComp) or name is None:
            return None
        lists = (self.texts(one) for one in ast.walk(table) if isinstance(one, ast.Name))
        lines = next((found for found in lists if found), [])
        wanted = canonicalize_name(name)
        fits = (
            one for one in lines if canonicalize_name(re.split(r"[^A-Za-z0-9._-]", one[0], maxsplit=1)[0]) == wanted
        )
        found = next(fits, None)
        return None if found is None else [found]

    def _followed(self, node: ast.expr | None) -> ast.expr | None:
        """What a name stands for, however many there are on the way."""
        while isinstance(node, ast.Name) and self._steps < _MOST_STEPS:
            self._steps += 1
            node = self._names.get(node.id)
        return node
