"""A mail server for the tests: takes mail on a port of its own and prints each as one line of JSON.

    smtp_server.py [--refuse N] [--user NAME --password WORD] [--starttls | --smtps] [--certificate FILE]

The first line printed is {"port": N}. With TLS a certificate for 127.0.0.1 is made and written to FILE. The first
N mails are refused for the moment (451). Ends when its standard input does.
"""

import argparse
import email
import email.header
import json
import logging
import ssl
import subprocess
import sys
import tempfile

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


def certificate(path):
    """Makes a certificate for 127.0.0.1 and answers the context of a server that has it."""
    with tempfile.NamedTemporaryFile(suffix=".key") as key:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
        command += ["-keyout", key.name, "-out", path]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, key.name)
        return context


def words(value):
    """A header's text: decoded, in one line."""
    return " ".join(str(email.header.make_header(email.header.decode_header(value))).split())


class Mailbox:
    def __init__(self, refuse, wrapped):
        self.refuse = refuse
        self.wrapped = wrapped

    async def handle_DATA(self, server, session, envelope):
        if self.refuse > 0:
            self.refuse -= 1
            return "451 4.3.0 come back later"
        mail = email.message_from_bytes(envelope.content)
        user = session.auth_data.decode() if session.auth_data else None
        seen = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": {name.lower(): words(value) for name, value in mail.items()},
            "text": mail.get_payload(decode=True).decode(),
            "tls": self.wrapped or session.ssl is not None,
            "user": user,
        }
        print(json.dumps(seen), flush=True)
        return "250 2.0.0 taken"


def main():
    # Clients that leave in the middle are part of the tests, not news.
    logging.disable()
    parser = argparse.ArgumentParser()
    parser.add_argument("--refuse", type=int, default=0)
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--starttls", action="store_true")
    parser.add_argument("--smtps", action="store_true")
    parser.add_argument("--certificate")
    args = parser.parse_args()
    settings = {}
    if args.starttls or args.smtps:
        context = certificate(args.certificate)
        if args.smtps:
            settings["ssl_context"] = context
        else:
            settings.update(tls_context=context, require_starttls=True)
    if args.user:
        def judge(server, session, envelope, mechanism, data):
            good = data.login == args.user.encode() and data.password == args.password.encode()
            return AuthResult(success=good, handled=False, auth_data=data.login)

        settings.update(authenticator=judge, auth_required=True, auth_require_tls=args.starttls)
    server = Controller(Mailbox(args.refuse, args.smtps), hostname="127.0.0.1", port=0, **settings)
    try:
        server.start()
    except OSError:
        # Older versions ask the port that they were given whether it answers; the server is up all the same.
        pass
    port = server.server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()


main()
