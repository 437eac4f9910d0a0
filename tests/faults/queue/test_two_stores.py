"""Two stores with one Redis: whoever comes second is refused, with one line that names both."""

import pytest

from tests.support.fleet import Fleet, running_fleet

pytestmark = pytest.mark.anyio


async def test_the_second_store_s_daemons_are_refused_and_its_clients_warned(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with running_fleet(redis=fleet.settings.redis) as other, fleet.client() as client:
        names = (fleet.settings.database_name, other.settings.database_name)
        for daemon in ("worker", "reaper"):
            refused = await other.start(daemon)
            assert await refused.process.wait() == 3
            line = await refused.log("daemon.failed")
            assert all(name in line["reason"] for name in names), line
        document = other.root / "decky-a.json"
        document.write_text('{"services": {"decky-a": {"command": ["sleep", "60"]}}}')
        status, out, err = await other.run("deploy", "decky-a", "--compose", str(document))
        assert (status, out.count("\n")) == (0, 1)
        assert (err.count("Redis can't be used"), err.count("\n")) == (1, 1)
        assert all(name in err for name in names), err
        status, out, _ = await other.run("doctor")
        assert (status, "FAIL queue" in out) == (3, True)
        ours = await client.deploy("decky-a", fleet.document("decky-a"))
        assert (await client.wait(ours, timeout=30))["status"] == "succeeded"
    assert worker.logged("lifecycle.unknown") == []
