"""`hone jobs`: create, list, watch and end fine-tuning jobs of a service that speaks OpenAI's API. It decides nothing."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hone.cli.printable import printable
from hone.errors import DataError

if TYPE_CHECKING:
    from hone.backends.job_api import Answer, JobApi

app = typer.Typer(
    rich_markup_mode=None,
    help="Fine-tuning jobs of `hone service`, or of any server of OpenAI's API.",
)

_PATIENCE_SECONDS: Final = 900.0
_PAGE: Final = 100


def _option(help_text: str, metavar: str) -> Any:
    return typer.Option(metavar=metavar, help=help_text)


BaseUrl = Annotated[
    str | None, _option("The service (HONE_BASE_URL, else this machine's `hone service`).", "URL")
]
KeyName = Annotated[str, _option("Variable that holds the key.", "VARIABLE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
_KEY: Final = "HONE_API_KEY"


@app.command("create")
def create(
    rows: Annotated[
        str, typer.Argument(metavar="ROWS", help="A .jsonl file, or the id of one at the service.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING=VALUE]...",
            help="Hone's own settings, e.g. tuning.lora.r=16, as far as the operator allows them.",
        ),
    ] = None,
    *,
    model: Annotated[str, _option("A base model of the service, or a tuned one.", "NAME")],
    validation: Annotated[str | None, _option("Held-out rows, as ROWS.", "ROWS")] = None,
    suffix: Annotated[str | None, _option("Goes into the tuned model's name.", "TEXT")] = None,
    epochs: Annotated[int | None, _option("Passes over the rows.", "NUMBER")] = None,
    batch_size: Annotated[int | None, _option("Rows per step.", "ROWS")] = None,
    lr_multiplier: Annotated[
        float | None, _option("Times the service's own learning rate.", "NUMBER")
    ] = None,
    seed: Annotated[int | None, _option("What the order of rows is drawn from.", "NUMBER")] = None,
    metadata: Annotated[
        list[str] | None, _option("Kept with the job; may be repeated.", "KEY=VALUE")
    ] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    base_url: BaseUrl = None,
    api_key_env: KeyName = _KEY,
    as_json: AsJson = False,
) -> None:
    """Upload rows and ask for a job; what is left out the service chooses (`auto`) and reports."""
    from hone.cli.pairs import nested, pairs

    numbers = {
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": lr_multiplier,
    }
    body: Answer = {"model": model, "suffix": suffix, "seed": seed}
    said = {key: value for key, value in numbers.items() if value is not None}
    if said:
        body["method"] = {"type": "supervised", "supervised": {"hyperparameters": said}}
    if metadata:
        body["metadata"] = pairs(metadata, "--metadata")
    if settings:
        body["x_hone"] = {"config": nested(pairs(settings, "SETTING=VALUE"))}
    with _Open(base_url, api_key_env) as api:
        body["training_file"] = _file_id(api, rows)
        if validation is not None:
            body["validation_file"] = _file_id(api, validation)
        asked = {key: value for key, value in body.items() if value is not None}
        job = _created(api, asked)
        if watch_it:
            _watch(api, job, as_json=as_json)
        elif as_json:
            print(json.dumps(job))
        else:
            print(printable(str(job["id"])))


@app.command("list")
def list_jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="COUNT", help="The newest so many.")] = 20,
    metadata: Annotated[
        list[str] | None, _option("Only jobs with this; may be repeated.", "KEY=VALUE")
    ] = None,
    base_url: BaseUrl = None,
    api_key_env: KeyName = _KEY,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs of this key, newest first."""
    from hone.backends.job_api import listed
    from hone.cli.pairs import pairs

    wanted = pairs(metadata or [], "--metadata")
    found: list[Answer] = []
    with _Open(base_url, api_key_env) as api:
        while len(found) < limit:
            after = str(found[-1]["id"]) if found else None
            size = min(_PAGE, limit - len(found))
            page = _patiently(lambda: api.jobs(after=after, limit=size, metadata=wanted))  # noqa: B023
            found += listed(page)
            if not page.get("has_more") or not listed(page):
                break
    if as_json:
        print(json.dumps({"object": "list", "data": found}))
        return
    if not found:
        print("no jobs; `hone jobs create ROWS --model NAME` makes one")
        return
    rows = [["JOB", "STATUS", "MODEL", "TUNED MODEL", "CREATED"], *(_row(job) for job in found)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


@app.command("watch")
def watch(
    job: Job, *, base_url: BaseUrl = None, api_key_env: KeyName = _KEY, as_json: AsJson = False
) -> None:
    """Follow a job to its end; the exit code says how it ended. Ctrl-C leaves the job running."""
    with _Open(base_url, api_key_env) as api:
        _watch(api, _patiently(lambda: api.job(job)), as_json=as_json)


@app.command("logs")
def logs(
    job: Job, *, base_url: BaseUrl = None, api_key_env: KeyName = _KEY, as_json: AsJson = False
) -> None:
    """Print what happened to a job so far, the oldest first."""
    from hone.backends.job_follow import JobFollower
    from hone.cli.job_screen import event_line

    with _Open(base_url, api_key_env) as api:
        follower = JobFollower(api, _patiently(lambda: api.job(job)), _note)
        for event in follower.events_so_far():
            print(json.dumps(event) if as_json else event_line(event))


@app.command("cancel")
def cancel(
    job: Job, *, base_url: BaseUrl = None, api_key_env: KeyName = _KEY, as_json: AsJson = False
) -> None:
    """End a job; its checkpoints stay."""
    _want(job, "cancel", base_url, api_key_env, as_json)


@app.command("pause")
def pause(
    job: Job, *, base_url: BaseUrl = None, api_key_env: KeyName = _KEY, as_json: AsJson = False
) -> None:
    """Take a job off its device, saved, until it is resumed."""
    _want(job, "pause", base_url, api_key_env, as_json)


@app.command("resume")
def resume(
    job: Job, *, base_url: BaseUrl = None, api_key_env: KeyName = _KEY, as_json: AsJson = False
) -> None:
    """Put a paused job back into the queue."""
    _want(job, "resume", base_url, api_key_env, as_json)


_ENDS = {
    "cancel": "cancelled",
    "pause": "paused",
}  # what a job becomes, once its process has stopped


def _want(job: str, verb: str, base_url: str | None, api_key_env: str, as_json: bool) -> None:
    from hone.backends.job_api import job_path

    with _Open(base_url, api_key_env) as api:
        told = api.post(f"{job_path(job)}/{verb}", retries=2)
    asked = "" if _ENDS.get(verb) in (None, told["status"]) else f"; asked to {verb}"
    print(json.dumps(told) if as_json else printable(f"{told['id']}: {told['status']}{asked}"))


class _Open:
    """The service of the flags and the environment, closed in the end."""

    def __init__(self, base_url: str | None, key_variable: str) -> None:
        from hone.backends.service_address import find_service

        self._address = find_service(base_url, None, os.environ, key_variable=key_variable)
        self._api: JobApi | None = None

    def __enter__(self) -> JobApi:
        from hone.backends.job_api import JobApi

        self._api = JobApi(self._address)
        return self._api

    def __exit__(self, *_: object) -> None:
        if self._api is not None:
            self._api.close()


def _file_id(api: JobApi, rows: str) -> str:
    from hone.backends.row_upload import send_rows

    path = Path(rows)
    if not path.exists() and rows.startswith("file-"):
        return rows
    if not path.is_file():
        raise DataError(
            "there is no such file of rows",
            where=rows,
            remedy="name a .jsonl file, or file-… at the service",
        )
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return send_rows(
            api, file, path.name, size=size, patience_seconds=_PATIENCE_SECONDS, say=_note
        )


def _created(api: JobApi, body: Answer) -> Answer:
    """Not tried for long: a server that knows no repeated request would make a job of each."""
    from hone.backends.job_api import Unreachable

    try:
        return api.create_job(body, uuid.uuid4().hex)
    except Unreachable as error:
        error.remedy = (
            "the job may be there all the same: look with `hone jobs list` before another"
        )
        raise


def _watch(api: JobApi, job: Answer, *, as_json: bool) -> None:
    from hone.backends.job_follow import JobFollower
    from hone.backends.remote_call import fault_of
    from hone.cli.job_screen import JobScreen

    follower = JobFollower(api, job, _note)
    screen = JobScreen(as_json=as_json)
    try:
        for event in follower.events():
            screen.show(event)
    except KeyboardInterrupt:
        screen.end()
        _note(f"the job goes on; `hone jobs watch {follower.id}` looks again")
        raise
    screen.finish(follower.job)
    if follower.job.get("status") != "succeeded":
        raise fault_of(follower.job)


def _row(job: Answer) -> Sequence[str]:
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(job.get("created_at") or 0)))
    told = (job["id"], job.get("status"), job.get("model"), job.get("fine_tuned_model") or "-")
    return [printable(str(one)) for one in told] + [created]


def _patiently(work: Callable[[], Answer]) -> Answer:
    from hone.backends.job_api import persist

    return persist(work, patience_seconds=_PATIENCE_SECONDS, say=_note)


def _note(text: str) -> None:
    typer.echo(printable(text), err=True)
