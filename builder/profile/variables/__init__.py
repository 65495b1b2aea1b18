"""The environment variables that a trainer's libraries read, and what is wrong with a setting of one of them.

Pure, and without profiles: names and values go in, findings come out.
"""

from builder.profile.variables.check import Acknowledgeable, Finding, advise, findings
from builder.profile.variables.known import FOLKLORE, KNOWN, Variable

__all__ = ["FOLKLORE", "KNOWN", "Acknowledgeable", "Finding", "Variable", "advise", "findings"]
