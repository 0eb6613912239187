"""The two servers: what was made there, and requests with its ids in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from asking import Asking, Told

from differential.acts import Act, File, Now, Own, Ref, Trace, Within

# Where an answer has the id of what was made.
_MADE = {
    "experiment": lambda told: told["experiment_id"],
    "run": lambda told: told["run"]["info"]["run_id"],
    "model": lambda told: told["registered_model"]["name"],
    "version": lambda told: told["model_version"]["version"],
    "logged": lambda told: told["model"]["info"]["model_id"],
}
_NOTHING = {
    "experiment": "999998",
    "run": "e" * 32,
    "model": "nothing",
    "version": "98",
    "logged": "m-" + "e" * 32,
    "trace": "tr-" + "e" * 32,
}


@dataclass(slots=True)
class Side:
    """One server, within one program. `mark` is in the names of experiments and models, which all programs share."""

    asking: Asking
    mark: str
    made: dict[str, list[str]] = field(default_factory=dict)
    clock: int = 1000

    def play(self, act: Act) -> Told:
        """One request of it."""
        fields = self._filled(dict(act.fields))
        path = re.sub(r"{(\w+)}", lambda name: quote(str(fields.pop(name[1], _NOTHING.get(name[1])))), act.path)
        if act.method == "GET":
            told = self.asking.get(path, **fields)
        elif act.method == "PUT":
            told = self.asking.request("PUT", path, fields["body"].encode())
        else:
            told = self.asking.json(act.method, path, fields)
        if "mlflow-artifacts" in path:
            self.asking.close()  # MLflow's server does, after some such, without a word
        if act.makes and told.status == 200:
            self.made.setdefault(act.makes, []).append(str(_MADE[act.makes](told.json)))
        return told

    def play_next(self, act: Act, told: Told) -> Told:
        """The same for the page after the one that was told."""
        return self.play(replace(act, fields={**act.fields, "page_token": told.json["next_page_token"]}))

    def _filled(self, value: Any) -> Any:
        match value:
            case Ref():
                made = self.made.get(value.kind)
                return made[value.number % len(made)] if made else _NOTHING[value.kind]
            case Own():
                return self.mark + value.name if isinstance(value.name, str) and value.name.strip() else value.name
            case Within():
                ours = f"name LIKE '{self.mark}%'"
                return f"{ours} AND {value.text}" if value.text else ours
            case File():
                place = f"{self._filled(Ref('experiment', 0))}/{self._filled(Ref('run', value.run))}/artifacts"
                return f"{place}/{value.path}" if value.path else place
            case Trace():
                return "tr-" + hashlib.sha256(f"{self.mark}{value.number}".encode()).hexdigest()[:32]
            case Now():
                self.clock += 1000
                return self.clock
            case Mapping():
                return {name: self._filled(each) for name, each in value.items()}
            case list():
                return [self._filled(each) for each in value]
        return value
