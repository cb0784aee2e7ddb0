"""The command line of scripts/services."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from . import packages
from .errors import ServicesError, say
from .folder import Folder, Record
from .postgres import Postgres
from .rabbitmq import Rabbitmq
from .server import Given, Private, Server

CHECKOUT = Path(__file__).resolve().parents[2]
KINDS: dict[str, type[Postgres | Rabbitmq]] = {"postgres": Postgres, "rabbitmq": Rabbitmq}
VARIABLES = {"postgres": "ORCHESTRATOR_DATABASE_URL", "rabbitmq": "ORCHESTRATOR_AMQP_URL"}
MANAGEMENT = "ORCHESTRATOR_MANAGEMENT_URL"

DESCRIPTION = """\
PostgreSQL and RabbitMQ for this checkout.

Private servers in .services/, on free ports of 127.0.0.1 which they keep, run without root's rights and beside whatever
else runs on this machine. A server whose URL is in the environment (ORCHESTRATOR_DATABASE_URL, ORCHESTRATOR_AMQP_URL) is
used as it is and never started or stopped. With --dir the environment is ignored: a private pair in that folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (ServicesError, OSError) as error:  # a full disk, say: a traceback would add nothing
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
        verbs.add_parser(verb, help=text).add_argument("server", choices=KINDS)
    control = verbs.add_parser("ctl", help="run rabbitmqctl against the private node: ctl -- list_queues")
    control.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _run(options: argparse.Namespace) -> int:
    folder = Folder(options.dir or CHECKOUT / ".services")
    given_allowed = options.dir is None
    folder.read()
    servers = _known(folder, given_allowed)
    if options.verb == "status":
        return _status(servers)
    if options.verb == "env":
        return _env(servers, as_json=options.json)
    if options.verb == "ctl":
        return _control(servers, options.arguments)
    if (
        options.verb == "up"
        and all(isinstance(server, Given) for server in servers.values())
        and len(servers) == len(KINDS)
    ):
        return _start(servers)  # no folder is needed
    packages.check_platform()
    with folder.locked():
        if options.verb == "up":
            return _up(folder, given_allowed)
        if options.verb == "down":
            return _down(folder, wipe=options.wipe)
        return _change(options.verb, _one(_known(folder, given_allowed), options.server))


def _known(folder: Folder, given_allowed: bool) -> dict[str, Server]:
    """Return the servers that exist already, given or private, running or not."""
    servers: dict[str, Server] = {}
    for name, kind in KINDS.items():
        private = kind(folder, folder.records[name]) if name in folder.records else None
        url = os.environ.get(VARIABLES[name]) if given_allowed else None
        # Whoever has evaluated `env` has our own server's URL in the environment, too.
        if url and not (private and _place(private.environment()[VARIABLES[name]]) == _place(url)):
            names = [VARIABLES[name], *([MANAGEMENT] if name == "rabbitmq" and MANAGEMENT in os.environ else [])]
            servers[name] = Given(name, VARIABLES[name], {variable: os.environ[variable] for variable in names})
        elif private:
            servers[name] = private
        else:
            folder.check_owner()
    return servers


def _place(url: str) -> str:
    """Return server and login of a URL; another database or virtual host of it is still the same server."""
    return urlsplit(url).netloc


def _one(servers: dict[str, Server], name: str) -> Server:
    if name not in servers:
        raise ServicesError(f"there is no {name} yet: scripts/services up")
    return servers[name]


def _up(folder: Folder, given_allowed: bool) -> int:
    if folder.why_anew:
        say(folder.why_anew)
    new = [name for name in KINDS if name not in _known(folder, given_allowed)]
    packages.provide(new)
    for name in new:
        _forgotten(folder, name).kill()
        folder.remember(name, folder.new_record(name, KINDS[name].ports))
    return _start(_known(folder, given_allowed))


def _forgotten(folder: Folder, name: str) -> Private:
    """Return a server that may run although settings.json does not know it: the folder's marker finds it."""
    return KINDS[name](folder, Record(str(folder.path / name), {}, ""))


def _start(servers: dict[str, Server]) -> int:
    def start(server: Server) -> None:
        say(f"{server.name}: {server.start()}")

    return _together(partial(start, server) for server in servers.values())


def _together(actions: Iterable[Callable[[], None]]) -> int:
    """Run all actions at the same time, and print what went wrong; return the exit code."""

    def attempt(action: Callable[[], None]) -> bool:
        try:
            action()
        except (ServicesError, OSError) as error:
            print(f"scripts/services: {error}", file=sys.stderr)
            return False
        return True

    with ThreadPoolExecutor(len(KINDS)) as pool:
        return 0 if all(list(pool.map(attempt, actions))) else 1


def _down(folder: Folder, *, wipe: bool) -> int:
    def end(server: Private) -> None:
        ran = server.pid() is not None
        server.stop(at_once=wipe)
        say(f"{server.name}: {'stopped' if ran else 'does not run'}")

    code = _together(partial(end, _forgotten(folder, name)) for name in KINDS)
    if code == 0 and (wipe or not (folder.records or folder.why_anew)):
        folder.delete()
        if wipe:
            say(f"{folder.path}: deleted")
    return code


def _change(verb: str, server: Server) -> int:
    if isinstance(server, Given):
        raise ServicesError(f"{server.name} is given by {server.variable}: scripts/services does not {verb} it")
    if verb == "start":
        say(f"{server.name}: {server.start()}")
    elif verb == "stop":
        server.stop()
        say(f"{server.name}: stopped")
    elif verb == "kill":
        server.kill()
        say(f"{server.name}: killed")
    else:
        server.wipe()
        say(f"{server.name}: {server.start()}")
    return 0


def _control(servers: dict[str, Server], arguments: list[str]) -> int:
    server = _one(servers, "rabbitmq")
    if not isinstance(server, Rabbitmq):
        raise ServicesError("rabbitmq is not run by scripts/services: use its own rabbitmqctl")
    return server.control(arguments[1:] if arguments[:1] == ["--"] else arguments)


def _status(servers: dict[str, Server]) -> int:
    code = 0
    for name in KINDS:
        server = servers.get(name)
        where = server.status() if server else None
        say(f"{name}: {where or ('does not answer' if server and server.pid() else 'does not run')}")
        code = code or int(where is None)
    return code


def _env(servers: dict[str, Server], *, as_json: bool) -> int:
    variables: dict[str, str] = {}
    for name in KINDS:
        variables |= _one(servers, name).environment()
    pids = [f"{name}={pid}" for name in KINDS if (pid := servers[name].pid()) is not None]
    if pids:
        variables["ORCHESTRATOR_SERVICES_PIDS"] = ",".join(pids)
    if as_json:
        print(json.dumps(variables, indent=2))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0
