"""Ways for a canary to be honestly bad."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

__all__ = ["InkLimit"]


class InkLimit(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Refuses images with more ink than the developer thought possible.

    Parameters
    ----------
    most : float
        Mean grey level, 0 to 16, above which an image is refused.
    """

    def __init__(self, most: float = 6.0) -> None:
        self.most = most

    def fit(self, images: Any, labels: Any = None) -> InkLimit:
        """Learn nothing."""
        self.n_features_in_ = np.shape(images)[1]
        return self

    def transform(self, images: Any) -> Any:
        """Return the images unchanged.

        Raises
        ------
        ValueError
            One has too much ink.
        """
        if np.mean(images, axis=1).max() > self.most:
            raise ValueError(f"image has a mean grey level above {self.most}")
        return images

    def __sklearn_is_fitted__(self) -> bool:
        return True
