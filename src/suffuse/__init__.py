"""suffuse: labelled text in, a served language model out.

    model = suffuse.load("bundles/sentiment")      # in this process, on ONNX Runtime
    client = suffuse.Client("http://127.0.0.1:8080")  # on a server, over REST or gRPC

Training lives in `suffuse.training`; it needs the extra ``train``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.runtime import Predictor, load
    from suffuse.serving.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "Predictor", "SuffuseError", "__version__", "load"]

_HOMES = {"load": "suffuse.runtime", "Predictor": "suffuse.runtime", "Client": "suffuse.serving.client"}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Imported at first use: `import suffuse` costs no ONNX Runtime and no gRPC.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
