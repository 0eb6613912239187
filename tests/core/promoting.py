"""What tests of promotions share: a model, its versions with what they measured, and who calls."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from penstock_server.core.model_versions import ModelVersions
from penstock_server.core.promotions import Promotions
from penstock_server.core.registry import Registry
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.promotions import Outcome, Promotion, Wish
from penstock_server.model.registry import EventKind, Happening, NewVersion, Policy, Stage
from penstock_server.model.runs import NewRun, RunId
from penstock_server.postgres import registry_events
from penstock_server.postgres.database import Database

MODEL = "iris"


def who(user: str) -> Caller:
    return Caller("tester", WorkspaceId(1), user, "call-" + user)


ANN, BOB, CAT, DAN = map(who, ("ann", "bob", "cat", "dan"))

METRIC = """
INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count, last_value)
SELECT $1, 1, 0, (SELECT count(*) FROM run_metrics WHERE run_id = $1), $2, 1, $3
ON CONFLICT (run_id, name) DO UPDATE SET last_value = excluded.last_value
"""


@dataclass
class Place:
    """One model in a database."""

    db: Database

    def __post_init__(self) -> None:
        self.registry = Registry(self.db)
        self.versions = ModelVersions(self.db)
        self.promotions = Promotions(self.db)
        self.runs = Runs(self.db, lambda _: None)

    async def execute(self, sql: str, *args: object) -> None:
        async with self.db.connection() as conn:
            await conn.execute(sql, *args)

    async def measure(self, run_id: RunId, **metrics: float) -> None:
        for name, value in metrics.items():
            await self.execute(METRIC, run_id, name, value)

    async def run(self, tags: dict[str, str] | None = None, **metrics: float) -> RunId:
        made = await self.runs.create(ANN, NewRun(params={"lr": "0.1"}, tags=tags or {}))
        await self.measure(made.id, **metrics)
        return made.id

    async def version(self, tags: dict[str, str] | None = None, **metrics: float) -> int:
        """A version of a run that has measured this."""
        new = NewVersion(MODEL, run_id=await self.run(**metrics), source="s3://bucket/model", tags=tags or {})
        return (await self.versions.create(ANN, new)).version

    async def without_run(self) -> int:
        return (await self.versions.create(ANN, NewVersion(MODEL, source="s3://bucket/model"))).version

    async def promote(
        self, version: int, target: str = "@champion", *gates: str, by: Caller = ANN, archive_others: bool = False,
        **options: Any,
    ) -> Outcome:  # fmt: skip
        wish = Wish(MODEL, version, target, gates, archive_others)
        return await self.promotions.promote(by, wish, **options)

    async def guard(self, target: str, *gates: str, approvals: int = 0) -> None:
        await self.promotions.set_policy(ANN, MODEL, Policy(target, gates, approvals))

    async def request(self, version: int, target: str = "@champion", *gates: str, by: Caller = ANN) -> Promotion:
        promotion, _ = await self.promotions.request(by, Wish(MODEL, version, target, gates))
        return promotion

    async def aliases(self) -> dict[str, int]:
        return (await self.registry.get(ANN, MODEL)).aliases

    async def stages(self) -> dict[int, Stage]:
        found, _ = await self.versions.search(ANN, filter=f"name = '{MODEL}'")
        return {each.version: each.stage for each in found}

    async def history(self, *kinds: EventKind) -> list[Happening]:
        """What has happened to the model, the oldest first."""
        async with self.db.connection() as conn:
            events, more = await registry_events.listed(
                conn, ANN.workspace_id, MODEL, 10_000, kinds=kinds, oldest_first=True
            )
        assert not more
        return [event.what for event in events]

    async def replayed(self) -> tuple[dict[str, int], dict[int, Stage]]:
        """The aliases and stages that the history leads to."""
        aliases: dict[str, int] = {}
        stages: dict[int, Stage] = {}
        for what in await self.history():
            match what.kind:
                case EventKind.VERSION_CREATED:
                    stages[what.version] = Stage.NONE
                case EventKind.VERSION_DELETED:
                    assert stages.pop(what.version).label == what.before["stage"]
                case EventKind.STAGE_CHANGED:
                    assert stages[what.version].label == what.before["stage"]
                    stages[what.version] = Stage[what.after["stage"].upper()]
                case EventKind.ALIAS_SET:
                    assert str(aliases.get(what.key, "")) == what.before.get("version", "")
                    aliases[what.key] = int(what.after["version"])
                case EventKind.ALIAS_DELETED:
                    assert aliases.pop(what.key) == what.version
        return aliases, stages


async def all_at_once(tasks: Collection[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What each of them returns or raises."""
    return await asyncio.gather(*tasks, return_exceptions=True)
