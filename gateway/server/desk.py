"""Where operations on asynchronous routes are carried out: in a process that has the queues."""

from __future__ import annotations

from gateway.admin.control import DeliveryAnswer, DeliveryCall
from gateway.delivery.asked import Conflict, Missing, Unusable
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.operations import OPERATIONS
from gateway.errors import StoreError


async def answer(dispatcher: Dispatcher | None, call: DeliveryCall) -> DeliveryAnswer:
    """Carry it out. `dispatcher` is that of what is served; None without asynchronous routes."""
    operation = OPERATIONS.get(call.name)
    if operation is None:
        return DeliveryAnswer("unknown", detail=f"There is no operation named {call.name}.")
    if dispatcher is None:
        return DeliveryAnswer("unused", detail="No route of the configuration has delivery.")
    params = {**call.params, "by": call.by} if call.by else call.params
    try:
        return DeliveryAnswer("done", await operation(dispatcher, params))
    except Unusable as error:
        return DeliveryAnswer("invalid", detail=str(error))
    except Missing as error:
        return DeliveryAnswer("missing", detail=str(error))
    except Conflict as error:
        return DeliveryAnswer("conflict", detail=str(error))
    except StoreError as error:
        return DeliveryAnswer("unavailable", detail=error.detail)
