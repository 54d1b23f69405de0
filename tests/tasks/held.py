"""A feed whose validation split is a batch that a test has made."""

from collections.abc import Iterator

import numpy as np

from lmexp.data.feeds import Batch


class Held:
    """Yields the samples of one batch."""

    def __init__(self, batch: Batch) -> None:
        self.rows = {name: values for name, values in batch.items() if values.ndim}
        self.validation_samples = len(self.rows["targets"])
        self.validation_examples = np.arange(self.validation_samples)

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed."""
        yield {name: values[samples] for name, values in self.rows.items()}
