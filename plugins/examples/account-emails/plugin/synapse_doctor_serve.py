"""Serves checks to the host: how a plugin starts, is asked, and ends. An author calls serve and nothing else of it.

Needed are grpcio and protobuf, and the program openssl. plugin.proto says what both sides keep to.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent import futures
from typing import Any, Callable, Iterator, Sequence

import plugin_pb2 as pb
from synapse_doctor_plugin import Cancelled, Check, Life, Operation, Report, Skip, Stopped, Target

PROTOCOL = 1
MAX_MESSAGE = 16 << 20
COOKIE = ("SYNAPSE_DOCTOR_PLUGIN", "5f0a1c2e-doctor-plugin")


def sentence(error: BaseException) -> str:
    """An error in words, without a character that UTF-8 does not have."""
    server = getattr(error, "diag", None)  # what PostgreSQL says, without the lines in which it points into the statement
    text = f"{server.message_primary} (SQLSTATE {error.pgcode})" if server and server.message_primary else str(error)
    text = " ".join(text.split()) or "no reason was given"
    if not isinstance(error, (RuntimeError, Skip, Cancelled, Stopped)):
        text = f"{type(error).__name__}: {text}"
    return text.encode("utf-8", "replace").decode()[:4000]


class _Plugin:
    """The service doctor.v1.Plugin."""

    def __init__(self, name: str, version: str, checks: Sequence[Check]) -> None:
        self._checks = {c.id: c for c in checks}
        self._description = pb.DescribeResponse(name=name, version=version, checks=[
            pb.CheckInfo(
                id=c.id, title=c.title, why=c.why, needs=c.needs, plans=c.plan is not None, operations=sorted(c.operations), changes=c.changes,
                codes=[pb.Code(id=code.id, title=code.title, severity=code.severity) for code in c.codes])
            for c in checks])

    def describe(self, request: Any, context: Any) -> Any:
        return self._description

    def check(self, request: Any, context: Any) -> Iterator[Any]:
        if len(set(request.checks)) < len(request.checks):
            _abort(context, "INVALID_ARGUMENT", "a check is asked for twice")
        checks = [self._known(context, id) for id in request.checks]
        events: queue.Queue[Any] = queue.Queue(maxsize=100)
        targets = {check.id: _target(context, request, Life()) for check in checks}
        _on_end(context, lambda: [target.life.end() for target in targets.values()])
        limit = request.deadline.ToTimedelta().total_seconds() if request.HasField("deadline") else None
        for check in checks:
            threading.Thread(target=self._run, args=(check, targets[check.id], limit, events), daemon=True).start()
        began, running = time.monotonic(), set(targets)
        while running and context.is_active():
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=0.2)
                if event.check in running:
                    if event.HasField("done"):
                        running.remove(event.check)
                    yield event
            if limit and time.monotonic() - began > limit + 0.5:  # what can't be ended is left behind
                for id in sorted(running):
                    yield pb.CheckResponse(check=id, done=pb.Done(status=pb.STATUS_UNKNOWN, reason="its time is over, and it did not end"))
                running = set()

    @staticmethod
    def _run(check: Check, target: Target, limit: float | None, events: queue.Queue[Any]) -> None:
        began, life, report = time.monotonic(), target.life, None

        def put(event: Any) -> None:
            while True:  # nobody reads on when the call has ended
                with contextlib.suppress(queue.Full):
                    return events.put(event, timeout=0.2)
                life.check()

        done = pb.Done(status=pb.STATUS_OK)
        timer = threading.Timer(limit, life.end, ["its time is over"]) if limit else None
        try:
            if timer:
                timer.daemon = True
                timer.start()
            report = Report(check.id, target, put)
            check.run(target, report)
            done.coverage = report.coverage
        except Skip as skip:
            done = pb.Done(status=pb.STATUS_SKIPPED, reason=sentence(skip))
        except BaseException as error:  # one check must not cost the others
            if not isinstance(error, Cancelled) and not life.over.is_set():
                traceback.print_exc()
            done = pb.Done(status=pb.STATUS_UNKNOWN, reason=life.why if life.over.is_set() else sentence(error))
        finally:
            if timer:
                timer.cancel()
        done.duration.FromMicroseconds(int((time.monotonic() - began) * 1e6))
        with contextlib.suppress(Cancelled):
            put(pb.CheckResponse(check=check.id, done=done))

    def plan(self, request: Any, context: Any) -> Iterator[Any]:
        check = self._known(context, request.check)
        life = Life()
        _on_end(context, life.end)
        target = _target(context, request, life)
        with _errors(context):
            for plan in (check.plan(target, request.findings) if check.plan else None) or ():
                yield pb.PlanResponse(plan=plan)

    def execute(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests)
        if not first.HasField("start"):
            _abort(context, "INVALID_ARGUMENT", "an operation begins with start")
        check = self._known(context, first.start.check)
        work = check.operations.get(first.start.step.name)
        if work is None:
            _abort(context, "NOT_FOUND", f"the check {check.id} has no operation {first.start.step.name}")
        life = Life()
        _on_end(context, life.end)
        target = _target(context, first.start, life)
        said: queue.Queue[Any] = queue.Queue()
        operation = Operation(life, said.put)
        threading.Thread(target=operation.listen, args=(requests,), daemon=True).start()
        with futures.ThreadPoolExecutor(1) as pool:
            result = pool.submit(work, target, first.start.step, first.start.resume, operation)
            result.add_done_callback(lambda _: said.put(None))
            while (message := said.get()) is not None:
                yield message
            with _errors(context):
                result.result()

    def _known(self, context: Any, id: str) -> Check:
        if id not in self._checks:
            _abort(context, "NOT_FOUND", f"there is no check {id}")
        return self._checks[id]


def _on_end(context: Any, end: Callable[[], Any]) -> None:
    if not context.add_callback(end):
        end()


def _target(context: Any, request: Any, life: Life) -> Target:
    try:
        return Target(request.target, life)
    except ValueError as error:
        _abort(context, "INVALID_ARGUMENT", str(error))


def _abort(context: Any, code: str, text: str, detail: Any = None) -> None:
    """Ends the call with a status, and a detail as google.rpc.Status has it: code 1, message 2, details 3."""
    import grpc

    status = grpc.StatusCode[code]
    if detail is not None:
        from google.protobuf import any_pb2

        packed = any_pb2.Any()
        packed.Pack(detail)
        body = bytes([0x08, status.value[0]]) + _field(2, text.encode()) + _field(3, packed.SerializeToString())
        context.set_trailing_metadata((("grpc-status-details-bin", body),))
    context.abort(status, text)


def _field(number: int, data: bytes) -> bytes:
    n, length = len(data), b""
    while n > 0x7F:
        length, n = length + bytes([n & 0x7F | 0x80]), n >> 7
    return bytes([number << 3 | 2]) + length + bytes([n]) + data


@contextlib.contextmanager
def _errors(context: Any) -> Iterator[None]:
    """Makes of an exception what plugin.proto says of errors."""
    try:
        yield
    except Skip as skip:
        _abort(context, "FAILED_PRECONDITION", sentence(skip), pb.Skipped(reason=sentence(skip)))
    except Stopped as stopped:
        _abort(context, "ABORTED", sentence(stopped), pb.Stopped(hint=sentence(stopped)))
    except Cancelled as cancelled:
        _abort(context, "CANCELLED", sentence(cancelled))
    except Exception as error:
        traceback.print_exc()
        _abort(context, "UNKNOWN", sentence(error))


def _handlers(plugin: _Plugin, end: Callable[[], None]) -> list[Any]:
    import grpc

    def health(request: bytes, context: Any) -> bytes:  # HealthCheckRequest{service = 1} → HealthCheckResponse{SERVING}
        if request not in (b"", b"\x0a\x06plugin"):
            _abort(context, "NOT_FOUND", "no such service")
        return b"\x08\x01"

    def watch(request: bytes, context: Any) -> Iterator[bytes]:
        yield health(request, context)
        ended = threading.Event()
        if context.add_callback(ended.set):
            ended.wait()

    def shutdown(request: bytes, context: Any) -> bytes:  # plugin.Empty → plugin.Empty
        context.add_callback(end)  # once it is answered
        return b""

    def method(make: Any, call: Any, request: Any) -> Any:
        return make(call, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString())

    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    services = {
        "doctor.v1.Plugin": {
            "Describe": method(unary, plugin.describe, pb.DescribeRequest),
            "Check": method(stream, plugin.check, pb.CheckRequest),
            "Plan": method(stream, plugin.plan, pb.PlanRequest),
            "Execute": method(grpc.stream_stream_rpc_method_handler, plugin.execute, pb.ExecuteRequest),
        },
        "grpc.health.v1.Health": {"Check": unary(health), "Watch": stream(watch)},
        "plugin.GRPCController": {"Shutdown": unary(shutdown)},
    }
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


# P-256, as the other side: any other kind of key costs tens of milliseconds.
_CERTIFICATE = ["openssl", "req", "-x509", "-batch", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
                "-subj", "/O=synapse-doctor/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "-", "-out", "-"]


def serve(name: str, version: str, checks: Sequence[Check]) -> None:
    """Answers the host until it ends the plugin, and then exits the process. It never returns."""
    if os.environ.pop(COOKIE[0], "") != COOKIE[1]:
        sys.exit(f"{name} {version} is a plugin of synapse-doctor and does nothing on its own. To try it:\n"
                 f"    synapse-doctor check --dev-plugin {sys.argv[0]}")
    stdout = os.dup(1)
    os.dup2(2, 1)  # stdout is for the handshake alone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the host's business
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    host, sockets = os.environ.pop("PLUGIN_CLIENT_CERT", ""), os.environ.get("PLUGIN_UNIX_SOCKET_DIR", "")
    if not host or not sockets:
        sys.exit(f"plugin {name} could not start: the host gave no certificate, or no directory for the socket")
    try:  # openssl works while grpc is loaded, which takes ten times as long
        openssl = subprocess.Popen(_CERTIFICATE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        sys.exit(f"plugin {name} could not start: openssl can't be run: {error}")
    import grpc

    pem, complaint = openssl.communicate()
    if openssl.returncode != 0:
        sys.exit(f"plugin {name} could not start: openssl made no certificate: {' '.join(complaint.decode(errors='replace').split())}")
    certificate = pem[pem.index(b"-----BEGIN CERTIFICATE-----"):]
    server = grpc.server(futures.ThreadPoolExecutor(64), handlers=_handlers(_Plugin(name, version, checks), over.set), options=[
        ("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)])
    socket = os.path.join(sockets, "plugin.sock")
    credentials = grpc.ssl_server_credentials([(pem, certificate)], root_certificates=host.encode(), require_client_auth=True)
    server.add_secure_port("unix:" + socket, credentials)
    server.start()
    der = "".join(certificate.decode().split("-----")[2].split()).rstrip("=")
    words = [w.replace("|", "").replace("\n", "") for w in (name, version)]
    os.write(stdout, "|".join(["1", str(PROTOCOL), "unix", socket, "grpc", der, "", *words]).encode() + b"\n")
    os.close(stdout)

    def until_the_host_ends() -> None:
        while os.read(0, 512):
            pass
        over.set()

    threading.Thread(target=until_the_host_ends, daemon=True).start()
    over.wait()
    server.stop(None).wait(1)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    os._exit(0)  # a check that goes on must not keep the process
