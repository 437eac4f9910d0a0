"""Alerts and dashboard: valid, true to the metrics that there are, and heard when a worker is killed."""

import asyncio
import json
import re
import subprocess

import pytest

from tests.support.fleet import Fleet, gated
from tests.support.needs import need
from tests.support.programs.monitoring_programs import MONITORING, PROGRAM, prometheus

METRIC = re.compile(r"\bdecnet_[a-z_]+")


def declared() -> set[str]:
    names = re.findall(r"^(?:counter|gauge|histogram) (\w+)", PROGRAM.read_text(), re.MULTILINE)
    histograms = re.findall(r"^histogram (\w+)", PROGRAM.read_text(), re.MULTILINE)
    return {*names, *(f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count"))}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    need("promtool")
    done = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    alerts = re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    tests = (MONITORING / "alerts_test.yml").read_text()
    assert len(alerts) == (MONITORING / "alerts.yml").read_text().count("action:")
    assert {name for name in alerts if f"alertname: {name}\n" not in tests} == set()


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    for name in ("alerts.yml", "alerts_test.yml", "dashboard.json"):
        used = set(METRIC.findall((MONITORING / name).read_text()))
        assert used, name
        assert used <= declared(), name


def test_the_queries_of_the_dashboard_are_valid() -> None:
    need("promtool")
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 8
    for number, query in enumerate(queries):
        rule = {"groups": [{"name": "g", "rules": [{"record": f"r{number}", "expr": query}]}]}
        text = json.dumps(rule).replace("$__rate_interval", "5m")
        done = subprocess.run(
            ["promtool", "check", "rules", "/dev/stdin"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, query + done.stderr


@pytest.mark.anyio
async def test_a_killed_worker_is_heard_of_through_mtail_and_prometheus(fleet: Fleet) -> None:
    need("mtail", "prometheus")
    async with prometheus(fleet) as metrics, fleet.client() as client:
        await fleet.reaper()
        worker = await fleet.worker()
        await metrics.until("decnet_workers_started_total == 1")
        assert "DecnetOperationSwept" not in await metrics.firing()
        await gated(fleet, client)
        await worker.kill()
        await metrics.until('decnet_swept_by_cause_total{cause="worker died"} == 1')
        async with asyncio.timeout(60):
            while "DecnetOperationSwept" not in (firing := await metrics.firing()):
                await asyncio.sleep(0.1)
        assert firing["DecnetOperationSwept"]["action"].startswith("decnet-reaper logs")
        assert firing.keys() == {"DecnetOperationSwept"}
