"""`suffuse serve`: a TorchServe that runs until it is interrupted, and what its user needs to know of it."""

import logging
import shlex
import sys
from contextlib import nullcontext

from suffuse.serving.server import Beside, Server, run_until_signal
from suffuse.serving.settings import ServerConfig

_KEY_OF = 'import json, sys; print(json.load(open(sys.argv[1]))["inference"]["key"])'


def serve(config: ServerConfig, beside: Beside = nullcontext) -> None:
    """Serve until SIGINT or SIGTERM comes; to be called in the main thread.

    Logs go to stderr. When all models are ready, addresses, models and an example go to stdout.

    Args:
        config: what to serve and where.
        beside: what runs as long as the server is ready, such as an autoscaler.

    Raises:
        ServerError: TorchServe does not start, a model does not load, or TorchServe ended by itself.
        BundleError: an archive is missing or unreadable.
    """
    log_to_stderr()
    run_until_signal(config, _announce, beside)


def log_to_stderr() -> None:
    """Have what is logged from now on go to stderr, one line each."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every poll for readiness


def _announce(server: Server) -> None:
    sys.stdout.write(announcement(server) + "\n")
    sys.stdout.flush()  # whoever waits for these lines may read them through a pipe


def announcement(server: Server) -> str:
    """The addresses, the models, where the keys are (never the keys), and a request to try."""
    lines = {
        "REST": server.url,
        "gRPC": server.grpc_url,
        "management": server.management_url,
        "metrics": server.metrics_url,
        "models": ", ".join(f"{archive.model} {archive.version}" for archive in server.archives),
        "keys": str(server.key_file) if server.needs_key else "none; anybody who reaches the ports may use them",
        "logs": str(server.state),
    }
    listing = "\n".join(f"  {name:<12}{value}" for name, value in lines.items())
    return f"ready; Ctrl-C stops it\n{listing}\ntry\n  {_example(server)}"


def _example(server: Server) -> str:
    """A curl line for the first model; it reads the key when it runs."""
    url = shlex.quote(f"{server.url}/predictions/{server.archives[0].model}")
    key = ""
    if server.needs_key:
        # Within double quotes the shell still runs $(...), and quotes inside that are of their own.
        command = shlex.join(["python3", "-c", _KEY_OF, str(server.key_file)])
        key = f'-H "Authorization: Bearer $({command})" '
    return f"""curl {url} {key}-H 'Content-Type: application/json' -d '{{"text": "a warm, funny film"}}'"""
