"""Tests the extension alone: its methods, and its life as a process with the test as its host."""

import os
import socket
import subprocess
import sys
import unittest

import extension
from extension import Call, Channel, Fault, Message, Server, pack, unpack


class Methods(unittest.TestCase):
    def test_it_greets_by_name(self):
        self.assertEqual(extension.greet("Ada"), "Hello, Ada!")

    def test_an_empty_name_is_the_callers_mistake(self):
        with self.assertRaises(Fault) as raised:
            extension.greet("")
        self.assertEqual(raised.exception.code, extension.INVALID_ARGUMENT)

    def test_long_work_says_how_far_it_is(self):
        reports = []
        self.assertEqual(extension.count_primes(Call(reports.append), 100), 25)
        self.assertEqual((reports[-1]["done"], reports[-1]["total"]), (99, 99))

    def test_long_work_ends_when_nobody_waits_for_it(self):
        call = Call(lambda progress: call.cancelled.set())
        with self.assertRaises(Fault) as raised:
            extension.count_primes(call, 1 << 60)
        self.assertEqual(raised.exception.code, extension.CANCELLED)
        with self.assertRaises(Fault) as raised:
            extension.count_primes(Call(deadline=0), 1 << 60)
        self.assertEqual(raised.exception.code, extension.DEADLINE_EXCEEDED)


class Failures(unittest.TestCase):
    """A call that gets no answer is lost: its caller waits until the deadline and never learns why."""

    def fault_of(self, method):
        """What the caller of this method is told."""
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        host, server = Channel(ours), Server(Channel(theirs))
        server.methods = [method]
        server.begin(Message(extension.CALL, 0, 0, 0, 0, 1, 0, b""))
        message = host.receive()
        for channel in (host, server.channel):
            channel.file.close()
            channel.socket.close()
        self.assertEqual((message.kind, message.id), (extension.FAULT, 1))
        return unpack(bytes(message.body))

    def test_a_method_that_wants_to_end_the_process_is_answered(self):
        fault = self.fault_of(lambda: sys.exit(3))
        self.assertEqual(fault["code"], extension.PANICKED)
        self.assertIn("SystemExit(3)", fault["message"])

    def test_a_fault_about_a_name_that_is_not_utf_8_is_answered(self):
        def absent():
            raise Fault(extension.NOT_FOUND, "no file \udc80")

        fault = self.fault_of(absent)
        self.assertEqual((fault["code"], fault["message"]), (extension.NOT_FOUND, "no file \\udc80"))

    def test_a_fault_or_a_result_that_cannot_be_sent_is_answered(self):
        def wrong():
            raise Fault(extension.FAILED, "no", retry=object())

        for method in (wrong, object, lambda: "\udc80", lambda: 1 << 64):
            self.assertEqual(self.fault_of(method)["code"], extension.PANICKED)


class Process(unittest.TestCase):
    EPOCH = 7

    def setUp(self):
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "extension.py")
        self.process = subprocess.Popen([sys.executable, script], stdin=theirs)
        theirs.close()
        self.channel = Channel(ours, self.EPOCH)
        hello = {"versions": [1], "features": [], "extension": extension.EXTENSION, "epoch": self.EPOCH,
                 "nonce": 1, "in_flight_max": 8, "message_bytes_max": 16 << 20}
        self.channel.send(extension.HELLO, 0, pack(hello))
        welcome = unpack(bytes(self.receive(extension.WELCOME).body))
        self.methods = [method["name"] for method in welcome["methods"]]
        self.receive(extension.READY)

    def tearDown(self):
        self.process.kill()
        self.process.wait()
        self.channel.file.close()
        self.channel.socket.close()

    def receive(self, *kinds):
        """The next message that is one of these."""
        while message := self.channel.receive():
            if message.kind in kinds:
                return message
        self.fail("the extension closed its channel")

    def call(self, id, method, **arguments):
        self.channel.send(extension.CALL, id, pack(arguments), method=self.methods.index(method))

    def answer(self):
        message = self.receive(extension.REPLY, extension.FAULT)
        return message.kind, message.id, unpack(bytes(message.body))

    def test_calls_are_answered(self):
        self.call(1, "greet", name="you")
        self.assertEqual(self.answer(), (extension.REPLY, 1, "Hello, you!"))
        self.call(2, "greet", name=7)
        kind, id, fault = self.answer()
        self.assertEqual((kind, id, fault["code"]), (extension.FAULT, 2, extension.INVALID_ARGUMENT))

    def test_frames_of_two_calls_may_be_mixed(self):
        greet = self.methods.index("greet")
        name = "x" * (3 << 19)
        first, last = self.channel.frames(extension.CALL, 1, pack({"name": name}), greet, 0)
        self.channel.socket.sendall(first)
        self.call(2, "greet", name="you")
        self.channel.socket.sendall(last)
        answers = {id: (kind, value) for kind, id, value in (self.answer(), self.answer())}
        self.assertEqual(answers[1], (extension.REPLY, f"Hello, {name}!"))
        self.assertEqual(answers[2], (extension.REPLY, "Hello, you!"))

    def test_a_long_call_is_cancelled_and_the_drain_ends_the_process(self):
        self.call(1, "count_primes", below=1 << 60)
        self.receive(extension.PROGRESS)
        self.channel.send(extension.DRAIN)
        self.channel.send(extension.CANCEL, 1)
        kind, id, fault = self.answer()
        self.assertEqual((kind, id, fault["code"]), (extension.FAULT, 1, extension.CANCELLED))
        self.receive(extension.GOODBYE)
        self.assertEqual(self.process.wait(60), 0)


if __name__ == "__main__":
    unittest.main()
