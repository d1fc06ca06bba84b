"""The application: routes of the OpenAI protocol over one model, with what it takes to run it in the open."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from hippodrome.generate import tape
from hippodrome.generate.decoder import owned, tensors
from hippodrome.generate.engine import Engine
from hippodrome.generate.prefix_cache import PrefixCache
from hippodrome.models.base import Model
from hippodrome.runs import Run
from hippodrome.serve import answers, choices, translate
from hippodrome.serve.errors import ApiError, documented, encode, from_validation
from hippodrome.serve.limits import Gate
from hippodrome.serve.listening import Listening
from hippodrome.serve.metrics import Metrics
from hippodrome.serve.protocol import ChatRequest, CompletionRequest
from hippodrome.serve.settings import Settings
from hippodrome.serve.spelling import Spelling
from hippodrome.serve.stream import EventStream, unless_gone
from hippodrome.text.folder import byte_words

T = TypeVar("T")
ERRORS = documented(400, 401, 404, 408, 413, 429, 500, 503, 504)
# FastAPI would write its own form of a faulty field into the schema, which is answered with 400 here.
ERRORS["4XX"] = ERRORS[400]
STREAM: dict[int | str, Any] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
READERS = 2
"""Texts that are turned into tokens at once."""
SLACK = 30.0
"""Seconds that a client may take to read the rest of a stream after the deadline of its answer."""


class Service:
    """What the routes share: the engine, the counts, and what is known of the model."""

    def __init__(self, run: Run, settings: Settings) -> None:
        words = run.words
        if words is None and run.tokenizer is not None:
            words = byte_words(run.tokenizer)
        vocab_size = getattr(run.model, "vocab_size", None)
        if words is None or vocab_size is None:
            raise ValueError(
                f"{run.folder} holds no language model of text, and only such a one is served. Name a run "
                "trained on text, or a checkpoint with its tokenizer."
            )
        self.settings = settings
        self.served = translate.Served(words, vocab_size)
        self.spelling = Spelling(words.tokenizer)
        self.engine = Engine(
            run.model,
            words.tokenizer,
            most_rows=settings.max_batch,
            most_waiting=settings.queue,
            context=settings.context,
            cache=PrefixCache(settings.cache_bytes) if settings.cache_bytes else None,
            threads=settings.threads,
        )
        self.metrics = Metrics(self.engine)
        self.created = int(time.time())
        self.pace = 1.0
        self.readers = CapacityLimiter(READERS)

    def card(self) -> dict[str, Any]:
        """The model as /v1/models tells it."""
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self.created,
            "owned_by": "hippodrome",
        }

    async def read(self, how: Callable[..., T], asked: Any) -> T:
        """A request in tokens; not on the loop's own thread, where others want to be answered meanwhile."""
        return await to_thread.run_sync(how, asked, self.served, self.settings, limiter=self.readers)

    async def answer(self, asked: Any, prompts: list[translate.Prompt], request: Request) -> Response:
        """A whole answer, or a stream of it."""
        begun = time.monotonic()
        form = choices.Form(asked, prompts, self.spelling, self.settings.name, secrets.token_hex(12))
        listening = Listening(self.engine, prompts, self.pace)
        listening.start()
        told = self._timed(form, listening, begun)
        if asked.stream:
            return EventStream(form.chunks(told), self.settings.deadline + SLACK, listening.stop)
        whole = await unless_gone(request.receive, form.whole(told))
        if whole is None:
            # Nobody reads it; it is counted.
            return Response(status_code=499)
        return Response(encode(whole), media_type="application/json")

    async def _timed(self, form: choices.Form, listening: Listening, begun: float) -> AsyncIterator[Any]:
        """The events, with the times that they take counted."""
        first = ended = None
        try:
            async for happened in listening.events():
                if first is None and form.is_text(happened.event):
                    first = time.monotonic()
                    self.metrics.first_token.observe(first - begun)
                yield happened
            ended = time.monotonic()
        finally:
            listening.stop()
            if ended is not None:
                self.metrics.whole.observe(ended - begun)
                self.pace += 0.1 * (ended - begun - self.pace)
                if first is not None and form.written > 1:
                    longest = max(form.counts.values())
                    self.metrics.next_token.observe((ended - first) / max(1, longest - 1))


@torch.no_grad()
def warm_up(model: Model) -> None:
    """Runs a few tokens, for a few rows, and records one, as the engine will: kernels are compiled then, and
    not while the first client waits."""
    device = next(model.parameters()).device
    for rows in (1, 8):
        ids = torch.zeros(rows, 8, dtype=torch.int64, device=device)
        _, state = model.last(ids, model.init_state(rows, 16))
        own = owned(state)
        model.advance_(ids[:, 0], own)
        if tape.refusal(ids, True) is None:
            # What cannot be recorded will not be by the engine either.
            with suppress(RuntimeError, tape.Unheld):
                tape.Replay(partial(model.advance_, state=own), ids[:, 0], list(tensors(own)), model)


def create_app(run: Run, settings: Settings | None = None) -> FastAPI:
    """The application that serves the model of a run; its engine starts at once and ends with the lifespan.

    ``app.state.service`` is the ``Service`` inside.

    Raises:
        ValueError: a model that is none of text, or settings out of their range.
    """
    settings = Settings() if settings is None else settings
    settings.check()
    service = Service(run, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await to_thread.run_sync(warm_up, run.model)
        yield
        await to_thread.run_sync(service.engine.close, settings.grace)

    # No pages of documentation: they would load their scripts from elsewhere.
    app = FastAPI(title="Hippodrome", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Gate, settings=settings, count=service.metrics.count)
    _errors(app)
    _routes(app, service)
    return app


def _routes(app: FastAPI, service: Service) -> None:
    settings = service.settings
    guarded = [Depends(HTTPBearer(auto_error=False))] if settings.api_key is not None else []

    @app.get("/health", responses={503: {"model": answers.Health}})
    async def health() -> answers.Health:
        """Whether the server takes requests."""
        if service.engine.closing:
            return Response(encode({"status": "closing"}), 503, media_type="application/json")  # type: ignore[return-value]
        return answers.Health(status="ok")

    @app.get("/metrics", response_class=Response, dependencies=guarded, responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: ERRORS[401],
    })  # fmt: skip
    async def metrics() -> Response:
        """What was counted, for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", dependencies=guarded, responses={401: ERRORS[401]})
    async def models() -> answers.ModelList:
        """The model that is served."""
        return answers.ModelList.model_validate({"object": "list", "data": [service.card()]})

    @app.get(
        "/v1/models/{name:path}", dependencies=guarded, responses={k: ERRORS[k] for k in (401, 404, "4XX")}
    )
    async def model(name: str) -> answers.ModelCard:
        """The model of this name."""
        translate.check_model(name, settings)
        return answers.ModelCard.model_validate(service.card())

    @app.post(
        "/v1/completions",
        dependencies=guarded,
        response_model=answers.CompletionAnswer,
        responses={**STREAM, **ERRORS},
    )
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        """Goes on with texts."""
        translate.check_model(asked.model, settings)
        prompts = await service.read(translate.completion, asked)
        return await service.answer(asked, prompts, request)

    @app.post(
        "/v1/chat/completions",
        dependencies=guarded,
        response_model=answers.ChatAnswer,
        responses={**STREAM, **ERRORS},
    )
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """Goes on with a conversation."""
        translate.check_model(asked.model, settings)
        prompt = await service.read(translate.chat, asked)
        return await service.answer(asked, [prompt], request)


def _errors(app: FastAPI) -> None:
    """Whatever goes wrong is told in the protocol's form."""

    @app.exception_handler(ApiError)
    async def ours(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def faulty(_: Request, error: RequestValidationError) -> Response:
        return from_validation(list(error.errors())).response()

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> Response:
        words = {
            404: f"there is nothing at {request.url.path[:200]}",
            405: f"{request.url.path[:200]} does not take {request.method}",
        }
        message = words.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return ApiError(500, f"the server failed: {type(error).__name__}", code="internal_error").response()
