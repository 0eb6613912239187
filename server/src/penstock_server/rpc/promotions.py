"""The methods of RegistryService that promote versions."""

from __future__ import annotations

from typing import Any, NoReturn

from penstock_server.model.access import Caller
from penstock_server.model.errors import FailedPrecondition


class PromotionMethods:
    """Stands in until core can promote."""

    async def promote(self, caller: Caller, request: Any) -> NoReturn:
        """Not yet."""
        raise FailedPrecondition("this server cannot promote yet")

    set_promotion_policy = delete_promotion_policy = promote
    request_promotion = approve = reject = list_promotions = promote
