"""`suffuse playground`: the page on an address of this machine until it is interrupted."""

import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from suffuse.errors import InputError
from suffuse.playground.cards import style_sheet
from suffuse.playground.examples import EXAMPLES, read_examples
from suffuse.playground.models import Servers, open_models
from suffuse.playground.page import Playground, theme
from suffuse.playground.workers import Workers
from suffuse.serving.management import Management
from suffuse.unix_signals import on_signals


@dataclass(frozen=True)
class Settings:
    """What is shown and where.

    Args:
        sources: folders of bundles and addresses of servers.
        management: address of a server's management API; none is watched without.
        key_file: the server's key_file.json.
        examples: a file of rows; a few of our own by default.
        host: address to listen at.
        port: the same.
    """

    sources: tuple[str, ...]
    management: str = ""
    key_file: Path | None = None
    examples: str = ""
    host: str = "127.0.0.1"
    port: int = 7860


def run(settings: Settings) -> None:
    """Show the page until SIGINT or SIGTERM comes; its address goes to stdout. To be called in the main thread.

    Raises:
        InputError: no model was named, one cannot be opened, or the port is taken.
        ClientError: a server is not there, does not take the key, or has no such model.
    """
    over = threading.Event()
    with on_signals(over.set), ExitStack() as connections:
        management = None
        if settings.management:
            management = connections.enter_context(Management(settings.management, key_file=settings.key_file))
        known = management.models() if management else ()
        models = open_models(settings.sources, Servers(known, settings.key_file))
        examples = read_examples(settings.examples, models.values()) if settings.examples else EXAMPLES
        page = Playground(models, examples, Workers(management) if management else None).page()
        try:
            _, url, _ = page.launch(
                server_name=settings.host,
                server_port=settings.port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                theme=theme(),
                head=f"<style>{style_sheet()}</style>",
                footer_links=[],
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
            )
        except OSError:  # what Gradio says names its environment variable
            raise InputError(f"port {settings.port} of {settings.host} is taken; expected a free one: --port") from None
        connections.callback(page.close, verbose=False)
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        over.wait()
