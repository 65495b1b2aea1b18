"""Whether an environment and its settings do what is said of them: two sides, run alternately, and compared."""

from builder.check.bench.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
