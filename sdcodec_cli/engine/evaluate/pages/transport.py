"""The controls of a player, which `player.js` binds."""

from __future__ import annotations

from collections.abc import Sequence

PLAY = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="when-paused" d="M8 5v14l11-7z"/>'
    '<path class="when-playing" d="M7 5h4v14H7zm6 0h4v14h-4z"/></svg>'
)


def transport(seconds: float, more: str = "") -> str:
    """HTML of play, position and loop, and of `more` controls, for a sound that is `seconds` long."""
    return f"""<div class="transport" data-player>
<button type="button" class="play" data-do="play" aria-label="Play">{PLAY}</button>
<span class="time" data-show="position">0:00.0</span>
<input type="range" class="seek" data-do="seek" min="0" max="{seconds:.3f}" step="any" value="0" aria-label="Position">
<span class="time" data-show="duration">{int(seconds // 60)}:{seconds % 60:04.1f}</span>
<button type="button" class="toggle" data-do="loop" aria-pressed="true">Loop</button>
{more}<span class="status" data-show="status" role="status"></span>
</div>
"""


def shortcuts(rows: Sequence[tuple[str, str]]) -> str:
    """HTML of a list of keys, separated by spaces, and what each does."""
    entries = (
        f"<div><dt>{' '.join(f'<kbd>{key}</kbd>' for key in keys.split())}</dt><dd>{does}</dd></div>"
        for keys, does in (("Space", "play, pause"), *rows)
    )
    return f'<dl class="keys">{"".join(entries)}</dl>\n'
