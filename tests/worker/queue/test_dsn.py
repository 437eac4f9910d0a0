"""DSNs: checked before anything is tried, named without their password."""

import pytest

from tests.support.queue_worker import SECRET, enqueueing
from worker.queue import InvalidDSN, Queue, QueueUnavailable

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
        "unix://",
        f"unix:///{'x' * 120}",
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
    ],
)
async def test_a_dsn_is_named_without_its_password(dsn: str, name: str) -> None:
    assert Queue(dsn).name == name


async def test_a_port_where_nobody_listens_is_named_with_the_reason() -> None:
    async with enqueueing(f"redis://:{SECRET}@127.0.0.1:1/0") as queue:
        with pytest.raises(QueueUnavailable, match=r"^redis://127\.0\.0\.1:1/0: .*refused") as refused:
            await queue.ping()
    assert SECRET not in str(refused.value)
