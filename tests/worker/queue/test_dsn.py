"""DSNs: checked before anything is tried, named without their password."""

import pytest

from tests.support.queue.queue_worker import SECRET, enqueueing
from worker.queue import InvalidDSN, Queue, QueueUnavailable
from worker.queue.dsn import parse_dsn

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "localhost:6379",
        f"http://:{SECRET}@localhost",
        f"redis://:{SECRET}@localhost:port",
        f"redis://:{SECRET}@localhost:0",
        f"redis://:{SECRET}@localhost:99999",
        f"redis://:{SECRET}@localhost/zero",
        f"redis://:{SECRET}@localhost/0/1",
        f"redis://:{SECRET}@localhost?db=x",
        f"redis://:{SECRET}@localhost?db=-1",
        f"redis://:{SECRET}@localhost?socket_timeout=9000",
        f"redis://:x/{SECRET}@localhost",
        f"redis://:x#{SECRET}@localhost",
        f"redis://:x?{SECRET}@localhost",
        f"redis://:{SECRET}@[::1",
        f"redis://:{SECRET}\n@localhost",
        "unix://relative/path.sock",
        "unix:///run/redis.sock?ssl_cert_reqs=none",
        "unix://",
        f"unix:///{'x' * 120}",
        f"user:{SECRET}@localhost:6379",
        f"redis+sentinel://:{SECRET}@host:26379",
        f"redis+sentinel://:{SECRET}@host:26379/",
        f"redis+sentinel://:{SECRET}@host:26379/two/parts",
        f"redis+sentinel://:{SECRET}@host:26379,,other/master",
        f"redis+sentinel://:{SECRET}@host:port,other/master",
        f"redis+sentinel://:{SECRET}@/master",
        f"redis+sentinel://:{SECRET}@host/master?sentinel_master={SECRET}",
        f"redis://:{SECRET}@host?sentinel_password={SECRET}",
    ],
)
def test_a_bad_dsn_is_refused_in_one_line_without_its_password(dsn: str) -> None:
    with pytest.raises(InvalidDSN) as refused:
        Queue(dsn)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("dsn", "name"),
    [
        ("redis://", "redis://localhost:6379/0"),
        (f"redis://user:{SECRET}@host:7000/3", "redis://host:7000/3"),
        (f"rediss://:{SECRET}@[::1]?db=2", "rediss://[::1]:6379/2"),
        (f"unix://user:{SECRET}@/run/r%20s.sock?db=1", "unix:///run/r s.sock?db=1"),
        (f"unix:///run/r.sock?password={SECRET}", "unix:///run/r.sock?db=0"),
        (
            f"redis+sentinel://user:{SECRET}@a:1,b,[::1]:3/mine?db=4&sentinel_password={SECRET}",
            "redis+sentinel://a:1,b:26379,[::1]:3/mine?db=4",
        ),
        (f"rediss+sentinel://:{SECRET}@a/mine", "rediss+sentinel://a:26379/mine?db=0"),
    ],
)
async def test_a_dsn_is_named_without_its_password(dsn: str, name: str) -> None:
    assert Queue(dsn).name == name


async def test_a_port_where_nobody_listens_is_named_with_the_reason() -> None:
    async with enqueueing(f"redis://:{SECRET}@127.0.0.1:1/0") as queue:
        with pytest.raises(QueueUnavailable, match=r"^redis://127\.0\.0\.1:1/0: .*refused") as refused:
            await queue.ping()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("dsn", "meant"),
    [
        ("localhost:6379", "redis://localhost:6379"),
        ("localhost", "redis://localhost"),
        ("10.0.0.1:6379/2", "redis://10.0.0.1:6379/2"),
        ("[::1]:6379", "redis://[::1]:6379"),
        ("/run/redis/redis.sock", "unix:///run/redis/redis.sock"),
    ],
)
def test_a_dsn_without_a_scheme_is_guessed(dsn: str, meant: str) -> None:
    with pytest.raises(InvalidDSN) as refused:
        Queue(dsn)
    assert str(refused.value) == f"the Redis DSN {dsn!r} has no scheme; did you mean {meant}?"


async def test_a_name_that_nobody_knows_is_said_in_words() -> None:
    async with enqueueing(f"redis://:{SECRET}@no-such-host.invalid/0") as queue:
        with pytest.raises(QueueUnavailable) as refused:
            await queue.ping()
    said = str(refused.value)
    assert said.startswith("redis://no-such-host.invalid:6379/0: its name can't be resolved (")
    assert said.endswith("): check the spelling, /etc/hosts and DNS")


@pytest.mark.parametrize(
    ("dsn", "tls"),
    [
        ("redis://rediss-1:6379/0", False),
        ("redis+sentinel://rediss-1/master", False),
        ("rediss://queue/0", True),
        ("rediss+sentinel://one,two/master", True),
    ],
)
def test_the_scheme_says_whether_it_is_tls(dsn: str, tls: bool) -> None:
    assert parse_dsn(dsn).tls is tls
