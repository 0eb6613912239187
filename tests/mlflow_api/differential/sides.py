"""The two servers: what was made there, and requests with its ids in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from asking import Asking, Told

from differential.acts import Act, Own, Ref, Within

# Where an answer has the id of what was made.
_MADE = {
    "experiment": lambda told: told["experiment_id"],
    "run": lambda told: told["run"]["info"]["run_id"],
    "model": lambda told: told["registered_model"]["name"],
    "version": lambda told: told["model_version"]["version"],
    "logged": lambda told: told["model"]["info"]["model_id"],
}
_NOTHING = {"experiment": "999998", "run": "e" * 32, "model": "nothing", "version": "98", "logged": "m-" + "e" * 32}


@dataclass(slots=True)
class Side:
    """One server, within one program. `mark` is in the names of experiments and models, which all programs share."""

    asking: Asking
    mark: str
    made: dict[str, list[str]] = field(default_factory=dict)

    def play(self, act: Act) -> Told:
        """One request of it."""
        fields = self._filled(dict(act.fields))
        path = act.path
        for name, nothing in _NOTHING.items():
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(str(fields.pop(name, nothing)), safe=""))
        told = self.asking.get(path, **fields) if act.method == "GET" else self.asking.json(act.method, path, fields)
        if act.makes and told.status == 200:
            self.made.setdefault(act.makes, []).append(str(_MADE[act.makes](told.json)))
        return told

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Ref):
            made = self.made.get(value.kind)
            return made[value.number % len(made)] if made else _NOTHING[value.kind]
        if isinstance(value, Own):
            return self.mark + value.name if isinstance(value.name, str) and value.name.strip() else value.name
        if isinstance(value, Within):
            ours = f"name LIKE '{self.mark}%'"
            return f"{ours} AND {value.text}" if value.text else ours
        if isinstance(value, Mapping):
            return {name: self._filled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        return value
