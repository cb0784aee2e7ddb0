"""The database over TLS, by the options of libpq."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.db.session import Database
from orchestrator.errors import ServerUnavailableError
from tests.forwarder import place_of, through

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST"""


def make_certificate(folder: Path, name: str) -> Path:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@asynccontextmanager
async def behind_tls(database_url: str, certificate: Path) -> AsyncIterator[str]:
    """Serve TLS as PostgreSQL does, before a PostgreSQL that has none; provide the URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    host, port = place_of(database_url)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                return
            writer.write(b"S")
            await writer.start_tls(context)
            to_read, to_write = await asyncio.open_connection(host, port)
            await asyncio.gather(copy(reader, to_write), copy(to_read, writer))
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass  # a client that does not accept the certificate, or wants no TLS
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield through(database_url, server.sockets[0].getsockname()[1])
        await asyncio.wait(serving)


def open_by(url: str, options: str) -> Database:
    return Database(f"{url}?{options}", pool_size=1, connect_timeout=5, application_name="tests")


async def test_the_options_of_libpq_decide_about_tls(database_url: str, tmp_path: Path) -> None:
    own, other = make_certificate(tmp_path, "own"), make_certificate(tmp_path, "other")
    async with behind_tls(database_url, own) as url:
        for options in ("sslmode=require", "ssl=require", f"sslmode=verify-full&sslrootcert={own}"):
            database = open_by(url, options)
            await database.open()
            assert await database.pool.fetchval("SELECT 1") == 1
            async with database.transaction() as session:
                assert await session.connection() is not None
            await database.close()
        for options, words in (
            (f"sslmode=verify-full&sslrootcert={other}", "certificate verify failed"),
            ("sslmode=sometimes", "`sslmode` parameter must be one of"),
        ):
            database = open_by(url, options)
            with pytest.raises(ServerUnavailableError, match=words) as refused:
                await database.open()
            assert "\n" not in str(refused.value)
            await database.close()
