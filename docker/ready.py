"""Tells a container's health check whether every model has a READY worker, which TorchServe's own /ping does not say.

The server is asked at its management port on this machine, with the key that it wrote where it asks for one. The
standard library does: this runs every few seconds, on a busy machine too, and importing httpx costs more than asking.
"""

import http.client
import json
import sys
from pathlib import Path
from typing import Any

HOST, PORT = "127.0.0.1", 8081
KEY_FILE = Path("state/key_file.json")
"""In the container's working folder; absent where the server asks for no key."""

LIMIT_S = 8.0
MOST_MODELS = 100


def unready(host: str, port: int, key_file: Path) -> list[str]:
    """What is missing; nothing, where the server can answer for every model, of which it looks at `MOST_MODELS`.

    Raises:
        OSError, HTTPException, ValueError, KeyError: the server does not answer, or not as TorchServe does.
    """
    headers = {}
    if key_file.exists():
        headers["authorization"] = f"Bearer {json.loads(key_file.read_text('utf-8'))['management']['key']}"
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)

    def get(path: str) -> Any:  # noqa: ANN401 - parsed JSON
        connection.request("GET", path, headers=headers)
        return json.load(connection.getresponse())

    try:
        models = [model["modelName"] for model in get(f"/models?limit={MOST_MODELS}")["models"]]
        ready = [any(worker["status"] == "READY" for worker in get(f"/models/{name}")[0]["workers"]) for name in models]
    finally:
        connection.close()
    if not models:
        return ["no model is registered"]
    return [f"model {name} has no ready worker" for name, one in zip(models, ready, strict=True) if not one]


def main() -> int:
    """0 where every model is ready; otherwise 1, and why on stdout, where `docker inspect` finds it."""
    try:
        missing = unready(HOST, PORT, KEY_FILE)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        missing = [f"no answer from {HOST}:{PORT} that TorchServe would give ({type(error).__name__}: {error})"]
    sys.stdout.write("\n".join(missing or ["ready"]) + "\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
