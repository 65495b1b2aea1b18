"""What the tests stand on: real wheels made on the spot, an index on loopback, and the program as a user runs it."""

from tests.support.index import Index
from tests.support.names import names_in
from tests.support.sandbox import Result, Sandbox, python_3_11, tool
from tests.support.shells import SHELLS
from tests.support.web import Web
from tests.support.wheels import make_sdist, make_wheel

__all__ = ["SHELLS", "Index", "Result", "Sandbox", "Web", "make_sdist", "make_wheel", "names_in", "python_3_11", "tool"]
