"""`hone service`: the job service, and its keys. It parses, calls and prints."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from hone.backends.service_address import DEFAULT_PORT
from hone.errors import ConfigError

app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    help="Serve fine-tuning jobs to OpenAI clients, on this machine.",
)
keys = typer.Typer(rich_markup_mode=None, help="Make, list and revoke keys.")
app.add_typer(keys, name="keys")

Root = Annotated[
    Path, typer.Option("--root", metavar="FOLDER", help="Where the service keeps everything.")
]
BaseModels = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]FOLDER|HUB_ID", help="A base model that jobs may begin with."),
]
Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Where to listen; others than loopback need --allow-host."
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="NUMBER", help="0 takes a free one.")]
AllowHosts = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A host name by which it is called.")
]
Workers = Annotated[
    int, typer.Option(min=1, max=64, metavar="COUNT", help="Jobs that run at the same time.")
]
Devices = Annotated[
    list[str] | None,
    typer.Option(metavar="INDEX", help="A GPU for jobs; repeat it for several at a time."),
]
Threads = Annotated[int | None, typer.Option(min=1, metavar="COUNT", help="CPU threads of a job.")]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run jobs on this Ray cluster; '' is the local one."),
]
NoWorker = Annotated[bool, typer.Option("--no-worker", help="Answer only; run no job.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="A setting that jobs may say, such as train.*."),
]
Webhooks = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Hears of the end of each job, signed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_ROOT = Path("service")


@app.callback()
def service(
    context: typer.Context,
    *,
    model: BaseModels = None,
    root: Root = _ROOT,
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    allow_host: AllowHosts = None,
    workers: Workers = 1,
    device: Devices = None,
    threads: Threads = None,
    ray: Ray = None,
    no_worker: NoWorker = False,
    allow: Allow = None,
    webhook: Webhooks = None,
    as_json: AsJson = False,
) -> None:
    """Serve fine-tuning jobs as the OpenAI API has them, until Ctrl-C.

    A client needs the address and a key: `hone service keys create NAME`. The first start on a terminal makes one and
    shows it; a log never gets one. Jobs go on where they were when the service is started again. Webhooks are signed with HONE_WEBHOOK_SECRET, or with a secret that
    lies in FOLDER/secret.
    """
    context.obj = root
    if context.invoked_subcommand is not None:
        return
    from hone.serving.packages import SERVING, require_packages

    require_packages("hone service", [*SERVING, "fastapi", "python_multipart", "prometheus_client"])
    from hone.service.operator import Operator, named_models
    from hone.service.server import Service
    from hone.service.shift import Slots
    from hone.serving.server import Address

    operator = Operator(named_models(model or []), allowed=allow, webhooks=tuple(webhook or ()))
    if not operator.models:
        raise ConfigError(
            "no base model is named, and jobs need one",
            remedy="type: hone service --model NAME=FOLDER_OR_HUB_ID",
        )
    slots = None if no_worker else Slots(workers, device or (), threads, ray)
    address = Address(host, port, names=tuple(allow_host or ()))
    running = Service(root.expanduser(), operator, address, slots)
    has_keys = bool(running.store.list_keys())
    first = None
    if (
        not has_keys and sys.stdout.isatty()
    ):  # anything else may be a log, which is no place for a key
        first = running.store.create_key("default")[1]
    if as_json:
        told: dict[str, Any] = {
            "event": "ready",
            "base_url": running.base_url,
            "port": running.port,
        }
        print(json.dumps({**told, "models": list(operator.models), "key": first}), flush=True)
    else:
        print(f"serving at {running.base_url} (Ctrl-C ends it)")
        print(f"  base models: {', '.join(operator.models)}")
        if first:
            print(f"  a key, shown only now: {first}")
        more = "more keys" if has_keys or first else "no key yet; make one"
        print(
            f"  {more}: hone service --root {shlex.quote(str(root))} keys create NAME", flush=True
        )
    running.run()


@keys.command("create")
def create(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is: a-z, 0-9 and -.")],
    *,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER")] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Higher goes before, between equals.")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(min=0, metavar="COUNT", help="Jobs at the same time; 1 at first.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COUNT", help="file_bytes, disk_bytes, file_rows, jobs, files."),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May let others use checkpoints.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key, and show it once. Keys of one name share files, jobs, models and limits."""
    made, text = _store(context, root).create_key(
        owner, priority=priority, max_running=max_running, quotas=_quotas(quota), is_admin=admin
    )
    if as_json:
        print(json.dumps({"id": made.id, "owner": made.owner, "key": text}))
    else:
        print(text)


@keys.command("list")
def list_keys(
    context: typer.Context,
    *,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER")] = None,
    as_json: AsJson = False,
) -> None:
    """List keys; their texts are kept nowhere."""
    found = _store(context, root).list_keys()
    if as_json:
        told = [
            {
                "id": one.id,
                "owner": one.owner,
                "admin": one.is_admin,
                "created": one.created,
                "revoked": one.revoked,
                "priority": one.priority,
                "max_running": one.max_running,
                "quotas": one.quotas,
            }
            for one in found
        ]
        print(json.dumps({"keys": told}))
        return
    for one in found:
        state = "revoked" if one.revoked else "alive"
        made = time.strftime("%Y-%m-%d", time.localtime(one.created))
        limits = " ".join(f"{name}={value}" for name, value in one.quotas.items())
        more = f" {limits}" if limits else ""
        role = " admin" if one.is_admin else ""
        print(f"{one.id}  {one.owner}  {state}  since {made}  runs {one.max_running}{role}{more}")


@keys.command("revoke")
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="ID", help="As `hone service keys list` shows it.")],
    *,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER")] = None,
) -> None:
    """End a key at once. What was made with it stays."""
    if not _store(context, root).revoke_key(key):
        raise ConfigError(f"no key {key!r} is alive", remedy="`hone service keys list` shows them")
    print(f"revoked {key}")


@app.command("audit")
def audit(
    context: typer.Context,
    *,
    root: Annotated[Path | None, typer.Option("--root", metavar="FOLDER")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Of one key, or of all keys of a name.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="2026-01-31, 2026-01-31T18:30, or 90m, 24h, 7d."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print who did what, oldest first; with --json a line of JSON for each."""
    store, after = _store(context, root), 0
    begin = None if since is None else _moment(since)
    while found := store.audit(after, key=key, since=begin):
        for one in found:
            after = one["seq"]
            if as_json:
                print(json.dumps(one))
                continue
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"]))
            who = f"{one['owner'] or '-'} ({one['key'] or 'operator'})"
            said = f"{at}  {who}  {one['action']}  {one['subject']}  {one['detail']}".rstrip()
            print("".join(char if char.isprintable() else "?" for char in said))


def _moment(said: str) -> int:
    """A time as it is typed: a day, a minute, or how long ago."""
    ago = re.fullmatch(r"([0-9]{1,6})([mhd])", said)
    if ago is not None:
        return int(time.time()) - int(ago[1]) * {"m": 60, "h": 3600, "d": 86_400}[ago[2]]
    try:
        return int(datetime.fromisoformat(said).timestamp())
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--since {said!r} is no time",
            remedy="write 2026-01-31, 2026-01-31T18:30, 90m, 24h or 7d",
        ) from None


def _store(context: typer.Context, root: Path | None) -> Any:
    from hone.service.store import Store

    folder = root or context.obj or _ROOT
    return Store(Path(folder).expanduser())


def _quotas(said: list[str] | None) -> dict[str, int | None] | None:
    if said is None:
        return None
    found: dict[str, int | None] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not equals or not (value.isdecimal() or value == "none"):
            raise ConfigError(f"--quota {one!r}", remedy="write NAME=COUNT, or NAME=none")
        found[name] = None if value == "none" else int(value)
    return found
