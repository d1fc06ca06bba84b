"""`hippodrome serve`: a model of text behind the OpenAI protocol, for any program that speaks it."""

from pathlib import Path
from typing import Annotated

import typer

from hippodrome.cli._opened import Precision, Threads, Tokenizer, opened, text_of, words_of
from hippodrome.cli._options import Device

PANEL = "Use a model"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder or checkpoint folder of a language model.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own need --api-key-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model. [default: FOLDER]")] = None,
    threads: Threads = None,
    dtype: Precision = None,
    tokenizer: Tokenizer = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Answers that are written at once.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Answers that wait; beyond them 429 is answered.")] = 64,
    context: Annotated[int, typer.Option(min=2, help="Tokens of prompt and answer at most.")] = 32768,
    deadline: Annotated[float, typer.Option(help="Seconds for a whole answer.")] = 600.0,
    cache_mb: Annotated[
        int, typer.Option(min=0, help="Megabytes of states kept for prompts that begin alike.")
    ] = 1024,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for open answers at the end.")] = 30.0,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key that clients must show.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja2 chat template, where the model came with none.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Serve a model: /v1/models, /v1/completions, /v1/chat/completions, /health and /metrics.

    Ctrl-C or SIGTERM stops it: open answers come to their end first.
    """
    from hippodrome.serve.app import create_app
    from hippodrome.serve.process import Process, check_address
    from hippodrome.serve.settings import Settings

    key = None if api_key_file is None else text_of(api_key_file).strip()
    if key is None and not _own(host):
        raise ValueError(
            f"--host {host} lets others in: give them a key with --api-key-file FILE, or listen at 127.0.0.1"
        )
    settings = Settings(
        name=name or run.resolve().name,
        max_batch=max_batch,
        queue=queue,
        context=context,
        deadline=deadline,
        cache_bytes=cache_mb << 20,
        grace=grace,
        threads=threads,
        api_key=key,
    )
    settings.check()
    check_address(host, port)
    found = opened(run, device, dtype, tokenizer)
    words = words_of(found)
    if chat_template is not None:
        from hippodrome.text.plain import with_source

        words = with_source(words, text_of(chat_template))
    app = create_app(found._replace(words=words), settings)

    def ready(address: str) -> None:
        typer.echo(f"Serving {settings.name} at {address}/v1 (Ctrl-C stops it)", err=True)

    Process(app, host, port, ready).run()


def _own(host: str) -> bool:
    """Whether an address is this machine's alone."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
