"""`edgekeeper authz explain` of the service that runs, beside what Envoy really does with the same request.

The fixture `edge` searches everything that was written for the tokens that are sent here.
"""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from authz.cli import commands

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = "orders.example.com"
ORDERS = f"https://{HOST}/v1/tenants/acme/orders"


async def explained(edge: Any, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, commands, ["explain", *words])


def running(edge: Any) -> list[str]:
    return ["--running", "--config", str(edge.directory / "edgekeeper.yaml"), "--format", "json"]


@pytest.mark.parametrize(
    "path", ["/v1/tenants/acme/orders", "/v1/tenants/globex/orders", "/healthz", "/internal/x", "/nothing"]
)
async def test_what_runs_explains_what_envoy_does(edge, path):
    token = edge.token()
    result = await explained(
        edge, *running(edge), "GET", f"https://{HOST}{path}", "-H", f"authorization: Bearer {token}"
    )
    assert not result.stderr, result.stderr
    said = json.loads(result.stdout)
    response = await edge.get(path, token=token)
    allowed = said["effect"] == "allow"
    assert (0 if allowed else 1) == result.exit_code
    assert (200 if allowed else said["answer"]["status"]) == response.status
    assert token not in result.output


async def test_what_runs_and_the_files_say_the_same(edge):
    words = ["GET", ORDERS, "-H", f"authorization: Bearer {edge.token()}"]
    by_service = await explained(edge, *running(edge), *words)
    by_files = await explained(edge, *running(edge)[1:], *words)
    of_files, of_service = (json.loads(each.stdout) for each in (by_files, by_service))
    # protobuf has its maps in another order in each process
    assert of_files.pop("response_base64") and of_service.pop("response_base64")  # noqa: PT018
    assert of_files == of_service
    assert "alice" == of_service["identity"]["subject"]


async def test_an_admin_address_needs_no_configuration_and_people_get_the_same_page(edge):
    result = await explained(
        edge,
        "--admin",
        f"unix:{edge.directory / 'admin.sock'}",
        "curl",
        "-X",
        "DELETE",
        f"https://{HOST}/v1/x",
    )
    assert (1, "DENY 403 by orders-api / orders-are-kept: orders_are_kept") == (
        result.exit_code, result.stdout.splitlines()[0]
    )  # fmt: skip


async def test_a_request_that_is_none_is_refused_by_what_runs(edge):
    connector = aiohttp.UnixConnector(str(edge.directory / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get("http://x/authz/explain", params={"request": '{"method": 5}'}) as answer:
            assert (400, {"why": "`method`: expected a text"}) == (answer.status, await answer.json())
        async with session.get("http://x/ratelimit/explain") as answer:
            assert 404 == answer.status


async def test_a_token_of_the_longest_kind_fits(edge):
    long = edge.token() + "x" * 7_000
    result = await explained(
        edge,
        *running(edge),
        "GET",
        ORDERS,
        "-H",
        f"authorization: Bearer {long}",
        "-H",
        f"cookie: {'c' * 8_000}",
    )
    assert "credentials.invalid" == json.loads(result.stdout)["reason"]
