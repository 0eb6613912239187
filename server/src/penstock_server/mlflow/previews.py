"""What lists of traces show of a trace's inputs and outputs."""

from __future__ import annotations

import json
from typing import Any

_LIMIT = 1_000


def text(value: Any) -> str:
    """A value as text: JSON, unless it is text already."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def of(value: Any, role: str) -> str | None:
    """The inputs or outputs of a trace in short: of a chat what `role` said last. None when there are none."""
    if value is None:
        return None
    shown = _last_said(value, role) or json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _LIMIT else shown[: _LIMIT - 3] + "..."


def _last_said(value: Any, role: str) -> str | None:
    """What was said last in a chat, as OpenAI's API has it, by `role` if it said something."""
    if not isinstance(value, dict):
        return None
    messages = value.get("messages")
    if not isinstance(messages, list):
        choices = value.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        messages = [first.get("message")] if isinstance(first, dict) else []
    said = [each for each in messages if isinstance(each, dict) and isinstance(each.get("role"), str)]
    by_role = [each for each in said if each["role"] == role] or said
    content = by_role[-1].get("content") if by_role else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = next((part for part in reversed(texts) if isinstance(part, str)), None)
    return content if isinstance(content, str) else None
