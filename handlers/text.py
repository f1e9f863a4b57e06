"""The class that TorchServe loads: it hands request bodies to the archive's own suffuse and passes the replies back."""

import sys
from typing import Any


class TextHandler:
    """Answers for one bundle; TorchServe makes one in each worker."""

    def initialize(self, context: Any) -> None:  # noqa: ANN401 - TorchServe's Context
        """Open the bundle that was unpacked from the archive."""
        folder = context.system_properties["model_dir"]
        # The archive carries the serving half of the suffuse that made it; an installed one may be of another version.
        sys.path.insert(0, folder)
        from suffuse.runtime import Service  # noqa: PLC0415 - not importable before the line above

        self.service = Service.open(folder, context.model_yaml_config)

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[str]:  # noqa: ANN401
        """One reply a request; it never raises, since an exception would fail the whole batch."""
        # "data" is what gRPC clients send, "body" a REST body.
        replies = self.service.replies([request.get("data", request.get("body")) for request in requests])
        for index, reply in enumerate(replies):
            context.set_response_content_type(index, "application/json")
            context.set_response_status(reply.status, reply.reason, index)
        return [reply.body for reply in replies]
