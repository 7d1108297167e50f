"""One client that does not read holds up the events of all."""

import asyncio
from urllib.parse import urlsplit

from simulator import NodeStart
from tests.simulator.support import shown, simulated

HANDSHAKE = (
    "GET /ws?clientId={client} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LARGE = 2**19


async def test_the_others_wait_until_it_is_gone() -> None:
    submitted = asyncio.Event()

    async def wait(start: NodeStart) -> None:
        del start
        await submitted.wait()

    async with simulated(before_node=wait) as driver:
        address = urlsplit(driver.sim.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
        writer.write(HANDSHAKE.format(client="lazy", host=address.netloc).encode())
        assert b"101" in await reader.readline()
        gone = False

        async with driver.session.ws_connect(f"{driver.sim.url}/ws?clientId=other") as other:
            assert (await other.receive_json())["data"]["sid"] == "other"
            for number in range(40):
                await driver.submit(shown(f"{number}" + "x" * LARGE), client_id="lazy")
            submitted.set()
            await driver.sim.idle()

            async def everything_told() -> bool:
                """Whether the lazy one was gone when the last status arrived."""
                while True:
                    event = await other.receive_json()
                    if event["data"]["status"]["exec_info"]["queue_remaining"] == 0:
                        return gone

            listening = asyncio.create_task(everything_told())
            for _ in range(500):
                await asyncio.sleep(0)
            assert not listening.done()
            gone = True
            writer.close()
            assert await asyncio.wait_for(listening, timeout=30)
