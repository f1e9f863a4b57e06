"""`suffuse serve`: answers over REST and gRPC."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

SUMMARY = "answer over REST and gRPC until interrupted"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("models", nargs="*", type=str, help="archives in the model store (default: all)")
    parser.add_argument("--model-store", type=str, default="model_store", help="folder of archives")
    parser.add_argument("--config", type=str, default="", help="settings of TorchServe (default: suffuse's own)")
    parser.add_argument("--workers", type=int, default=0, help="workers a model (default: as archived)")
    parser.add_argument("--threads", type=int, default=0, help="threads a worker (default: the cores, shared out)")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address of the inference and metrics ports")
    parser.add_argument("--port", type=int, default=8080, help="REST")
    parser.add_argument("--grpc-port", type=int, default=7070, help="gRPC")
    parser.add_argument("--management-port", type=int, default=8081, help="management over REST")
    parser.add_argument("--grpc-management-port", type=int, default=7071, help="management over gRPC")
    parser.add_argument("--metrics-port", type=int, default=8082, help="metrics for Prometheus")
    parser.add_argument("--state", type=str, default="", help="folder of keys and logs (default: .suffuse/serve-PORT)")


def run(settings: Namespace) -> None:
    """Run the command."""
    from suffuse.serving.run import serve
    from suffuse.serving.settings import ServerConfig

    serve(
        ServerConfig(
            Path(settings.model_store),
            tuple(settings.models) or ("all",),
            config=Path(settings.config) if settings.config else ServerConfig.config,
            workers=settings.workers or None,
            threads=settings.threads or None,
            host=settings.host,
            inference_port=settings.port,
            management_port=settings.management_port,
            metrics_port=settings.metrics_port,
            grpc_inference_port=settings.grpc_port,
            grpc_management_port=settings.grpc_management_port,
            state=Path(settings.state) if settings.state else None,
        )
    )
