"""Secrets sent straight to the services, in every field and as garbage: no gRPC status tells them."""

import grpc
import pytest

from protos.envoy.data.accesslog.v3 import accesslog_pb2
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.accesslog.v3 import als_pb2
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
LOG = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


def checks(secret: str) -> list[bytes]:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = "GET", f"/v1/orders?token={secret}", "orders.example.com"
    http.headers["authorization"] = f"Bearer {secret}"
    http.headers["cookie"] = f"sid={secret}"
    odd_path = external_auth_pb2.CheckRequest()
    odd_path.attributes.request.http.path = f"//{secret}\\..;"
    odd_path.attributes.request.http.host = secret
    return [
        request.SerializeToString(),
        odd_path.SerializeToString(),
        secret.encode(),
        b"\x0a\xff" + secret.encode(),
    ]


def limits(secret: str) -> list[bytes]:
    request = rls_pb2.RateLimitRequest(domain="edge")
    entry = ratelimit_pb2.RateLimitDescriptor.Entry(key="tenant", value=secret)
    request.descriptors.append(ratelimit_pb2.RateLimitDescriptor(entries=[entry]))
    unknown = rls_pb2.RateLimitRequest(domain=secret)
    return [
        request.SerializeToString(),
        unknown.SerializeToString(),
        secret.encode(),
        b"\x12\xff" + secret.encode(),
    ]


def logs(secret: str) -> list[bytes]:
    message = als_pb2.StreamAccessLogsMessage()
    message.identifier.log_name = "canary"
    entry = message.http_logs.log_entry.add()
    entry.request.path = f"/x?access_token={secret}"
    entry.request.referer = f"https://user:{secret}@shop.example.com/?api_key={secret}#token={secret}"
    entry.request.request_headers["authorization"] = f"Basic {secret}"
    entry.response.response_headers["set-cookie"] = f"sid={secret}"
    entry.common_properties.access_log_type = accesslog_pb2.AccessLogType.DownstreamEnd
    return [message.SerializeToString(), secret.encode()]


async def test_no_grpc_status_tells_a_secret(edge):
    told = []

    async def ask(call) -> None:
        try:
            told.append(repr(await call))
        except grpc.aio.AioRpcError as error:
            told.append(f"{error.details()} {error.debug_error_string()}")

    for service, method, messages in (("authz", CHECK, checks), ("ratelimit", LIMIT, limits)):
        async with grpc.aio.insecure_channel(f"unix:{edge.directory}/{service}.sock") as channel:
            for message in messages(edge.canary):
                await ask(channel.unary_unary(method)(message, timeout=5))
    async with grpc.aio.insecure_channel(f"unix:{edge.directory}/accesslog.sock") as channel:
        await ask(channel.stream_unary(LOG)(iter(logs(edge.canary)), timeout=5))
    assert 9 == len(told)
    assert [] == [text for text in told if edge.canary in text]
