"""What this machine is: each source of facts has pure parsers, and one reader that hands them what is there."""

from builder.probe.detect import detect
from builder.probe.fit import Fit, fit
from builder.probe.machine import Gpu, Machine

__all__ = ["Fit", "Gpu", "Machine", "detect", "fit"]
