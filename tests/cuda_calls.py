"""Which functions of torch.cuda are called while something else runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import BuiltinFunctionType, FunctionType
from typing import Any
from unittest.mock import patch

import torch

ASKS_ONLY_THE_BUILD = "_is_compiled"
"""The function that says whether torch was built with CUDA, and does not touch the driver."""


@contextmanager
def recorded_cuda_calls() -> Iterator[list[str]]:
    """Yield a list, to which the names of the functions that are called in the block are added."""
    called: list[str] = []

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            called.append(name)
            return function(*arguments, **options)

        return call

    with ExitStack() as patches:
        for module, prefix in ((torch.cuda, ""), (torch._C, "_cuda")):
            for name, function in list(vars(module).items()):
                is_function = isinstance(function, FunctionType | BuiltinFunctionType)
                if is_function and name.startswith(prefix) and name != ASKS_ONLY_THE_BUILD:
                    patches.enter_context(patch.object(module, name, recording(name, function)))
        yield called
