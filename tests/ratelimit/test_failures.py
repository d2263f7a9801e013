import pytest

from ratelimit.failures import Failure, Kind, kind_of_reply

REPLIES = [
    ("NOAUTH Authentication required.", Kind.PASSWORD),
    ("WRONGPASS invalid username-password pair or user is disabled.", Kind.PASSWORD),
    ("DENIED Redis is running in protected mode because ...", Kind.PASSWORD),
    ("ERR AUTH <password> called without any password configured for the default user.", Kind.PASSWORD),
    ("ERR invalid password", Kind.PASSWORD),
    ("NOPERM User default has no permissions to run the 'evalsha' command", Kind.PERMISSION),
    ("ERR ACL failure in script: User limits has no permissions to run the 'set' command script: ab, on @user_script:1.", Kind.PERMISSION),
    ("ERR The user executing the script can't run this command: User has no permissions to run the 'set' command", Kind.PERMISSION),
    ("OOM command not allowed when used memory > 'maxmemory'.", Kind.MEMORY),
    ("ERR Error running script (call to f_ab): @user_script:1: -OOM command not allowed when used memory > 'maxmemory'.", Kind.MEMORY),
    ("READONLY You can't write against a read only replica.", Kind.READ_ONLY),
    ("ERR Error running script (call to f_ab): @user_script:1: -READONLY You can't write", Kind.READ_ONLY),
    ("LOADING Redis is loading the dataset in memory", Kind.LOADING),
    ("BUSY Redis is busy running a script.", Kind.BUSY),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Kind.PRIMARY_DOWN),
    ("NOREPLICAS Not enough good replicas to write.", Kind.NO_REPLICAS),
    ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", Kind.DISK),
    ("ERR Error running script (call to f_ab): @user_script:1: -MISCONF Errors writing to the AOF file", Kind.DISK),
    ("CLUSTERDOWN Hash slot not served", Kind.CLUSTER_DOWN),
    ("MOVED 3999 127.0.0.1:6381", Kind.MOVED),
    ("ASK 3999 127.0.0.1:6381", Kind.ASK),
    ("TRYAGAIN Multiple keys request during rehashing of slot", Kind.TRY_AGAIN),
    ("CROSSSLOT Keys in request don't hash to the same slot", Kind.IS_CLUSTER),
    ("NOSCRIPT No matching script.", Kind.NO_SCRIPT),
    ("ERR max number of clients reached", Kind.CLIENTS),
    ("ERR DB index is out of range", Kind.DATABASE),
    ("ERR SELECT is not allowed in cluster mode", Kind.DATABASE),
    ("ERR user_script:3: attempt to index a nil value script: ab, on @user_script:3.", Kind.SCRIPT),
    ("WHATEVER else", Kind.ERROR),
    ("", Kind.ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), REPLIES)
def test_what_a_server_refuses_has_a_name(text: str, kind: Kind):
    assert kind is kind_of_reply(text.encode())


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_tells_an_operator_what_happened(kind: Kind):
    assert kind.sentence
    assert f"h:1: {kind.sentence}" == Failure(kind, "h:1").sentence


@pytest.mark.parametrize(
    ("kind", "is_sure", "is_of_connection"),
    [
        (Kind.REFUSED, True, True),
        (Kind.MEMORY, True, False),
        (Kind.TIMEOUT, False, True),
        (Kind.SCRIPT, False, False),
    ],
)
def test_what_would_fail_again_and_what_a_new_connection_proves_mended(kind, is_sure, is_of_connection):
    assert (is_sure, is_of_connection) == (kind.is_sure, kind.is_of_connection)
