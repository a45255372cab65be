"""How fast the web page answers with 10,000 jobs in the ledger, measured by ApacheBench.

``.venv/bin/python -m benchmarks.web [--jobs 10000] [--requests 300] [--concurrency 4]``

A ledger is filled in bulk (each job with its series, objects, attempt, two results, their
deliveries and events), ``rtnode web`` is started on it as a process of its own, a user logs in,
and ``ab`` asks for one page after another with the session's cookie. The figure is the time to
the first byte as ``ab`` has it for each request (connection + wait), 50th and 95th percentile;
beside it the server's CPU time for one request, which says the same on a busy machine. Load
generator and server share the machine. Needs ``ab`` (package apache2-utils).
"""

import argparse
import csv
import http.cookiejar
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from node.clock import SystemClock
from node.store import schema
from node.store.files import Limits
from node.store.store import StoreOptions, open_store
from node.web.users import Role, Users

PASSWORD = "a password for a benchmark"
OBJECTS = 3
"""Objects of a series: enough rows to search, quick to write."""
RESULTS = 2
COMPARED = 6
"""Of so many contouring jobs one set came back approved."""
ORGANS = tuple(f"Organ_{n}" for n in range(10))
STATES = ("COMPLETED",) * 90 + ("HELD",) * 4 + ("CANCELED",) * 3 + ("SCHEDULED",) * 3
PIPELINES = ("autocontour", "synthetic_ct", "dose_radiomics")
PAGES = (
    ("overview", "/"),
    ("jobs, first page", "/jobs"),
    ("jobs, page 150", "/jobs?page=150"),
    ("jobs held", "/jobs?state=HELD"),
    ("jobs, search in UIDs", "/jobs?q=.77"),
    ("studies", "/studies"),
    ("one job", "/jobs/5000"),
    ("one series", "/series/1.2.826.5000"),
    ("drift", "/drift"),
    ("audit", "/people"),
)


def fill(folder: Path, jobs: int) -> None:
    """Write a ledger as a node has it after `jobs` jobs."""
    now = datetime.now().astimezone()
    rng = random.Random(7)
    rows: dict[str, list[dict[str, Any]]] = {
        table.name: [] for table in schema.metadata.sorted_tables
    }
    for n in range(1, jobs + 1):
        at = now - timedelta(minutes=2 * (jobs - n))
        _job(rows, n, at, rng)
    options = StoreOptions(limits=Limits(min_free=0, warn_free=0))
    with open_store(folder, clock=SystemClock(), options=options) as store:

        def write(connection: Any) -> None:
            for table in schema.metadata.sorted_tables:
                if rows[table.name]:
                    connection.execute(table.insert(), rows[table.name])

        store.ledger._database.write(write)


def _job(rows: dict[str, list[dict[str, Any]]], n: int, at: datetime, rng: random.Random) -> None:
    """Append everything that one job leaves in the ledger."""
    state, pipeline = rng.choice(STATES), PIPELINES[n % len(PIPELINES)]
    series, study = f"1.2.826.{n}", f"1.2.826.0.{n // 3}"
    assoc, end = f"{n:08x}", at + timedelta(seconds=20)
    held = "slices are missing between -12.0 and 3.0 mm along the stack" if state == "HELD" else ""
    rows["association"].append({
        "association_id": assoc, "calling_ae_title": "CTSIM1", "called_ae_title": "RTNODE",
        "address": "192.0.2.10", "opened_at": at, "ended_at": at, "end": "RELEASED",
        "received": OBJECTS, "refused": 0})  # fmt: skip
    rows["series"].append({
        "series_instance_uid": series, "study_instance_uid": study, "patient_key": f"p{n // 3}",
        "modality": "CT", "state": "COMPLETE", "revision": 0, "count": OBJECTS,
        "reason": "3 slices, 3.00 mm apart, no gap", "first_received_at": at,
        "last_received_at": at})  # fmt: skip
    rows["job"].append({
        "id": n, "dedupe": f"d{n}", "route": f"route-{n % 5}", "pipeline": pipeline,
        "pipeline_version": "0.1.0", "settings_json": "{}", "destinations": ["pacs"],
        "priority": 50, "series_instance_uid": series, "series_revision": 0, "revision": 0,
        "state": state, "reason": held, "hint": "send what is missing" if held else "",
        "attempt": 1, "max_attempts": 3, "token": 1, "owner": "slot-0", "lease_until": None,
        "not_before": None, "start_reason": "route: kind is CT; 3 slices, no gap",
        "correlation": assoc, "created_at": at, "changed_at": end, "superseded_by": None,
        "findings": [{"code": "noise", "severity": "INFO", "message": "gate passed", "roi": None,
                      "value": 5.1, "unit": "HU", "limit": 60}],
        "figures": {"rois": {f"R{r}": {"volume_cc": 12.5 * r, "contours": 40} for r in range(6)}},
        "report": ""})  # fmt: skip
    for k in range(OBJECTS):
        _blob(rows, f"i{n}-{k}", at)
        rows["instance"].append({
            "sop_instance_uid": f"{series}.{k}", "sha256": f"i{n}-{k}", "sop_class_uid": "1.2.840",
            "study_instance_uid": study, "series_instance_uid": series,
            "frame_of_reference_uid": None, "modality": "CT", "patient_key": f"p{n // 3}",
            "keywords": {"SliceThickness": 3}, "calling_ae_title": "CTSIM1",
            "called_ae_title": "RTNODE", "address": "192.0.2.10", "association_id": assoc,
            "received_at": at, "conflict": False})  # fmt: skip
        rows["job_input"].append({"job_id": n, "role": "CT", "sop_instance_uid": f"{series}.{k}",
                                  "sha256": f"i{n}-{k}"})  # fmt: skip
    rows["attempt"].append({
        "job_id": n, "token": 1, "number": 1, "owner": "slot-0", "started_at": at, "ended_at": end,
        "outcome": "FINISHED", "reason": ""})  # fmt: skip
    told = ["series_started", "series_complete", "decision_job"]
    rows["event"] += [_event(at, name, "series", series, assoc) for name in told]
    told = ["job_created", "job_claimed", "job_finished"]
    rows["event"] += [_event(at, name, "job", str(n), assoc) for name in told]
    if state == "COMPLETED" and pipeline == "autocontour" and n % COMPARED == 0:
        _compared(rows, n, end, rng)
    for k in range(RESULTS if state == "COMPLETED" else 0):
        _blob(rows, f"r{n}-{k}", at)
        number, uid = len(rows["result"]) + 1, f"2.25.{n}.{k}"
        rows["result"].append({
            "id": number, "job_id": n, "sop_instance_uid": uid, "sop_class_uid": "1.2.840",
            "series_instance_uid": f"2.25.{n}", "modality": "RTSTRUCT", "sha256": f"r{n}-{k}",
            "created_at": end})  # fmt: skip
        rows["delivery"].append({
            "job_id": n, "result_id": number, "destination": "pacs", "sop_instance_uid": uid,
            "state": "SENT", "attempt": 1, "not_before": None, "status": 0, "reason": "",
            "hint": "", "created_at": end, "changed_at": end})  # fmt: skip
        rows["event"] += [_event(end, a, "delivery", uid, assoc)
                          for a in ("delivery_claimed", "delivery_stored")]  # fmt: skip


def _compared(
    rows: dict[str, list[dict[str, Any]]], n: int, at: datetime, rng: random.Random
) -> None:
    """Append the scores of an approved set."""
    _blob(rows, f"a{n}", at)
    number = len(rows["acceptance"]) + 1
    rows["acceptance"].append({"id": number, "sop_instance_uid": f"2.25.7.{n}", "sha256": f"a{n}",
                               "job_id": n, "reason": "", "at": at})  # fmt: skip
    rows["acceptance_score"] += [
        {"acceptance_id": number, "organ": organ, "theirs": organ, "model": "classical",
         "version": "0.1.0", "dice": rng.uniform(0.85, 0.95), "surface_dice": rng.uniform(0.8, 1),
         "hd95_mm": rng.uniform(1, 5), "added_path_mm": rng.uniform(10, 900), "volume_ml": 100.0,
         "volume_theirs_ml": rng.uniform(90, 110), "unchanged": False}
        for organ in ORGANS
    ]  # fmt: skip


def _blob(rows: dict[str, list[dict[str, Any]]], sha256: str, at: datetime) -> None:
    rows["blob"].append({
        "sha256": sha256, "path": f"blobs/0/{sha256}", "size": 500_000,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1", "created_at": at})  # fmt: skip


def _event(at: datetime, action: str, kind: str, subject: str, assoc: str) -> dict[str, Any]:
    detail = {"reason": "3 slices, 3.00 mm apart, no gap", "attempt": 1}
    return {"at": at, "action": action, "kind": kind, "subject": subject, "correlation": assoc,
            "detail": detail}  # fmt: skip


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """Run ``rtnode web`` on the ledger in `folder`; yield its address and process."""
    tree = {
        "node": {"ae_titles": ["RTNODE"], "data_dir": str(folder)},
        "peers": {"pacs": {"ae_title": "PACS", "host": "192.0.2.20", "port": 104}},
        "web": {"listen": "127.0.0.1:0"},
        "log": {"level": "WARNING"},
    }
    path = folder.parent / "config.yaml"
    path.write_text(json.dumps({**tree, "log": {"level": "INFO"}}))
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "web", "-c", str(path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        found = re.search(r"port=(\d+)", ready)
        assert found is not None, ready
        sink = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        yield f"http://127.0.0.1:{found.group(1)}", process.pid
        sink.kill()
        sink.wait(10)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def logged_in(address: str) -> str:
    """Log in and return the cookie."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    form = opener.open(f"{address}/login", timeout=60).read().decode()
    token = re.search(r'name="csrf" value="([^"]+)"', form)
    assert token is not None
    data = {"name": "bench", "password": PASSWORD, "csrf": token.group(1)}
    request = urllib.request.Request(
        f"{address}/login", urllib.parse.urlencode(data).encode(), {"Origin": address}
    )
    opener.open(request, timeout=60).read()
    return next(cookie.value or "" for cookie in jar if cookie.name == "rtnode")


def first_bytes_ms(url: str, cookie: str, requests: int, concurrency: int) -> np.ndarray:
    """Return the time to the first byte of each request [ms], by ApacheBench."""
    with tempfile.NamedTemporaryFile(suffix=".tsv") as table:
        done = subprocess.run(
            ["ab", "-q", "-k", "-n", str(requests), "-c", str(concurrency), "-C",
             f"rtnode={cookie}", "-g", table.name, url],
            capture_output=True, text=True, check=True, timeout=900,
        )  # fmt: skip
        assert "Non-2xx responses" not in done.stdout, done.stdout
        with Path(table.name).open(newline="") as stream:
            lines = list(csv.DictReader(stream, delimiter="\t"))
    return np.array([float(line["ctime"]) + float(line["wait"]) for line in lines])


def cpu_ms(pid: int) -> float:
    """Return the CPU time that a process has used [ms] (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Fill a ledger and ask for each page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    if shutil.which("ab") is None:
        sys.exit("ab is not installed (package apache2-utils)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        fill(folder, options.jobs)
        Users(folder / "web-users.json").put("bench", Role.VIEWER, PASSWORD)
        size = (folder / "ledger.db").stat().st_size / 1e6
        print(f"{options.jobs} jobs, ledger {size:.0f} MB, load {os.getloadavg()[0]:.1f}"
              f" on {os.cpu_count()} cores; first byte [ms]")  # fmt: skip
        print(f"{'page':24}{'at a time':>10}{'median':>9}{'p95':>9}{'CPU':>9}")
        with served(folder) as (address, pid):
            cookie = logged_in(address)
            for page, path in PAGES:
                for concurrency in options.concurrency:
                    first_bytes_ms(address + path, cookie, 10, 1)
                    before = cpu_ms(pid)
                    times = first_bytes_ms(address + path, cookie, options.requests, concurrency)
                    cpu = (cpu_ms(pid) - before) / options.requests
                    print(f"{page:24}{concurrency:>10}{np.median(times):>9.0f}"
                          f"{np.percentile(times, 95):>9.0f}{cpu:>9.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
