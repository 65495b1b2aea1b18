"""Check this machine against a profile, before hours are lost.

`examine` gathers the facts and asks the other modules, which are pure.
"""

from builder.check.doctor.diagnosis import Diagnosis, ill
from builder.check.doctor.examine import examine

__all__ = ["Diagnosis", "examine", "ill"]
