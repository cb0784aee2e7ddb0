"""The command line of scripts/services."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from . import packages
from .containers import Container, docker_answers
from .errors import ServicesError, say
from .folder import Folder, Record
from .postgres import Postgres
from .rabbitmq import Rabbitmq
from .server import Given, Server

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = ("postgres", "rabbitmq")
VARIABLES = {"postgres": "ORCHESTRATOR_DATABASE_URL", "rabbitmq": "ORCHESTRATOR_AMQP_URL"}
MANAGEMENT = "ORCHESTRATOR_MANAGEMENT_URL"

DESCRIPTION = """\
PostgreSQL and RabbitMQ for this checkout.

Private servers in .services/, on free ports of 127.0.0.1, run without root's rights and beside whatever else runs on
this machine. A server whose URL is in the environment (ORCHESTRATOR_DATABASE_URL, ORCHESTRATOR_AMQP_URL) is used as it
is and never started or stopped. With --dir the environment is ignored: a private pair in that folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ServicesError as error:
        print(f"scripts/services: {error}", file=sys.stderr)
    except OSError as error:  # a full disk, a folder that is not ours: words enough, a traceback adds nothing
        print(f"scripts/services: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/services", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="the servers' folder (default: .services of this checkout)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("up", help="make both run and answer; running already is fine")
    down = verbs.add_parser("down", help="stop both; the data stays")
    down.add_argument("--wipe", action="store_true", help="delete the folder and the data, too")
    verbs.add_parser("status", help="say what runs; exit code 1 unless both answer")
    env = verbs.add_parser("env", help='print the variables for the engine: eval "$(scripts/services env)"')
    env.add_argument("--json", action="store_true")
    for verb, text in {
        "stop": "stop one server in an orderly way",
        "start": "start it again on the same data and ports",
        "kill": "end it by SIGKILL, as a crash would",
        "wipe": "start it again with no data: a new broker or database with the same URL",
    }.items():
        verbs.add_parser(verb, help=text).add_argument("server", choices=NAMES)
    control = verbs.add_parser("ctl", help="run rabbitmqctl against the private node: ctl -- list_queues")
    control.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _run(options: argparse.Namespace) -> int:
    folder = Folder(options.dir or CHECKOUT / ".services")
    given_allowed = options.dir is None
    folder.read()
    if options.verb in ("status", "env"):
        servers = _known(folder, given_allowed)
        return _status(servers) if options.verb == "status" else _env(servers, as_json=options.json)
    if options.verb == "ctl":
        arguments = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
        return _one(_known(folder, given_allowed), "rabbitmq").control(arguments)
    if options.verb == "up" and given_allowed and all(_given(folder, name) for name in NAMES):
        return _start(_known(folder, given_allowed))  # then there is no need for a folder
    with folder.locked():
        if options.verb == "up":
            return _up(folder, given_allowed)
        if options.verb == "down":
            return _down(folder, wipe=options.wipe)
        return _change(options.verb, _one(_known(folder, given_allowed), options.server))


def _given(folder: Folder, name: str) -> Given | None:
    """The server that the environment names, unless that is our own: whoever evaluated `env` has its URL there, too."""
    url = os.environ.get(VARIABLES[name])
    if not url:
        return None
    record = folder.records.get(name)
    if record and _place(_private(folder, name, record).environment()[VARIABLES[name]]) == _place(url):
        return None
    others = {MANAGEMENT: os.environ[MANAGEMENT]} if name == "rabbitmq" and MANAGEMENT in os.environ else {}
    return Given(name, VARIABLES[name], url, others)


def _place(url: str) -> str:
    """Server and login of a URL; another database or virtual host of it is still the same server."""
    return urlsplit(url).netloc


def _private(folder: Folder, name: str, record: Record) -> Server:
    if record.kind == "containers":
        return Container(folder, record, name)
    return Postgres(folder, record) if name == "postgres" else Rabbitmq(folder, record)


def _known(folder: Folder, given_allowed: bool) -> list[Server]:
    """The servers that are there already, given or private, running or not."""
    servers: list[Server] = []
    for name in NAMES:
        given = _given(folder, name) if given_allowed else None
        if given:
            servers.append(given)
        elif folder.somebody_elses:
            raise ServicesError(folder.somebody_elses)
        elif name in folder.records:
            servers.append(_private(folder, name, folder.records[name]))
    return servers


def _one(servers: list[Server], name: str) -> Server:
    for server in servers:
        if server.name == name:
            return server
    raise ServicesError(f"there is no {name} yet: scripts/services up")


def _up(folder: Folder, given_allowed: bool) -> int:
    if folder.why_afresh:
        say(folder.why_afresh)
    known = {server.name for server in _known(folder, given_allowed)}
    _choose(folder, [name for name in NAMES if name not in known])
    return _start(_known(folder, given_allowed))


def _start(servers: list[Server]) -> int:
    failures = _together(servers, lambda server: say(f"{server.name}: {server.start()}"))
    for failure in failures:
        print(f"scripts/services: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _choose(folder: Folder, names: list[str]) -> None:
    """Decide how each new server will run: installed programs, else installing them, else containers."""
    absent = [name for name in names if packages.folder_of(name) is None]
    kinds = dict.fromkeys(names, "processes")
    if absent:
        if packages.can_install():
            packages.install(absent)
        elif packages.ONLY_HERE not in os.environ and docker_answers():
            kinds.update(dict.fromkeys(absent, "containers"))
        else:
            raise packages.missing(absent)
    for name in names:
        _survivor(folder, name).wipe()
        ports = Postgres.ports if name == "postgres" else Rabbitmq.ports
        folder.remember(name, folder.new_record(name, kinds[name], ports))
        if kinds[name] == "containers":
            _survivor(folder, name).wipe()  # one of our name would have another password


def _together(servers: list[Server], action: Callable[[Server], None]) -> list[ServicesError | OSError]:
    """Do it for all servers at the same time; what went wrong."""
    failures: list[ServicesError | OSError] = []

    def attempt(server: Server) -> None:
        try:
            action(server)
        except (ServicesError, OSError) as error:
            failures.append(error)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        list(pool.map(attempt, servers))
    return failures


def _down(folder: Folder, *, wipe: bool) -> int:
    """Stop all that is ours, also servers that outlived their settings.json."""

    def end(server: Server) -> None:
        ran = server.pid() is not None
        if wipe:
            server.wipe()
        else:
            server.stop()
        say(f"{server.name}: {'stopped' if ran else 'does not run'}")

    failures = _together([_survivor(folder, name) for name in NAMES], end)
    for failure in failures:
        print(f"scripts/services: {failure}", file=sys.stderr)
    if failures:
        return 1
    if wipe or not folder.records:
        folder.delete()
    if wipe:
        say(f"{folder.path}: deleted")
    return 0


def _survivor(folder: Folder, name: str) -> Server:
    """The private server of this name, known or not: it is found by the folder's marker."""
    unknown = Record("processes", str(folder.path / name), {}, "")
    return _private(folder, name, folder.records.get(name, unknown))


def _change(verb: str, server: Server) -> int:
    if isinstance(server, Given):
        raise ServicesError(f"{server.name} is given by {server.variable}: not ours to {verb}")
    if verb == "stop":
        server.stop()
    elif verb == "kill":
        server.kill()
    elif verb == "wipe":
        server.wipe()
    if verb in ("start", "wipe"):
        say(f"{server.name}: {server.start()}")
    else:
        say(f"{server.name}: {'stopped' if verb == 'stop' else 'killed'}")
    return 0


def _status(servers: list[Server]) -> int:
    by_name = {server.name: server for server in servers}
    all_well = True
    for name in NAMES:
        server = by_name.get(name)
        where = server.status() if server else None
        say(f"{name}: {where or ('does not answer' if server and server.pid() else 'does not run')}")
        all_well = all_well and where is not None
    return 0 if all_well else 1


def _env(servers: list[Server], *, as_json: bool) -> int:
    for name in NAMES:
        _one(servers, name)
    variables: dict[str, str] = {}
    for server in servers:
        variables.update(server.environment())
    pids = [f"{server.name}={pid}" for server in servers if (pid := server.pid()) is not None]
    if pids:
        variables["ORCHESTRATOR_SERVICES_PIDS"] = ",".join(pids)
    if as_json:
        print(json.dumps(variables, indent=2))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0
