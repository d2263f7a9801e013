"""accesslog behind the real Envoy: HTTP and TCP records, with secrets masked."""

import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORDERS = "/v1/tenants/acme/orders"


async def test_an_http_record_says_what_happened_and_masks_the_token(edge):
    headers = [
        ("user-agent", "e2e-record"),
        ("cookie", f"sid={edge.canary}"),
        ("x-api-key", edge.canary),
        ("referer", f"https://shop.example.com/?token={edge.canary}"),
    ]
    response = await edge.get(
        f"{ORDERS}?limit=2&access_token={edge.canary}&jwt={edge.canary}", token=edge.token(), headers=headers
    )
    record = await edge.record(user_agent__original="e2e-record")
    assert 200 == response.status
    expected = {
        "schema": "edgekeeper.accesslog/1",
        "event.name": "http.access",
        "http.request.method": "GET",
        "url.path": ORDERS,
        "url.query": "limit=2&access_token=REDACTED&jwt=REDACTED",
        "server.address": "orders.example.com",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "envoy.log_name": "edge-http",
    }
    assert expected == {name: record.get(name) for name in expected}
    assert "acme" == record["envoy.metadata"]["ext_authz"]["tenant"]
    assert {"url.query.access_token", "url.query.jwt"} <= set(record["redacted"])


async def test_a_denial_is_recorded_with_the_flag_of_ext_authz(edge):
    await edge.get(ORDERS, headers=[("user-agent", "e2e-denied-record")])
    record = await edge.record(user_agent__original="e2e-denied-record")
    assert (401, ["UAEX"]) == (record["http.response.status_code"], record["envoy.response_flags"])


async def test_an_unknown_method_is_recorded_as_it_was_sent(edge):
    await edge.get("/healthz", method="PROPFIND", headers=[("user-agent", "e2e-propfind")])
    record = await edge.record(user_agent__original="e2e-propfind")
    assert ("_OTHER", "PROPFIND") == (record["http.request.method"], record["http.request.method_original"])


async def test_a_line_that_looks_like_two_stays_one(edge):
    await edge.get("/healthz", headers=[("user-agent", 'e2e-inject\\n{"schema":"forged"}\x1b[31m')])
    before = len(edge.records())
    await edge.get("/healthz", headers=[("user-agent", "e2e-after-inject")])
    await edge.record(user_agent__original="e2e-after-inject")
    assert all(record["schema"] == "edgekeeper.accesslog/1" for record in edge.records())
    assert before < len(edge.records())


async def tcp_session(edge, content: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*edge.envoy.address("tcp"))
    writer.write(content)
    await writer.drain()
    answer = await reader.readexactly(len(content))
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_tcp_record_has_the_bytes_of_both_ways(edge):
    assert b"ping-pong" == await tcp_session(edge, b"ping-pong")
    record = await edge.record(event__name="tcp.access", envoy__access_log_type="TcpConnectionEnd")
    assert (9, 9) == (record["network.io.receive"], record["network.io.transmit"])
    assert "edge-tcp" == record["envoy.log_name"]


async def test_a_tcp_connection_start_entry_is_recorded(edge):
    """Envoy 1.39 sends the type TcpConnectionStart, before the connection has ended."""
    await tcp_session(edge, b"x")
    record = await edge.record(event__name="tcp.access", envoy__access_log_type="TcpConnectionStart")
    assert "tcp" == record["network.transport"]


async def test_every_entry_that_envoy_wrote_arrived(edge):
    async def counts(marker: str) -> tuple[int, ...]:
        await edge.get("/healthz", headers=[("user-agent", marker)])
        await edge.record(user_agent__original=marker)
        stats = await edge.envoy.stats(r"^access_logs\.grpc_access_log\.logs_(written|dropped)$")
        metrics = await edge.metrics()
        received = sum(v for n, v in metrics.items() if "entries_received_total" in n and 'kind="http"' in n)
        discarded = sum(v for n, v in metrics.items() if "entries_discarded_total" in n)
        records = len([r for r in edge.records() if r["event.name"] == "http.access"])
        return sum(stats.values()), received, records, discarded

    before = await counts("e2e-before-ten")
    for _ in range(9):
        await edge.get("/healthz")
    after = await counts("e2e-after-ten")
    assert [10, 10, 10, 0] == [now - then for now, then in zip(after, before, strict=True)]


async def test_records_that_were_moved_aside_are_let_go_of_on_sighup_though_nothing_is_written(edge):
    await edge.get("/healthz", headers=[("user-agent", "e2e-moved")])
    await edge.record(user_agent__original="e2e-moved")
    edge.records_file.rename(edge.records_file.with_name("access.ndjson.1"))
    await edge.services.reload()
    async with asyncio.timeout(5):
        while not edge.records_file.exists():  # noqa: ASYNC110 - the other side is a process
            await asyncio.sleep(0.01)
    await edge.get("/healthz", headers=[("user-agent", "e2e-after-move")])
    await edge.record(user_agent__original="e2e-after-move")
    assert "e2e-moved" not in {record.get("user_agent.original") for record in edge.records()}
