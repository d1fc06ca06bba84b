"""Continuous batching: requests join and leave between two tokens, on one thread that owns the model."""

import atexit
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import torch

from hippodrome.generate import _allocator, rows
from hippodrome.generate.batch import KEPT, Batch
from hippodrome.generate.decoder import grows
from hippodrome.generate.prefix_cache import PrefixCache
from hippodrome.generate.reading import Reading
from hippodrome.generate.request import Event, Failed, Notify, Request
from hippodrome.generate.row import Row
from hippodrome.models.base import Model
from hippodrome.text.folder import known_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BUDGET = 128
"""Tokens of prompts that are read between two tokens of those who write."""
ALONE = 512
"""The same where nobody writes."""


class Full(Exception):
    """As many requests are open as may be; one later may be taken."""


class Closed(Exception):
    """The engine takes no more requests."""


class Load(NamedTuple):
    """What an engine has to do, and what it has done since its start."""

    writing: int
    """Rows that get a token in each round."""
    reading: int
    """Rows whose prompts are being read."""
    waiting: int
    """Rows that nothing has been done for."""
    read: int
    """Tokens of prompts that were read."""
    cached: int
    """Tokens of prompts whose state was at hand."""
    written: int
    """Tokens written."""
    rounds: int
    """Tokens of the whole batch: each serves all rows that write."""
    state_bytes: int
    """Memory of the rows that write."""
    cache_bytes: int
    """Memory of the states that are kept for prompts to come."""


class Job:
    """A request that was handed in. ``cancel`` ends it, from any thread: nothing is told any more."""

    def __init__(self, request: Request, notify: Notify, seats: list[Row], now: float) -> None:
        self.request, self.seats = request, seats
        self.cancelled = False
        self.due = None if request.seconds is None else now + request.seconds
        self._notify = notify

    def cancel(self) -> None:
        """Ends the request before the next token."""
        self.cancelled = True

    def tell(self, events: list[Event]) -> None:
        """Hands events on, unless nobody listens any more."""
        for event in events:
            if not self.cancelled:
                self._notify(event)

    def fail(self, kind: str, message: str) -> None:
        """Tells that there will be no answer."""
        self.tell([Failed(kind, message)])
        self.cancelled = True


class Engine:
    """Answers requests for one model, all that are open a token at a time, together.

    In each round every row that writes gets one token, and at most ``BUDGET`` tokens of prompts are read,
    of one prompt after the other in turn: neither a long prompt nor a long answer holds the others up. What a
    request gets does not depend on who else is there, but for rounding. What goes wrong in a request ends
    that request alone.

    Args:
        model: put into evaluation mode.
        tokenizer: for the texts of rows; None where tokens are none.
        most_rows: rows that write or are read at once.
        most_waiting: rows beyond those, that wait.
        context: tokens of a prompt and its answer at most; None for no bound.
        cache: states of prompts to come; None keeps none.
        threads: of the model's kernels; None leaves the number as it is.

    Raises:
        ValueError: a number that is out of its range.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: "Tokenizer | None" = None,
        *,
        most_rows: int = 32,
        most_waiting: int = 64,
        context: int | None = None,
        cache: PrefixCache | None = None,
        threads: int | None = None,
    ) -> None:
        for name, value, least in (
            ("most_rows", most_rows, 1),
            ("most_waiting", most_waiting, 0),
            ("context", context, 1),
            ("threads", threads, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {least} or more; got {value}")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.most_rows, self.most_waiting, self.context = most_rows, most_waiting, context
        self.cache, self._threads = cache, threads
        self.vocab_size = int(getattr(model, "vocab_size", 0))
        known = None if tokenizer is None else known_ids(tokenizer)
        # Checkpoints pad their vocabularies: such ids are no tokens, and none is ever chosen.
        self._choices = self.vocab_size if known is None else min(known, self.vocab_size)
        self._grows = grows(model)
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._reading: deque[tuple[Job, Reading]] = deque()
        self._seats: list[tuple[Job, Row]] = []
        self._batch = Batch(model, most_rows)
        self._open = 0
        self._taking, self._stopped = True, False
        self._counts = {"read": 0, "cached": 0, "written": 0, "rounds": 0}
        self._thread = threading.Thread(target=self._run, name="hippodrome-engine", daemon=True)
        self._thread.start()
        # A thread in the midst of a kernel while the interpreter ends would take the process down with it.
        atexit.register(self.close)

    def submit(self, request: Request, notify: Notify) -> Job:
        """Takes a request in and returns at once; what comes of it is told to ``notify``.

        Raises:
            Full: so many are open that it would have no place to wait in.
            Closed: the engine is closing.
            ValueError: a request that cannot be answered.
        """
        self._check(request)
        request.sampler.check()
        seats = [Row(request, i, self._choices, self.tokenizer) for i in range(request.rows)]
        job = Job(request, notify, seats, time.monotonic())
        with self._changed:
            if not self._taking:
                raise Closed("the server is closing and takes no more requests.")
            if self._open + request.rows > self.most_rows + self.most_waiting:
                raise Full(
                    f"{self._open} answers are being written or waited for, and there is room for "
                    f"{self.most_rows + self.most_waiting}."
                )
            self._open += request.rows
            self._waiting.append(job)
            self._changed.notify()
        return job

    @property
    def closing(self) -> bool:
        """Whether no more requests are taken."""
        return not self._taking

    def load(self) -> Load:
        """How much there is to do and how much was done, as of now."""
        with self._changed:
            waiting = sum(job.request.rows for job in self._waiting)
            writing = len(self._seats)
            return Load(
                writing,
                self._open - waiting - writing,
                waiting,
                **self._counts,
                state_bytes=self._batch.bytes(),
                cache_bytes=0 if self.cache is None else self.cache.counts.bytes,
            )

    def close(self, seconds: float = 0.0) -> None:
        """Takes no more requests, goes on with what is open for so long, and fails what is left then."""
        with self._changed:
            self._taking = False
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _check(self, request: Request) -> None:
        total = len(request.ids) + request.max_tokens
        if not request.ids:
            raise ValueError("the prompt is empty: give at least one token to go on from")
        if request.max_tokens < 0 or request.rows < 1:
            raise ValueError("a request is for 0 or more tokens and 1 or more rows")
        if request.rows > self.most_rows:
            raise ValueError(f"at most {self.most_rows} answers are written at once; got {request.rows}")
        if self.context is not None and total > self.context:
            raise ValueError(
                f"prompt and answer together have at most {self.context} tokens; got {len(request.ids)} of "
                f"the prompt and {request.max_tokens} to come. Shorten the prompt or ask for less."
            )
        if self.vocab_size and not 0 <= min(request.ids) <= max(request.ids) < self.vocab_size:
            raise ValueError(
                f"token ids are from 0 to {self.vocab_size - 1}; the prompt has {min(request.ids)} to "
                f"{max(request.ids)}"
            )

    # Everything below runs on the engine's thread. The lists are changed under the lock, since `load` and
    # `submit` look at them; the model runs outside it.

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        with torch.no_grad():
            while self._wait():
                try:
                    self._round()
                except Exception as error:  # not of one request: memory, a device; the next may do better
                    self._fail_all("internal", f"the model failed: {_words(error)}")
        self._fail_all("closing", "the server is closing and did not come to the end of this answer.")

    def _wait(self) -> bool:
        """Until there is something to do; False at the end."""
        with self._changed:
            while not (self._waiting or self._reading or self._seats) and self._taking and not self._stopped:
                self._changed.wait()
            return not self._stopped and bool(self._waiting or self._reading or self._seats)

    def _round(self) -> None:
        room = self._batch.room
        self._sweep()
        self._admit()
        self._read()
        self._write()
        if self._batch.room <= KEPT < room:
            # Many rows have gone with their states, and the C library would keep that memory.
            _allocator.give_back()

    def _jobs(self) -> list[Job]:
        """All that are open."""
        begun = [job for job, _ in (*self._reading, *self._seats)]
        return list(dict.fromkeys([*self._waiting, *begun]))

    def _sweep(self) -> None:
        """Drops what was cancelled or is too late."""
        now = time.monotonic()
        for job in self._jobs():
            if not job.cancelled and job.due is not None and now >= job.due:
                job.fail("deadline", f"the answer was not complete within {job.request.seconds:g} seconds.")
            if job.cancelled:
                self._drop(job)

    def _drop(self, job: Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            for pair in [pair for pair in self._reading if pair[0] is job]:
                self._reading.remove(pair)
            self._open -= sum(not seat.ended for seat in job.seats)
            for place in reversed([i for i, (other, _) in enumerate(self._seats) if other is job]):
                self._leave(place)
        for seat in job.seats:
            seat.ended = True

    def _leave(self, place: int) -> None:
        """A row out of the batch; the last one takes its place."""
        self._batch.remove(place)
        last = self._seats.pop()
        if place < len(self._seats):
            self._seats[place] = last

    def _admit(self) -> None:
        """Those who wait, in their order, as there is room for all rows of the first."""
        taken = len(self._seats) + sum(job.request.rows for job, _ in self._reading)
        while self._waiting and taken + self._waiting[0].request.rows <= self.most_rows:
            with self._changed:
                job = self._waiting.popleft()
                reading = Reading(self.model, job.request, self._grows, self.cache)
                self._reading.append((job, reading))
            taken += job.request.rows

    def _read(self) -> None:
        budget = BUDGET if self._seats else ALONE
        while budget > 0 and self._reading:
            job, reading = self._reading[0]
            try:
                read = reading.go_on(budget)
            except Exception as error:
                job.fail("internal", f"the prompt could not be read: {_words(error)}")
                self._drop(job)
                continue
            budget -= max(1, read)
            self._counts["read"] += read
            if reading.done < len(job.request.ids):
                self._reading.rotate(-1)
            else:
                self._begin(job, reading)

    def _begin(self, job: Job, reading: Reading) -> None:
        """The first token of each row from the prompt's last logits, and a place in the batch."""
        self._counts["cached"] += reading.cached
        job.tell([reading.event()])
        with self._changed:
            self._reading.popleft()
        for seat in job.seats:
            going = job.request.max_tokens > 0 and not seat.complete
            events = self._choose(job, seat, reading.logits[0]) if going else seat.close()
            if events is None:
                return
            job.tell(events)
            with self._changed:
                if seat.ended:
                    self._open -= 1
                else:
                    self._batch.add(reading.state, reading.done, reading.slots)
                    self._seats.append((job, seat))

    def _choose(self, job: Job, seat: Row, logits: torch.Tensor) -> list[Event] | None:
        """What a row chooses; None where it could not, which ends its request."""
        try:
            events = seat.choose(logits)
        except Exception as error:
            kind = "invalid" if isinstance(error, ValueError) else "internal"
            job.fail(kind, f"no token could be chosen: {_words(error)}")
            self._drop(job)
            return None
        self._counts["written"] += 1
        return events

    def _write(self) -> None:
        if not self._seats:
            return
        logits = self._batch.next([seat.made[-1] for _, seat in self._seats]).cpu()
        self._counts["rounds"] += 1
        # A copy: rows may leave, and others move, while these are gone through.
        for i, (job, seat) in enumerate(list(self._seats)):
            if job.cancelled:
                continue
            events = self._choose(job, seat, logits[i])
            if events is None:
                continue
            if seat.ended:
                self._keep(job, seat, logits[i])
                with self._changed:
                    self._leave(next(p for p, (_, other) in enumerate(self._seats) if other is seat))
                    self._open -= 1
            job.tell(events)

    def _keep(self, job: Job, seat: Row, logits: torch.Tensor) -> None:
        """The state after an answer, for a conversation that goes on from it."""
        if self.cache is None:
            return
        place = next(p for p, (_, other) in enumerate(self._seats) if other is seat)
        ids = (*job.request.ids, *seat.made[:-1])
        state = self._batch.state(place)
        if self._grows:
            state = rows.cut(state, self.model.init_state(1, len(ids)))
        self.cache.put(ids, state, logits[None].clone())

    def _fail_all(self, kind: str, message: str) -> None:
        for job in dict.fromkeys(
            [*self._waiting, *(j for j, _ in self._reading), *(j for j, _ in self._seats)]
        ):
            job.fail(kind, message)
        with self._changed:
            self._waiting.clear()
            self._reading.clear()
            self._seats.clear()
            self._open = 0
            self._batch = Batch(self.model, self.most_rows)


def _words(error: Exception) -> str:
    """An error in a line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
