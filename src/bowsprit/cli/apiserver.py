"""``bowsprit apiserver [run]``: the API server alone, with kube-apiserver's flags."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import sys
from typing import Any

import click

from bowsprit.cli.errors import CommandError
from bowsprit.controlplane.options import APIServerOptions, OptionsError

_METAVARS = {"text": "TEXT", "int": "N", "path": "FILE", "paths": "FILES", "list": "LIST", "duration": "DURATION"}


def _options() -> list[click.Option]:
    """One option per field of the options."""
    made: list[click.Option] = []
    for item in dataclasses.fields(APIServerOptions):
        kind = item.metadata["kind"]
        name = f"--{item.name.replace('_', '-')}"
        shown: Any = item.default
        if kind in ("list", "paths"):
            shown = ",".join(map(str, shown))
        text = item.metadata["help"]
        if shown not in (None, ""):
            text += f"  [default: {str(shown).lower() if kind == 'bool' else shown}]"
        if kind == "bool":
            made.append(click.Option([name], metavar="[BOOL]", is_flag=False, flag_value="true", help=text))
        else:
            made.append(click.Option([name], metavar=_METAVARS[kind], multiple=kind in ("list", "paths"), help=text))
    return made


def _set_verbosity(_: click.Context, __: click.Parameter, level: int) -> None:
    if level:
        logging.getLogger().setLevel(logging.DEBUG if level >= 4 else logging.INFO if level >= 2 else logging.WARNING)


def _run(action: str | None, **flags: Any) -> None:
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    try:
        options = APIServerOptions.from_flags(given)
        options.check()
    except OptionsError as exc:
        more = f" (and {len(exc.problems) - 1} more)" if len(exc.problems) > 1 else ""
        raise CommandError(
            "; ".join(exc.problems), reason="InvalidFlag", hint=f"see bowsprit apiserver --help{more}"
        ) from exc
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options))
    except KeyboardInterrupt:
        sys.exit(130)


async def _serve(options: APIServerOptions) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the drain."""
    from bowsprit.controlplane.server import APIServer
    from bowsprit.machinery.errors import StatusError
    from bowsprit.net.egress.configuration import EgressConfigError
    from bowsprit.pki.errors import PKIError
    from bowsprit.store.protocol import StoreError

    stop = asyncio.Event()
    again = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        (again if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    server = APIServer(options)
    try:
        await server.start()
    except PKIError as exc:
        await server.stop()
        raise CommandError(exc.message, reason="InvalidCertificate", hint=exc.hint) from exc
    except StoreError as exc:
        await server.stop()
        raise CommandError(str(exc), reason="StoreFailed", hint=f"--store is {options.store}") from exc
    except (ValueError, EgressConfigError) as exc:
        await server.stop()
        raise CommandError(str(exc), reason="InvalidConfiguration") from exc
    except StatusError as exc:
        await server.stop()
        raise CommandError(f"the bootstrap objects cannot be made: {exc.message}", reason="BootstrapFailed") from exc
    except OSError as exc:
        await server.stop()
        raise CommandError(
            f"cannot listen on {options.bind_address}:{options.secure_port}: {exc.strerror or exc}",
            reason="AddressInUse",
            hint="choose another --secure-port or --bind-address",
        ) from exc
    print(f"serving securely on {server.url}", file=sys.stderr, flush=True)
    await stop.wait()
    stopping = asyncio.ensure_future(server.stop())
    impatient = asyncio.ensure_future(again.wait())
    await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping})


apiserver = click.Command(
    "apiserver",
    params=[
        click.Argument(["action"], required=False, type=click.Choice(["run"]), metavar="[run]"),
        *_options(),
        click.Option(
            ["--v"],
            type=int,
            default=0,
            expose_value=False,
            callback=_set_verbosity,
            metavar="LEVEL",
            help="Log level, as the global -v.",
        ),
    ],
    callback=_run,
    help="Run the API server, until interrupted.",
)
