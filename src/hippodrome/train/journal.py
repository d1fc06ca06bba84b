"""The journal of a run, metrics.jsonl: one record a line, cut back to the checkpoint when a run resumes."""

import json
from pathlib import Path
from typing import Any

from hippodrome.train.checkpoint import write_atomically


class Journal:
    """Appends records to a file; ``None`` keeps them in memory only (all but one of several processes)."""

    def __init__(self, path: Path | None, step: int = 0) -> None:
        """Keeps what ``path`` holds up to ``step``, and drops the rest and a last line cut off by a kill."""
        self.path = path
        self.records: list[dict[str, Any]] = []
        if path is None:
            return
        if path.exists() and step:
            self.records = [r for r in read_journal(path) if r["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in self.records)
        self._guard(lambda: write_atomically(path, lambda file: file.write(text.encode())))
        self._file = path.open("a", encoding="utf-8")

    def add(self, record: dict[str, Any]) -> None:
        """Appends a record and hands it to the operating system at once."""
        self.records.append(record)
        if self.path is not None:
            self._guard(lambda: self._put(json.dumps(record) + "\n"))

    def close(self) -> None:
        """Closes the file."""
        if self.path is not None:
            self._file.close()

    def _put(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def _guard(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            raise OSError(
                f"the journal {self.path} could not be written ({error.strerror or error}). Make room there, "
                f"then resume"
            ) from None


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
