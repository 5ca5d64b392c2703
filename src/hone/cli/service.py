"""`hone service`: the job service, and its keys. It parses, calls and prints."""

from __future__ import annotations

import json
import time
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

    A client needs the address and a key: `hone service keys create NAME`. The first start makes one. Jobs go on where
    they were when the service is started again. Webhooks are signed with HONE_WEBHOOK_SECRET, or with a secret that
    lies in FOLDER/secret.
    """
    context.obj = root
    if context.invoked_subcommand is not None:
        return
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
    first = None if running.store.list_keys() else running.store.create_key("default")[1]
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
        print("  more keys: hone service keys create NAME", flush=True)
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
