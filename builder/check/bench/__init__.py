"""Whether an environment and its settings keep their claims: two sides, run alternately, and compared."""

from builder.check.bench.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
