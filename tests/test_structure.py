"""Who may import whom, and what it costs to import: the two halves stay two only as long as something checks it."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "suffuse"

# Part of suffuse -> parts that it may import, third-party packages that it may use. `__init__` and `cli` may import
# all, the latter inside its functions only.
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "batching": (set(), {"numpy"}),
    "machine": (set(), set()),
    "unix_signals": (set(), set()),
    "rows": ({"errors"}, {"pyarrow", "fsspec"}),
    "tasks": ({"errors"}, {"numpy", "tokenizers"}),
    "card": ({"tasks"}, set()),
    "bundle": ({"card", "tasks", "errors"}, {"numpy"}),
    "diffusion": (set(), {"torch", "transformers"}),
    "training": (
        {"diffusion", "tasks", "batching", "machine", "rows", "errors"},
        {
            "numpy",
            "torch",
            "lightning",
            "transformers",
            "jsonargparse",
            "pyarrow",
            "filelock",
            "rich",
            "yaml",
            "peft",
            "matplotlib",
        },
    ),
    # explain, which builds on it, inside the two functions that hand a request for explanations on.
    "runtime": (
        {"bundle", "tasks", "batching", "machine", "rows", "errors", "explain"},
        {"numpy", "onnxruntime", "rich"},
    ),
    "explain": ({"runtime", "bundle", "tasks", "batching", "errors"}, {"numpy", "jinja2", "markupsafe", "matplotlib"}),
    "export": (
        {"training", "diffusion", "runtime", "bundle", "card", "tasks", "errors"},
        {"numpy", "torch", "transformers", "onnx", "onnxruntime"},
    ),
    "autoscale": (
        # The runtime and rows for profile.py and latency.py alone.
        {"serving", "runtime", "rows", "errors", "unix_signals"},
        {"numpy", "rich", "matplotlib", "httpx", "prometheus_client"},
    ),
    "balancing": ({"serving", "machine", "errors", "unix_signals"}, {"jinja2", "httpx"}),
    "load_test": (
        {"serving", "autoscale", "rows", "errors"},
        {"numpy", "locust", "gevent", "geventhttpclient", "grpc", "httpx", "jinja2", "prometheus_client"},
    ),
    "playground": ({"explain", "runtime", "serving", "bundle", "rows", "tasks", "errors", "unix_signals"}, {"gradio"}),
    "serving": (
        {"bundle", "machine", "errors", "unix_signals"},
        {"grpc", "google", "httpx", "tenacity", "psutil", "yaml", "rich"},
    ),
}
# The handler travels into an archive and imports the serving half there; its copy in serving is a link to it.
HANDLER = ({"runtime", "explain", "bundle", "errors"}, set[str]())
HEAVY = ("torch", "lightning", "transformers", "onnxruntime", "grpc", "numpy")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module under the part of suffuse that it belongs to."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).parts[0].removesuffix(".py"), path


def imports(path: Path) -> Iterator[str]:
    """Names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "suffuse":
                yield from (f"suffuse.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def test_every_part_of_suffuse_stands_in_the_table() -> None:
    assert {part for part, _ in modules()} == {*TABLE, "__init__", "cli", "commands"}


@pytest.mark.parametrize(
    ("part", "path"), [pytest.param(part, path, id=str(path.relative_to(SOURCE))) for part, path in modules()]
)
def test_imports_keep_to_the_table(part: str, path: Path) -> None:
    if part in {"__init__", "cli", "commands"}:
        return
    parts, packages = HANDLER if path.is_symlink() else TABLE[part]
    standard = sys.stdlib_module_names
    for name in imports(path):
        top, _, rest = name.partition(".")
        inside = rest.partition(".")[0]
        if top == "suffuse":
            assert inside in {*parts, part, "", "__version__"}, f"{path.name} imports {name}"
        else:
            assert top in {*packages, *standard}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [SOURCE / "cli.py", *sorted((SOURCE / "commands").glob("*.py"))], ids=lambda p: p.stem)
def test_command_line_imports_no_part_before_its_command_runs(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))

    at_the_top = [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]

    assert {name for name in at_the_top if name.startswith("suffuse.")} <= {"suffuse.errors", "suffuse.commands"}


@pytest.mark.parametrize("code", ["import suffuse", "from suffuse.cli import main; main(['--help'])"])
def test_import_and_help_load_nothing_heavy(code: str) -> None:
    check = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint([m for m in {HEAVY} if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [("-c", "import suffuse"), ("-m", "suffuse.cli", "--help")])
def test_import_and_help_take_less_than_seven_tenths_of_a_second(arguments: tuple[str, ...]) -> None:
    seconds = []
    for _ in range(5):  # the best of five: other load on the machine is not ours
        start_s = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start_s)

    assert min(seconds) < 0.7


@pytest.mark.parametrize(
    "module", ["suffuse.runtime", "suffuse.explain", "suffuse.serving.client", "suffuse.serving.server"]
)
def test_serving_half_loads_no_training_half(module: str) -> None:
    check = f"import sys, {module}; print([m for m in ('torch', 'lightning', 'transformers') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
