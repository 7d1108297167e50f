"""Orders of clients that are carried out to their end, whether or not the client stays for the answer.

ComfyUI clears, deletes and frees in one turn of its loop, and nobody can leave in the middle of that. Here an order
asks ComfyUI and writes to the journal, and a client that hangs up ends its handler (`handler_cancellation`): so the
order runs in a task of its own.
"""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.downstream.middleware import errors_as_json
from proxy.engine import Engine
from proxy.errors import ShuttingDown


class Orders:
    """Makes handlers that their clients cannot tear in two."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def to_the_end(self, handler: Handler) -> Handler:
        """The handler, in a task of its own. It raises ShuttingDown where the proxy stops before the end."""

        async def order(request: web.Request) -> web.StreamResponse:
            answered: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
            self._engine.see_through(_carry_out(handler, request, answered))
            return await asyncio.shield(answered)

        return order


async def _carry_out(handler: Handler, request: web.Request, answered: asyncio.Future[web.StreamResponse]) -> None:
    try:
        # here, for nobody else hears of an error after the client has left
        answered.set_result(await errors_as_json(request, handler))
    except asyncio.CancelledError:
        answered.set_exception(ShuttingDown())
        raise
    except web.HTTPException as error:
        answered.set_exception(error)
