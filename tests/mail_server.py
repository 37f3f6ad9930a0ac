"""A real SMTP server on a free port of this machine, and mail backends that fail."""

from __future__ import annotations

import email
import email.policy
import socket

import django
from aiosmtpd.controller import Controller
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


class MailServer:
    """Keeps what it is sent. `refuse` maps a recipient to the reply it gets instead."""

    def __init__(self):
        self.received = []
        self.refuse = {}
        self.hold = None
        """Called with the recipients once a mail is there, before it is accepted."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.hold:
            await self.hold(envelope.rcpt_tos)
        message = email.message_from_bytes(
            envelope.content, policy=email.policy.default
        )
        self.received.append((tuple(envelope.rcpt_tos), message))
        return "250 OK"

    @property
    def recipients(self):
        return sorted(
            address for addresses, _ in self.received for address in addresses
        )

    def __enter__(self):
        self._controller.start()
        return self

    def __exit__(self, *exc_info):
        self._controller.stop()


class FailsForOne(BaseEmailBackend):
    """Fails for ops@example.com, in a way that leaves open whether it was sent."""

    def send_messages(self, messages):
        if messages[0].to == ["ops@example.com"]:
            raise TimeoutError("timed out\r\nafter the data")
        mail.outbox.extend(messages)
        return len(messages)


class SendsNothing(BaseEmailBackend):
    """Sends nothing, and says so."""

    def send_messages(self, messages):
        return 0


def mail_settings(backend=LOCMEM, *, port=None):
    """Settings that send by `backend`, as this Django wants them to be said."""
    if django.VERSION >= (6, 1):
        options = {"host": "127.0.0.1", "port": port} if port else {}
        return {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    server = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port} if port else {}
    return {"EMAIL_BACKEND": backend, **server}
