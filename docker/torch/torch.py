"""Stands in for torch in the serving image, where nothing computes with it and the real one takes 750 MB.

TorchServe's worker imports torch for one thing: an answer that is a tensor goes out as `torch.save` writes it. Handlers
of suffuse answer with strings. A handler that needs more of torch needs an image with the real one.
"""

from typing import Any, NoReturn

__version__ = "2.13.0+name.only"


class Tensor:
    """What no answer is an instance of."""


def save(*_: Any) -> NoReturn:  # noqa: ANN401 - torch's own signature is as wide
    """Nothing can be saved, since nothing is a tensor."""
    raise NotImplementedError("this image has no torch: serve handlers that need it from an image that installs torch")
