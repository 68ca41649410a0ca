"""Tiyaro's whole flow: by `requests`, as its document shows it, or by gql, which fetches the schema first."""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from gql import Client, gql
from gql.transport.requests import RequestsHTTPTransport

Ask = Callable[[str], Any]


def by_requests(url: str, key: str) -> Ask:
    def ask(query: str) -> Any:
        payload = {"variables": {}, "query": query}
        headers = {"content-type": "application/json", "authorization": f"{key}"}
        answer = requests.request("POST", url, json=payload, headers=headers, timeout=60).json()
        assert not answer.get("errors"), answer
        return answer["data"]

    return ask


def by_gql(url: str, key: str) -> Ask:
    transport = RequestsHTTPTransport(url=url, headers={"authorization": key}, timeout=60)
    session = Client(transport=transport, fetch_schema_from_transport=True)
    return lambda query: session.execute(gql(query))


def train(ask: Ask, asked: dict[str, Any]) -> dict[str, Any]:
    start, trained = asked["names"]
    job_id = ask("mutation { newJobID(jobType: dreambooth) }")["newJobID"]
    models = f'query {{ {trained}(jobID: "{job_id}") {{ vendor version name url modelCard }} }}'
    status = f'query {{getJobStatus(jobID: "{job_id}") {{statusEnum errMsg created finished jobInput}}}}'
    before = ask(status)["getJobStatus"]["statusEnum"]
    url = ask(f'query {{ getJobInputURL(jobID: "{job_id}", objName: "milkyway.zip") }}')["getJobInputURL"]
    with Path(asked["archive"]).open("rb") as archive:
        put = requests.request("PUT", url, data=archive, headers={"Content-Type": "application/octet-stream"}, timeout=60)
    assert put.status_code == 200, put.text
    fields = ", ".join(f"{name}: {json.dumps(value)}" for name, value in asked["input"].items())
    again = ask(f'mutation {{ {start}(jobID: "{job_id}", input: {{jobType: dreambooth, dreamboothInput: {{{fields}}}}}) }}')[start]
    assert again == job_id
    seen, now = [], ask(status)["getJobStatus"]
    while now["statusEnum"] == "running":
        found = len(ask(models)[trained])
        time.sleep(0.5)
        now = ask(status)["getJobStatus"]
        if now["statusEnum"] == "running":  # else it may have ended before its models were asked for
            seen.append(found)
    return {"job_id": job_id, "before": before, "models_meanwhile": sum(seen), "status": now}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    way = {"requests": by_requests, "gql": by_gql}[given["way"]]
    print(json.dumps(train(way(given["url"], given["key"]), given)))
