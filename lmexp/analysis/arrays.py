"""The types of arrays that the analysis computes with."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]
"""Which rows are meant, True or False for each."""
