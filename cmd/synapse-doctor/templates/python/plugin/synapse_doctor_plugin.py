"""What a plugin of synapse-doctor is written with: checks, what they are handed, and what they answer.

A plugin is a program that serves checks. This is a whole one:

    import plugin_pb2 as pb
    from synapse_doctor_plugin import Check, Code
    from synapse_doctor_serve import serve

    def run(target, report):
        for db in target.meeting(pb.NEED_SYNAPSE):
            with db.read() as cursor:
                cursor.execute("SELECT …")
                for name, in cursor:
                    report.find(pb.Finding(code="acme-bridges/behind", severity=pb.SEVERITY_WARNING, …))

    serve("acme", "1.2", [Check(
        id="acme-bridges", title="Bridges have room for their messages", why="A bridge that falls behind loses messages.",
        needs=[pb.NEED_SYNAPSE], codes=[Code("acme-bridges/behind", "a bridge is behind", pb.SEVERITY_WARNING)], run=run)])

What is said, and what it means, is in plugin.proto; its messages are in plugin_pb2. run and plan only read: what is to be
changed is a step of a plan, and the host carries it out. Print what you like: it goes to the host's debug log, as does the
traceback of an exception, and synapse-doctor check -v shows both.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import plugin_pb2 as pb


@dataclass(frozen=True)
class Code:
    """One fault that a check can find."""

    id: str  # check/kebab-fault, stable for ever
    title: str  # the fault in a few words
    severity: int  # the usual one


@dataclass(frozen=True)
class Check:
    """One concern that can be examined, and, where plan is given, mended."""

    id: str  # lower-case words joined by hyphens, unique among all plugins: begin it with the plugin's name
    title: str  # what is sound when the check is ok, in at most 60 characters
    why: str  # what an administrator loses when it is not
    needs: Sequence[int]  # what must be there before run is called
    codes: Sequence[Code]  # every code that run may report
    run: Callable[[Target, Report], None]
    plan: Callable[[Target, Sequence[Any]], Iterable[Any]] | None = None  # findings → pb.PlannedFix, any number: yield them
    operations: Mapping[str, Callable[[Target, Any, str, Operation], None]] = field(default_factory=dict)
    changes: Any = None  # pb.Effects: all that the plans may change; what goes beyond it is refused, so that plan needs it


class Skip(Exception):
    """The check, the plan or the operation does not apply here, and why."""


class Cancelled(Exception):
    """The administrator gave up, or the time is over."""


class Life:
    """How long a call is wanted. What it has begun on a server is ended with it."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.why = "given up"
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []

    def end(self, why: str = "given up") -> None:
        with self._lock:
            if self.over.is_set():
                return
            self.why = why
            self.over.set()
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(Exception):
                end()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            self.check()
            self._ends.append(end)
        try:
            yield
        finally:
            with self._lock:
                if end in self._ends:
                    self._ends.remove(end)

    def check(self) -> None:
        """Raises when nobody waits any more. Call it where work is long."""
        if self.over.is_set():
            raise Cancelled(self.why)


class Database:
    """One entry of the configuration's database section."""

    def __init__(self, message: Any, run_id: str, life: Life) -> None:
        self.message, self.label = message, message.label
        self._run_id, self._life = run_id, life

    def holds(self, store: str) -> bool:
        """Whether it carries the data store, main or state."""
        return not self.message.data_stores or store in self.message.data_stores

    def connect(self) -> Any:
        """A psycopg2 connection of your own, with exactly what was handed over."""
        import psycopg2  # takes as long as all else: only who needs it waits for it

        if not self.message.HasField("settings"):
            raise Skip("no login to the database was handed to this plugin")
        if self.message.os_user:
            raise RuntimeError(f"the database is reached as the system's user {self.message.os_user}, which this plugin can't do: give it a read_dsn")
        settings = {"passfile": os.devnull, "connect_timeout": "10", **self.message.settings.values}
        settings["application_name"] = "synapse-doctor/" + (self._run_id or str(os.getpid()))
        return psycopg2.connect(**settings)

    @contextlib.contextmanager
    def read(self) -> Iterator[Any]:
        """A cursor in a read-only transaction that sees one moment of the database."""
        self._life.check()
        connection = self.connect()
        try:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with self._life.ending(connection.cancel), connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


class Target:
    """What is examined: the homeserver's configuration and its databases."""

    def __init__(self, message: Any, life: Life) -> None:
        for d in message.databases:
            if d.engine not in (pb.ENGINE_POSTGRES, pb.ENGINE_SQLITE):
                raise ValueError(f"the engine of database {d.label} is not known to this plugin")
        self.message, self.life, self.server_name = message, life, message.server_name
        self.databases = [Database(d, message.run_id, life) for d in message.databases]

    def meeting(self, *needs: int) -> list[Database]:
        """The databases of which all of this holds. A check loops over these."""
        return [d for d in self.databases if set(needs) <= set(d.message.meets)]

    def database(self, label: str) -> Database:
        return next(d for d in self.databases if d.label == label)


class Report:
    """What a check tells while it runs."""

    def __init__(self, check: str, target: Target, put: Callable[[Any], None]) -> None:
        self.life, self.coverage = target.life, ""
        self._check, self._put, self._told = check, put, 0.0
        self._database = target.databases[0].label if len(target.databases) == 1 else ""

    def find(self, finding: Any) -> None:
        """Reports one fault. The database is filled in where there is just one."""
        self.life.check()
        finding.database = finding.database or self._database
        self._put(pb.CheckResponse(check=self._check, found=finding))

    def progress(self, text: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        self.life.check()
        if time.monotonic() - self._told > 0.05:
            self._told = time.monotonic()
            self._put(pb.CheckResponse(check=self._check, progress=pb.Progress(text=text, done=done, total=total, unit=unit)))

    def covered(self, text: str) -> None:
        """Says, in one line, how much of what there was has been examined."""
        self.coverage = text


class Operation:
    """What an operation can ask of the host."""

    def __init__(self, life: Life, put: Callable[[Any], None]) -> None:
        self.life = life
        self.stopping = threading.Event()  # end at the next point from which to go on, and raise Stopped
        self._put, self._number, self._answers = put, 0, queue.Queue()

    def listen(self, requests: Iterable[Any]) -> None:
        try:
            for request in requests:
                what = request.WhichOneof("message")
                if what == "cancel":
                    break
                if what == "stop":
                    self.stopping.set()
                else:
                    self._answers.put(request)
        except Exception:  # the call has ended
            pass
        self.life.end()

    def _answer(self, what: str) -> Any:
        while True:
            self.life.check()
            with contextlib.suppress(queue.Empty):
                answer = self._answers.get(timeout=0.1)
                if answer.WhichOneof("message") == what:
                    return getattr(answer, what)

    def progress(self, text: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        self._put(pb.ExecuteResponse(progress=pb.Progress(text=text, done=done, total=total, unit=unit)))

    def save(self, resume: str, rows: Iterable[tuple[str, str]]) -> None:
        """Returns when the host has the rows (table, JSON) and the token from which to go on on disk. Commit only after that."""
        self._number += 1
        saved = [pb.SavedRow(table=table, json=json) for table, json in rows]
        self._put(pb.ExecuteResponse(save=pb.SaveRows(number=self._number, resume=resume, rows=saved)))
        while (answer := self._answer("saved")).number != self._number:
            pass  # of a save that was given up
        if answer.error:
            raise RuntimeError("the host could not save: " + answer.error)

    def rows(self) -> Iterator[tuple[str, str]]:
        """The rows that this step has saved, in the order in which they were saved."""
        first, last = True, False
        while not last:
            self._put(pb.ExecuteResponse(read=pb.ReadRows(first=first)))
            page = self._answer("rows")
            if page.error:
                raise RuntimeError("the host could not read the rows that were saved: " + page.error)
            yield from ((row.table, row.json) for row in page.rows)
            first, last = False, page.last

    def document(self, name: str, text: str) -> None:
        """Hands over a text for the administrator, Markdown, that the host keeps as a file."""
        self._put(pb.ExecuteResponse(document=pb.Document(name=name, text=text)))


class Stopped(Exception):
    """An operation ended where it can go on, since it was asked to; the text says how to go on."""


def value(v: None | bool | int | str | bytes) -> Any:
    """An argument of a statement."""
    if v is None:
        return pb.Value(null=pb.Null())
    for kind, name in ((bool, "boolean"), (int, "integer"), (str, "text"), (bytes, "binary")):
        if isinstance(v, kind):
            return pb.Value(**{name: v})
    raise TypeError(f"a statement's argument can't be of type {type(v).__name__}")
