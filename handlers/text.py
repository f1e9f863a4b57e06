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
        bodies = [request.get("data", request.get("body")) for request in requests]
        replies = self.service.replies(bodies, _explained(requests, context))
        for index, reply in enumerate(replies):
            context.set_response_content_type(index, "application/json")
            for name, value in reply.headers.items():
                context.set_response_header(index, name, value)
            context.set_response_status(reply.status, reply.reason, index)
        return [reply.body for reply in replies]


def _explained(requests: list[dict[str, Any]], context: Any) -> dict[int, object]:  # noqa: ANN401
    """Which requests ask for an explanation, and the options beside their bodies.

    TorchServe marks those to /explanations with a header; over gRPC, where there is no such method, they have a second
    input.
    """
    return {
        index: request.get("explain")
        for index, request in enumerate(requests)
        if "explain" in request or context.get_request_header(index, "explain") == "True"
    }
