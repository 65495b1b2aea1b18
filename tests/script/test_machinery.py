"""What scripts carry is the code of builder/embedded/, shorter: nothing in it does anything else."""

from __future__ import annotations

import ast
import io
import tokenize

import pytest

from builder.script.machinery import compact, without_comments
from tests.conftest import ROOT

MODULES = sorted((ROOT / "builder/embedded").glob("*.py"))
TRICKY = '''\
"""Docs # not a comment."""
from __future__ import annotations
from a import (b, unused,
    c)
from d import e as f  # a comment
import g
TEXT = """
from typing import List
    # kept

  as it is"""  # gone
RAW = r"\\" + 'it\\'s #' + "#" '"' # gone "
EMPTY = '' """#"""
LONG = (b,
    "(", c,  # gone (
  )
def h(one: int, *two: "str",
      three: dict[str, int] = {}) -> None:
  two: int = 1
  "# Docs."
  if one: \\
      return f
  else:
          # gone
          for i in [1,
2]:
            pass
  return f"{one}#{two!r}"
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", [*(path.read_text() for path in MODULES), TRICKY], ids=[*(p.stem for p in MODULES), "tricky"]
)
def test_what_runs_is_the_same(source: str) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(without_comments(source)).readline)
    assert [token.string for token in tokens if token.type == tokenize.COMMENT] == []
    assert ast.dump(_bare(compact(source))) == ast.dump(_bare(source))


def test_what_is_tricky_comes_to_this() -> None:
    assert compact(TRICKY).startswith(
        "from __future__ import annotations\nfrom a import b,c\nfrom d import e as f\nimport g\n"
        'TEXT="""\nfrom typing import List\n    # kept\n\n  as it is"""\n'
    )
    assert compact(TRICKY).endswith(
        '\nLONG=(b,"(",c,)\ndef h(one,*two,three={}):\n two=1\n if one:\\\nreturn f\n else:\n'
        '  for i in [1,2]:\n   pass\n return f"{one}#{two!r}"\n'
    )


def _bare(source: str) -> ast.Module:
    """A module without what is no code: documentation, types, and imports that only these need."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                kept = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
                setattr(node, field, kept or [ast.Pass()])
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.fix_missing_locations(ast.Module(_Untyped().visit(tree).body, []))


class _Untyped(ast.NodeTransformer):
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return node if node.value is None else ast.Assign([node.target], node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]  # their types can mean something
        node.body = [one if one in fields else self.visit(one) for one in node.body]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return node if node.module == "__future__" else None
