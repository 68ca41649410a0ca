"""One attempt to deliver a webhook: to a checked address, without redirects, in a few seconds whatever the receiver does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from service.intake.addresses import AddressRules, FetchFailed, checked_url, pinned
from service.webhooks.sender import Answer

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
MOST_ANSWER_BYTES = 64 << 10


def post(url: str, body: str, headers: Mapping[str, str], rules: AddressRules) -> Answer:
    try:
        return asyncio.run(asyncio.wait_for(_post(url, body.encode(), headers, rules), TOTAL_SECONDS))
    except FetchFailed as error:
        return Answer(None, str(error))
    except (TimeoutError, asyncio.TimeoutError, httpx.TimeoutException):
        return Answer(None, f"no answer within {TOTAL_SECONDS:g} seconds")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Answer(None, f"no answer: {type(error).__name__}")


async def _post(url: str, body: bytes, headers: Mapping[str, str], rules: AddressRules) -> Answer:
    checked = checked_url(url, rules)
    ways = await asyncio.to_thread(pinned, checked, rules)
    timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False) as client:
        for number, way in enumerate(ways, 1):
            told = {**headers, **way.headers}
            request = client.build_request("POST", way.url, content=body, headers=told, extensions=dict(way.extensions))
            try:
                response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(ways):
                    raise
                continue
            try:
                await _read_some(response)
            finally:
                await response.aclose()
            return Answer(response.status_code, retry_after=response.headers.get("retry-after"))
    raise httpx.ConnectError("there is no address")


async def _read_some(response: httpx.Response) -> None:
    """A receiver that is cut off while it answers would call the delivery a failure."""
    count = 0
    async for chunk in response.aiter_raw():
        count += len(chunk)
        if count > MOST_ANSWER_BYTES:
            return
