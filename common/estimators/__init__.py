"""Systems as scikit-learn's estimators: `Encoder`. Loads on first use."""

from counterpoint.common.lazy import lazy_exports

_EXPORTS = {"Encoder": "counterpoint.common.estimators.encoder"}

__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
