"""``birder serve``: models behind a page and an interface over HTTP."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.progress import printable
from birder.errors import ConfigError, need
from birder.inference.options import Work
from birder.serving.settings import Limits, Settings, is_loopback

Several = Parameter(consume_multiple=True, negative=())


def serve(
    models: Annotated[Sequence[str], Several] = ("starter",),
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8000,
    token_file: Path | None = None,
    token: bool = True,
    origin: Annotated[Sequence[str], Several] = (),
    index: Annotated[Sequence[Path], Several] = (),
    names: Path | None = None,
    min_score: float | Literal["auto"] = 0.0,
    work: Annotated[Work, Parameter(name="*")] = Work(),  # noqa: B008
    limits: Annotated[Limits, Parameter(name="*")] = Limits(),  # noqa: B008
    open: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Serve models: a page where photographs are dropped, and an interface for programs.

    Prints one line, the address, when the first request can come. Nothing that is sent is stored, and nothing is
    fetched from elsewhere. Ctrl-C and SIGTERM stop it; what was accepted is finished.

    Exit code: 0 when it was stopped; 2 when it could not be started; 130 after a second Ctrl-C.

    Args:
        models: Names of published models, or model files, .pt or .safetensors; the first is the default; left out,
            starter.
        host: Address to listen at; 0.0.0.0 lets other computers in.
        port: 0 takes any that is free.
        token_file: File whose first line is the token that requests must bring; without one, and if other computers
            are let in, a random token is made, which stands in the address.
        token: Ask for a token where other computers are let in; --no-token lets in everyone who reaches this one.
        origin: Other sites whose pages may ask, such as https://birds.example.org; also the names by which a proxy
            before this server may call it.
        index: Tables that birder embed wrote, .parquet or .npy: among their pictures similar ones are found.
        names: CSV file of names in other languages: a column label, and one for each language, such as de or pt-BR.
        min_score: Pictures whose best score is lower are unsure; auto is the threshold that birder calibrate found.
        work: How pictures are read, and how networks compute.
        limits: How much is taken.
        open: Show the page in the browser.
    """
    for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        need(package, extra="serve", purpose="a server")
    settings = Settings(
        host=host,
        port=port,
        token=_token(token_file, host, wanted=token),
        origins=tuple(origin),
        limits=limits,
    )
    # What is wrong up to here is said at once; torch takes seconds to load.
    from birder.serving.server import Offer, serve

    offer = Offer(models=models, work=work, min_score=min_score, indexes=index, names=names)
    return serve(offer, settings, lambda address: _tell(address, show=open))


def _token(path: Path | None, host: str, *, wanted: bool) -> str:
    """The token that requests must bring; empty if they need none.

    Raises:
        ConfigError: The file cannot be read, or has no token.
    """
    if path is None:
        return "" if is_loopback(host) or not wanted else secrets.token_urlsafe(32)
    if not wanted:
        raise ConfigError("--token-file and --no-token contradict each other")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"--token-file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--token-file {path}: is no text") from error
    if not lines or not lines[0].strip():
        raise ConfigError(f"--token-file {path}: its first line must be the token, and is empty")
    return lines[0].strip()


def _tell(address: str, *, show: bool) -> None:
    print(printable(address), flush=True)
    if show:
        import webbrowser

        webbrowser.open(address)
