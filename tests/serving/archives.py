"""A model store with a model that echoes, made by hand."""

import json
import zipfile
from pathlib import Path

HANDLER = """
import json, os, time

class Noop:
    def initialize(self, context):
        pass

    def handle(self, requests, context):
        bodies = [request.get("data") or request.get("body") for request in requests]
        return [self.answer(body, index, context) for index, body in enumerate(bodies)]

    def answer(self, body, index, context):
        row = json.loads(bytes(body)) if isinstance(body, (bytes, bytearray)) else body
        context.set_response_content_type(index, "application/json")
        if row == {}:
            context.set_response_status(422, "Unprocessable Entity", index)
            return '{"error": {"code": "missing_field", "message": "no text", "status": 422}}'
        if row == {"do": "raise"}:
            raise ValueError("as told")
        if row == {"do": "threads"}:
            row = os.environ["SUFFUSE_THREADS"]
        if row == {"do": "wait"}:
            while not os.path.exists("RELEASE"):
                time.sleep(0.01)
        return json.dumps({"echo": row})
"""


def write_archive(store: Path, name: str, handler: str) -> None:
    """A .mar by hand."""
    model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py", "configFile": "model-config.yaml"}
    config = "minWorkers: 1\nmaxWorkers: 2\nbatchSize: 1\njobQueueSize: 1\n"
    with zipfile.ZipFile(store / f"{name}.mar", "w") as members:
        members.writestr("handler.py", handler)
        members.writestr("model-config.yaml", config)
        members.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
