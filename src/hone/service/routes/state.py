"""`/health` and `/metrics`: whether the service works, and how much it does."""

from __future__ import annotations

import shutil
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.responses import JSONResponse, Response

from hone.errors import HoneError
from hone.service.contract import PLACE
from hone.service.desk import AtDesk, Desk, admin_of
from hone.serving.gate import LOOPBACK

router = APIRouter()


@router.get("/health")
def health(desk: AtDesk) -> Response:
    """Whether the store answers; open to all, and says no more."""
    try:
        desk.store.count_jobs()
    except HoneError:
        return JSONResponse({"status": "unavailable"}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics")
def metrics(request: Request, desk: AtDesk) -> Response:
    """Counts for Prometheus: for this machine, and for administrators' keys from others."""
    if request.client is None or request.client.host not in LOOPBACK:
        admin_of(request)
    registry = CollectorRegistry()
    registry.register(_Counts(desk))  # type: ignore[arg-type]
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")


@router.get("/openapi.json")
def openapi() -> Response:
    """The API as an OpenAPI document."""
    return Response(PLACE.read_bytes(), media_type="application/json")


class _Counts:
    """What the store counts, at the moment when it is asked."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> list[Metric]:
        """Every family."""
        told: dict[str, Any] = self._desk.store.totals()
        jobs = GaugeMetricFamily("hone_jobs", "Jobs by state", labels=["status"])
        for status, count in told["jobs"].items():
            jobs.add_metric([status], count)
        files = GaugeMetricFamily("hone_files", "Files that are kept", value=told["files"])
        size = GaugeMetricFamily("hone_file_bytes", "Bytes of files", value=told["file_bytes"])
        tokens = CounterMetricFamily(
            "hone_trained_tokens", "Tokens trained by jobs that ended", value=told["trained_tokens"]
        )
        hooks = GaugeMetricFamily("hone_webhooks_owed", "Webhooks not sent", value=told["hooks"])
        requests = CounterMetricFamily(
            "hone_requests", "Requests by method and status", labels=["method", "status"]
        )
        for (method, status), count in self._desk.answered.copy().items():
            requests.add_metric([method, str(status)], count)
        free = GaugeMetricFamily(
            "hone_disk_free_bytes",
            "Room on the service's disk",
            value=shutil.disk_usage(self._desk.store.root).free,
        )
        return [jobs, files, size, tokens, hooks, requests, free]
