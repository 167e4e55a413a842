#!/usr/bin/env python3
"""__NAME__: what it does, in one sentence.

The methods stand first; below them is what every extension needs: the protocol, version 1, with the standard library
only. A method's parameters are its arguments, by name and type; one that is called `call` is not sent: it is this
call's deadline, cancellation and progress.
"""

import collections
import inspect
import json
import os
import socket
import stat
import struct
import sys
import threading
import time

EXTENSION, VERSION = "__NAME__", "__VERSION__"


def greet(name: str) -> str:
    """Greets somebody by name."""
    if not name:
        raise Fault(INVALID_ARGUMENT, "`name` is empty")
    return f"Hello, {name}!"


def count_primes(call: "Call", below: int) -> int:
    """Counts the primes below a number: work that is long enough to be watched, cancelled, and too late."""
    count = 0
    for number in range(2, below):
        call.check()  # Ends the call as soon as nobody waits for its answer.
        call.progress(number, below - 1, "looking for primes")
        count += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    return count


# Each method: may it be called again after an unknown outcome, and do equal arguments always give the equal result?
METHODS = {greet: {"idempotent": True, "pure": True}, count_primes: {"idempotent": True, "pure": True}}


# ---- What a method sees of its call ------------------------------------------------------------------------------

FAILED, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, UNKNOWN_METHOD, UNSUPPORTED, PANICKED = range(1, 8)
CANCELLED, DEADLINE_EXCEEDED, BUSY, DRAINING, TOO_LARGE, IO = range(8, 14)

MESSAGE_BYTES_MAX = 4096  # of a fault
PROGRESS_SECONDS_MIN = 0.1  # between two reports of one call


class Fault(Exception):
    """A failed call, in a clause for people. `retry`: "never", "now", or {"after-ms": 100}."""

    def __init__(self, code, message, retry="never"):
        super().__init__(message)
        self.code, self.retry = code, retry

    def body(self):
        # The name of a file need not be UTF-8, and is often what a fault is about.
        message = str(self).encode(errors="backslashreplace")[:MESSAGE_BYTES_MAX].decode(errors="ignore")
        return {"code": self.code, "origin": "extension", "retry": self.retry, "message": message}


class Call:
    """One call: its deadline, its cancellation, its progress."""

    def __init__(self, report=lambda progress: None, deadline=None):
        self.report, self.deadline, self.began = report, deadline, time.monotonic()
        self.cancelled = threading.Event()
        self.reported = None

    def check(self):
        """For loops: raises where the caller cancelled, or waits no longer."""
        if self.cancelled.is_set():
            raise Fault(CANCELLED, "the caller cancelled the call")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise Fault(DEADLINE_EXCEEDED, "the call's deadline passed before it was done", "now")

    def progress(self, done, total=None, message=""):
        """Says how far the call is. Cheap to call often: only some of it is sent."""
        now = time.monotonic()
        if self.reported is None or now - self.reported >= PROGRESS_SECONDS_MIN or done == total:
            self.reported = now
            self.report({"done": done, "total": total, "message": message})


# ---- MessagePack -------------------------------------------------------------------------------------------------


def pack(value):
    """One value. The widest form of each type is always right."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return b"\xd3" + struct.pack(">q", value) if value < 0 else b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"\xdb" + struct.pack(">I", len(text)) + text
    if isinstance(value, (bytes, bytearray)):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, dict):
        pairs = (pack(key) + pack(item) for key, item in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pairs)
    if isinstance(value, (list, tuple)):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    raise TypeError(f"{type(value).__name__} cannot be sent")


SCALARS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
           0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
SIZED = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
         0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


def unpack(data):
    """The one value in `data`."""
    value, end = unpack_at(data, 0)
    if end != len(data):
        raise ValueError("there is more than one value")
    return value


def unpack_at(data, at):
    """The value at `at`, and where it ends."""

    def number(form):
        return struct.unpack_from(form, data, at + 1)[0], at + 1 + struct.calcsize(form)

    def part(length, at):
        if at + length > len(data):
            raise ValueError("a value is cut off")
        return data[at:at + length], at + length

    def items(count, at):
        out = []
        for _ in range(count):
            value, at = unpack_at(data, at)
            out.append(value)
        return out, at

    def pairs(count, at):
        flat, at = items(2 * count, at)
        return dict(zip(flat[::2], flat[1::2])), at

    def text(length, at):
        raw, at = part(length, at)
        return raw.decode(), at

    tag = part(1, at)[0][0]
    if tag < 0x80:
        return tag, at + 1
    if tag < 0x90:
        return pairs(tag & 15, at + 1)
    if tag < 0xA0:
        return items(tag & 15, at + 1)
    if tag < 0xC0:
        return text(tag & 31, at + 1)
    if tag >= 0xE0:
        return tag - 256, at + 1
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], at + 1
    if tag in SCALARS:
        return number(SCALARS[tag])
    if tag not in SIZED:
        raise ValueError(f"{tag:#x} is not used in version 1")
    count, at = number(SIZED[tag])
    if tag <= 0xC6:
        return part(count, at)
    if tag <= 0xDB:
        return text(count, at)
    return items(count, at) if tag <= 0xDD else pairs(count, at)


# ---- Frames ------------------------------------------------------------------------------------------------------

HEADER = struct.Struct("<IBBBBIIQQ")  # length kind codec flags descriptors epoch method id aux
HELLO, WELCOME, READY, CALL, REPLY, FAULT, CANCEL, PROGRESS = range(1, 9)
PING, PONG, DRAIN, GOODBYE, HEARTBEAT = 15, 16, 20, 21, 22
MORE, METADATA, SEGMENT = 1, 2, 4
MESSAGE_PACK = 1
FRAME_BODY_BYTES_MAX = 1 << 20
HEARTBEAT_SECONDS = 5

Message = collections.namedtuple("Message", "kind codec flags descriptors method id aux body")


class Channel:
    """Whole messages over a socket. Any thread may send; one receives."""

    def __init__(self, connection, epoch=0):
        self.socket, self.epoch, self.lock = connection, epoch, threading.Lock()
        self.file, self.begun, self.message_bytes_max = connection.makefile("rb"), {}, 256 << 20

    def receive(self):
        """The next message; None at the end of the stream. Frames of several messages may be mixed."""
        while len(head := self.file.read(HEADER.size)) == HEADER.size:
            length, kind, codec, flags, descriptors, epoch, method, id, aux = HEADER.unpack(head)
            if length > FRAME_BODY_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes")
            body = self.file.read(length)
            if kind != HELLO and epoch != self.epoch:
                continue
            first = Message(kind, codec, flags, descriptors, method, id, aux, bytearray())
            first = self.begun.setdefault((kind, id), first)
            first.body.extend(body)
            if len(first.body) > self.message_bytes_max:
                raise ValueError(f"a message of more than {self.message_bytes_max} bytes")
            if not flags & MORE:
                return self.begun.pop((kind, id))
        return None

    def send(self, kind, id=0, body=b"", method=0, aux=0):
        for frame in self.frames(kind, id, body, method, aux):
            with self.lock:
                self.socket.sendall(frame)

    def send_last(self, kind, body):
        """Sends, and ends the process before anybody can send more."""
        sys.stdout.flush()
        with self.lock:
            for frame in self.frames(kind, 0, body, 0, 0):
                self.socket.sendall(frame)
            os._exit(0)

    def frames(self, kind, id, body, method, aux):
        """One frame, or several for a body that is longer than a frame's."""
        starts = range(0, len(body), FRAME_BODY_BYTES_MAX) or [0]
        for start in starts:
            part = body[start:start + FRAME_BODY_BYTES_MAX]
            more = MORE if start + len(part) < len(body) else 0
            codec = MESSAGE_PACK if body else 0
            yield HEADER.pack(len(part), kind, codec, more, 0, self.epoch, method, id, aux) + part


# ---- The extension -----------------------------------------------------------------------------------------------


def arguments_of(function, body):
    """The arguments in a call's body, checked against the function's parameters."""
    try:
        value = unpack(body) if body else {}
    except (ValueError, struct.error, RecursionError, TypeError) as error:
        raise Fault(INVALID_ARGUMENT, f"the arguments are no value: {error}") from error
    parameters = {name: it for name, it in inspect.signature(function).parameters.items() if name != "call"}
    if list(parameters) == ["request"]:
        return {"request": value}
    if not isinstance(value, dict):
        raise Fault(INVALID_ARGUMENT, "the arguments are no map of their names")
    arguments = {}
    for name, parameter in parameters.items():
        if name in value:
            arguments[name] = value[name]
        elif parameter.default is parameter.empty:
            raise Fault(INVALID_ARGUMENT, f"argument `{name}` is missing")
        if name in value and parameter.annotation in TYPES and not is_of(value[name], parameter.annotation):
            raise Fault(INVALID_ARGUMENT, f"argument `{name}` is not of the type {TYPES[parameter.annotation]}")
    return arguments


TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def is_of(value, annotation):
    if isinstance(value, bool) or annotation is bool:
        return isinstance(value, bool) and annotation is bool
    return isinstance(value, (int, float) if annotation is float else annotation)


def fault_of(error):
    """The body of the fault for whatever was raised. The author's mistake is this call's, not the extension's."""
    try:
        if isinstance(error, Fault):
            return pack(error.body())
        what = repr(error)
    except Exception as mistake:  # The fault itself cannot be sent, or not even be shown.
        what = f"{type(error).__name__}, which cannot be sent: {type(mistake).__name__}"
    return pack(Fault(PANICKED, f"the method failed: {what}").body())


class Server:
    """The running extension: each call on a thread of its own, so that cancelling reaches it."""

    def __init__(self, channel):
        self.channel, self.methods = channel, list(METHODS)
        self.calls, self.lock, self.is_draining = {}, threading.Lock(), False
        self.in_flight_max, self.answers_under_way = 1, 0

    def greet(self):
        """The handshake. None: done; else the exit code."""
        message = self.channel.receive()
        if message is None or message.kind != HELLO:
            return 1
        hello = unpack(message.body)
        self.channel.epoch, self.in_flight_max = hello["epoch"], hello["in_flight_max"]
        self.channel.message_bytes_max = hello["message_bytes_max"]
        if 1 not in hello["versions"] or hello["extension"] != EXTENSION:
            self.channel.send(GOODBYE, 0, pack({"reason": f"this is {EXTENSION}, protocol version 1"}))
            return 1
        methods = [{"name": method.__name__, "schema_hash": 0, **traits} for method, traits in METHODS.items()]
        welcome = {"version": 1, "features": [], "extension": EXTENSION, "extension_version": VERSION,
                   "epoch": hello["epoch"], "nonce": hello["nonce"], "methods": methods}
        self.channel.send(WELCOME, 0, pack(welcome))
        self.channel.send(READY, 0, pack({}))
        return None

    def serve(self):
        """Until the host is done. Gives the exit code."""
        threading.Thread(target=self.beat, daemon=True).start()
        while message := self.channel.receive():
            if message.kind == CALL:
                self.begin(message)
            elif message.kind == CANCEL:
                with self.lock:
                    call = self.calls.get(message.id)
                if call:
                    call.cancelled.set()
            elif message.kind == PING:
                self.channel.send(PONG, message.id)
            elif message.kind == DRAIN:
                with self.lock:
                    self.is_draining = True
                self.leave_if_done()
            elif message.kind == GOODBYE:
                return 0
        return 0

    def begin(self, message):
        deadline = time.monotonic() + message.aux / 1e6 if message.aux else None
        report = lambda progress: self.channel.send(PROGRESS, message.id, pack(progress))
        call = Call(report, deadline)
        refusal = None
        with self.lock:
            if self.is_draining:
                refusal = Fault(DRAINING, "the extension was told to finish and takes no new calls", "now")
            elif len(self.calls) >= self.in_flight_max:
                refusal = Fault(BUSY, "more calls are in flight than were announced", {"after-ms": 10})
            else:
                self.calls[message.id] = call
        if refusal:
            self.channel.send(FAULT, message.id, pack(refusal.body()))
        else:
            threading.Thread(target=self.answer, args=(message, call), daemon=True).start()

    def answer(self, message, call):
        """Answers one call, once, whatever happens."""
        try:
            result = pack(self.run(message, call))
            if len(result) > self.channel.message_bytes_max:
                raise Fault(TOO_LARGE, f"the result has {len(result)} bytes")
            answer = REPLY, result
        except BaseException as error:  # `sys.exit` too: it would end this thread only, and say nothing to anybody.
            answer = FAULT, fault_of(error)
        # Off the table before the answer is sent: with it the host may send the next call.
        with self.lock:
            del self.calls[message.id]
            self.answers_under_way += 1
        self.channel.send(answer[0], message.id, answer[1])
        with self.lock:
            self.answers_under_way -= 1
        self.leave_if_done()

    def run(self, message, call):
        body = bytes(message.body)
        if message.flags & SEGMENT or message.descriptors or message.codec not in (0, MESSAGE_PACK):
            raise Fault(UNSUPPORTED, "this extension takes arguments as MessagePack in the message only")
        if message.method >= len(self.methods):
            raise Fault(UNKNOWN_METHOD, f"there is no method number {message.method}")
        if message.flags & METADATA:
            body = body[4 + struct.unpack_from("<I", body)[0]:]
        function = self.methods[message.method]
        arguments = arguments_of(function, body)
        if "call" in inspect.signature(function).parameters:
            arguments["call"] = call
        call.check()
        return function(**arguments)

    def leave_if_done(self):
        """The last word after the last answer."""
        with self.lock:
            is_done = self.is_draining and not self.calls and not self.answers_under_way
        if is_done:
            self.channel.send_last(GOODBYE, pack({"reason": "drained"}))

    def beat(self):
        """So that busy and hung look different."""
        while True:
            now = time.monotonic()
            with self.lock:
                ages = [now - call.began for call in self.calls.values()]
            beat = {"running": len(ages), "oldest_ms": int(1000 * max(ages, default=0))}
            try:
                self.channel.send(HEARTBEAT, 0, pack(beat))
            except OSError:
                return  # The host is gone; whoever receives learns it as well.
            time.sleep(HEARTBEAT_SECONDS)


def describe():
    def schema(annotation):
        return {"type": TYPES[annotation]} if annotation in TYPES else {}

    def described(function, traits):
        signature = inspect.signature(function)
        parameters = {name: it for name, it in signature.parameters.items() if name != "call"}
        arguments = {"type": "object",
                     "properties": {name: schema(it.annotation) for name, it in parameters.items()},
                     "required": [name for name, it in parameters.items() if it.default is it.empty]}
        return {"name": function.__name__, "documentation": inspect.getdoc(function) or "", "schema_hash": 0,
                "arguments_schema": json.dumps(arguments),
                "result_schema": json.dumps(schema(signature.return_annotation)), **traits}

    methods = [described(function, traits) for function, traits in METHODS.items()]
    interface = {"name": EXTENSION, "documentation": inspect.getdoc(sys.modules[__name__]) or "",
                 "methods": methods}
    return {"version": 1, "extension": EXTENSION, "extension_version": VERSION, "protocol_versions": [1],
            "interfaces": [interface]}


def main():
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(describe()))
        return 0
    try:
        is_started_by_a_host = stat.S_ISSOCK(os.fstat(0).st_mode) and len(sys.argv) == 1
    except OSError:
        is_started_by_a_host = False
    if not is_started_by_a_host:
        print(f"{EXTENSION} is an extension of Symphony: conductor call {EXTENSION}.METHOD", file=sys.stderr)
        return 2
    channel = Channel(socket.socket(fileno=os.dup(0)))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)  # So that nothing else reads from the channel.
    os.close(null)
    server = Server(channel)
    code = server.greet()
    return server.serve() if code is None else code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Calls that nobody waits for must not hold up the end.
