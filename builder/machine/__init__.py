"""What this machine is: each source of facts has pure parsers, and one reader that hands them what is there."""

from builder.machine.detect import detect
from builder.machine.fit import Fit, fit
from builder.machine.model import Gpu, Machine, OtherGpu

__all__ = ["Fit", "Gpu", "Machine", "OtherGpu", "detect", "fit"]
