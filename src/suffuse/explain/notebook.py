"""An explanation in a notebook: the coloured texts and nothing else, in a few lines of HTML that run no script."""

from html import escape
from typing import TYPE_CHECKING

from suffuse.explain.colours import LIGHT
from suffuse.explain.passage import as_html, passages

if TYPE_CHECKING:
    from suffuse.explain.explanation import Explained, Explanation

# The light scale on its own paper: a notebook's theme is not the browser's.
_STYLE = """
.suffuse { background: #fff; color: #1c1e21; border: 1px solid #dcdfe3; border-radius: 6px; padding: 8px 12px;
  margin: 4px 0; max-width: 800px; }
.suffuse p { margin: 2px 0; }
.suffuse .text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; line-height: 1.7; }
.suffuse small { color: #5b6067; }
.suffuse mark { background: none; color: inherit; border-bottom: 2px solid #1c1e21; }
.suffuse mark::after { content: attr(data-label); font-size: .7em; color: #5b6067; padding: 0 .3em; }
.suffuse [class*=" n"] { text-decoration: underline dashed 1px; text-underline-offset: 3px; }
""" + LIGHT.style_sheet().replace(".", ".suffuse .")


def compact(explanation: "Explanation") -> str:
    """HTML of an explanation, for Jupyter."""
    parts = [_explained(explanation, explained) for explained in explanation.explained]
    if not parts:
        parts = ["<p>nothing to explain in this answer</p>"]
    notes = []
    if explanation.windows > 1:
        notes.append(f"read in {explanation.windows} windows, explained one by one")
    if explanation.left_out:
        notes.append(f"{explanation.left_out} more of the answer left out")
    if notes:
        parts.append(f"<p><small>{'; '.join(notes)}</small></p>")
    return f'<div class="suffuse"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _explained(explanation: "Explanation", explained: "Explained") -> str:
    heading = (
        f"<p><b>{escape(explained.target)}</b> <small>logit {explained.value:.2f}, {explanation.method}: "
        "blue speaks for it, orange and underlined against</small></p>"
    )
    cut = passages(explanation.texts, explained.words, explanation.answer)
    texts = [
        f'<p class="text" dir="auto" title="{escape(field)}">{as_html(stretches, explained.span)}</p>'
        for field, stretches in cut.items()
    ]
    return heading + "".join(texts)
