"""The command line of scripts/services."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from . import ServicesError, packages, say
from .folder import Folder
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
else runs on this machine. The data of root's is in /var/lib: down --wipe deletes it. A server whose URL is in the
environment (ORCHESTRATOR_DATABASE_URL, ORCHESTRATOR_AMQP_URL) is used as it is and never started or stopped. With --dir
the environment is ignored: a private pair in that folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    os.umask(0o022)  # root's folder must let the servers' users pass, whatever root's own habit is
    try:
        return _run(_parser().parse_args(arguments))
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
    up = verbs.add_parser("up", help="make both run and answer; running already is fine")
    up.add_argument(
        "--without-sync",
        action="store_true",
        help="PostgreSQL, when it is started, does not wait for the disk: what a crash of the machine, not of the server,"
        " then loses is worth nothing",
    )
    verbs.add_parser(
        "for-tests", help="install the other programs that tests need, if this is root on Debian or Ubuntu"
    )
    down = verbs.add_parser("down", help="stop both; the data stays")
    down.add_argument("--wipe", action="store_true", help="delete the data, too")
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
    if options.verb == "for-tests":
        packages.provide_for_tests()
        return 0
    folder = Folder(options.dir or CHECKOUT / ".services")
    exist = folder.read()
    servers = {name: _choose(name, folder, exist=exist, private=options.dir is not None) for name in KINDS}
    private = [server.name for server in servers.values() if isinstance(server, Private)]
    if options.verb == "status":
        return _status(servers, exist=exist)
    if options.verb == "up" and not private:
        return _start(servers)  # no folder is needed
    if options.verb in ("env", "ctl"):
        if private and not exist:
            raise ServicesError(f"there is no {' and no '.join(private)} yet: scripts/services up")
        return _env(servers, as_json=options.json) if options.verb == "env" else _control(servers, options.arguments)
    with folder.locked():
        exist = folder.read()  # another command may have changed it meanwhile
        if options.verb == "down":
            return _down(folder, wipe=options.wipe)
        if options.verb == "up":
            packages.provide(private)
            if not exist:
                _renew(folder)
            for server in servers.values():
                if isinstance(server, Postgres):
                    server.syncs = not options.without_sync
            return _start(servers)
        return _change(options.verb, servers[options.server], exist=exist)


def _choose(name: str, folder: Folder, *, exist: bool, private: bool) -> Server:
    """Return the server that the environment names, or the private one."""
    own, url = KINDS[name](folder), None if private else os.environ.get(VARIABLES[name])
    # Whoever has evaluated `env` has our own server's URL in the environment, too; another database or virtual host of it
    # is still the same server.
    if not url or (exist and urlsplit(own.environment()[VARIABLES[name]]).netloc == urlsplit(url).netloc):
        return own
    names = [VARIABLES[name], *([MANAGEMENT] if name == "rabbitmq" and MANAGEMENT in os.environ else [])]
    return Given(name, VARIABLES[name], {variable: os.environ[variable] for variable in names})


def _renew(folder: Folder) -> None:
    """Forget what there is, servers that run without being known included: the folder's marker finds them."""
    if folder.why_anew:
        say(folder.why_anew)
    for kind in KINDS.values():
        kind(folder).kill()
    folder.renew()


def _start(servers: dict[str, Server]) -> int:
    for server in servers.values():
        server.start()
    for server in servers.values():
        say(f"{server.name}: {server.wait()}")
    return 0


def _down(folder: Folder, *, wipe: bool) -> int:
    for server in (kind(folder) for kind in KINDS.values()):
        ran = server.pid() is not None
        server.stop(at_once=wipe)
        say(f"{server.name}: {'stopped' if ran else 'does not run'}")
    if wipe:
        folder.wipe()
        say(f"{folder.path}: wiped")
    return 0


def _change(verb: str, server: Server, *, exist: bool) -> int:
    if isinstance(server, Given):
        raise ServicesError(f"{server.name} is given by {server.variable}: scripts/services does not {verb} it")
    if not exist:
        raise ServicesError(f"there is no {server.name} yet: scripts/services up")
    if verb in ("start", "wipe"):
        if verb == "wipe":
            server.wipe()
        return _start({server.name: server})
    getattr(server, verb)()
    say(f"{server.name}: {'stopped' if verb == 'stop' else 'killed'}")
    return 0


def _control(servers: dict[str, Server], arguments: list[str]) -> int:
    server = servers["rabbitmq"]
    if not isinstance(server, Rabbitmq):
        raise ServicesError("rabbitmq is not run by scripts/services: use its own rabbitmqctl")
    return server.control(arguments[1:] if arguments[:1] == ["--"] else arguments)


def _status(servers: dict[str, Server], *, exist: bool) -> int:
    code = 0
    for server in servers.values():
        where = server.status() if exist or isinstance(server, Given) else None
        say(f"{server.name}: {where or ('does not answer' if server.pid() else 'does not run')}")
        code = code or int(where is None)
    return code


def _env(servers: dict[str, Server], *, as_json: bool) -> int:
    variables: dict[str, str] = {}
    for server in servers.values():
        variables |= server.environment()
    pids = [f"{name}={pid}" for name, server in servers.items() if (pid := server.pid()) is not None]
    if pids:
        variables["ORCHESTRATOR_SERVICES_PIDS"] = ",".join(pids)
    if as_json:
        print(json.dumps(variables, indent=2))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0
