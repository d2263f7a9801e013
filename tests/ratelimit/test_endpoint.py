import pytest

from ratelimit.endpoint import Endpoint, RedisUrl, endpoint, redis_url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h:1", Endpoint("h", 1)),
        ("Redis.Example.COM:6379", Endpoint("redis.example.com", 6379)),
        ("127.0.0.1:65535", Endpoint("127.0.0.1", 65535)),
        ("[::1]:7", Endpoint("::1", 7)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, found: Endpoint):
    assert found == endpoint(text)
    assert found == endpoint(str(found))


@pytest.mark.parametrize(
    "text", ["", "h", ":1", "h:", "h:0", "h:65536", "h:0000065536", "h:" + "1" * 5000, "h:x", "h:1:2", "[::1:7", "a b:1", "-h:1", "h..i:1", "999.1.1.1:1", "h:²", "x" * 300 + ":1"]
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(
        ValueError, match=r"^expected `HOST:PORT`: a name or an IP address, and a port of 1 to 65535$"
    ):
        endpoint(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h:1", Endpoint("h", 1)),
        ("[::1]:7", Endpoint("::1", 7)),
        ("unix:/run/redis.sock", Endpoint(path="/run/redis.sock")),
    ],
)
def test_an_endpoint_in_words(text: str, found: Endpoint):
    assert text == str(found)


def test_a_database_is_a_number_of_at_most_five_digits():
    assert 99999 == redis_url("redis://h/99999").database
    for wrong in ("100000", "x", "²", "-1", "1/2"):
        with pytest.raises(ValueError, match=r"^the path of the URL is the number of a database"):
            redis_url(f"redis://h/{wrong}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("redis://h", RedisUrl(Endpoint("h", 6379))),
        ("redis://h:1/", RedisUrl(Endpoint("h", 1))),
        ("redis://h/3", RedisUrl(Endpoint("h", 6379), database=3)),
        ("rediss://h:1", RedisUrl(Endpoint("h", 1), tls=True)),
        ("redis://[::1]:1", RedisUrl(Endpoint("::1", 1))),
        ("redis://:p%40ss@h", RedisUrl(Endpoint("h", 6379), password="p@ss")),
        ("redis://u:p@h:1/2", RedisUrl(Endpoint("h", 1), username="u", password="p", database=2)),
        ("unix:///run/redis.sock", RedisUrl(Endpoint(path="/run/redis.sock"))),
        (
            "unix://u:p@/run/redis.sock",
            RedisUrl(Endpoint(path="/run/redis.sock"), username="u", password="p"),
        ),
    ],
)
def test_a_url_says_where_and_who(text: str, found: RedisUrl):
    assert found == redis_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "h:1", "http://h", "redis:h", "redis://", "redis://h:x", "redis://h:70000", "redis://h:0", "redis://h/x", "redis://h/1/2",
        "redis://h?db=1", "redis://h#1", "redis://u@h", "unix://relative", "unix://", "unix:///a?db=1", "unix:///" + "x" * 107,
    ],
)  # fmt: skip
def test_what_is_no_such_url_is_refused_without_repeating_it(text: str, canary: str):
    with pytest.raises(ValueError) as error:
        redis_url(text)
    assert canary not in str(error.value)


def test_a_password_in_a_broken_url_is_not_repeated(canary: str):
    for text in (
        f"redis://u:{canary}@h:x",
        f"redis://u:{canary}@h:1?x",
        f"{canary}://h",
        f"redis://{canary} :1",
    ):
        with pytest.raises(ValueError) as error:
            redis_url(text)
        assert canary not in str(error.value)
