"""Print what agentguard does with each of the sixty shapes: `python -m tests.integration.shapes`.

+N is how many lines of it name the guard. The tests beside it assert that each row is true.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from tests.integration.shapes.rows import SHAPES
from tests.integration.shapes.shape import Open, Outcome, Refused, Works, run


def said(outcome: Outcome) -> str:
    if isinstance(outcome, Works):
        return "works"
    of = "" if len(outcome.kinds) == 3 else f" ({', '.join(outcome.kinds)} only)"
    if isinstance(outcome, Refused):
        return f"refused{of}: … {outcome.sentence} …"
    return f"OPEN{of}: {outcome.why}"


def main() -> None:
    logging.disable()
    rows = sorted((shape for shape in SHAPES), key=lambda shape: shape.number)
    for shape in rows:
        number = "" if shape.form else str(shape.number)
        with tempfile.TemporaryDirectory() as folder:
            lines = run(shape, "permit", Path(folder)).lines
        print(f"{number:>3} {shape.title[:62]:<62} +{lines}  {said(shape.outcome)}", flush=True)
    counted = [shape.outcome for shape in rows if not shape.form]
    works, refused, left = (
        sum(isinstance(each, kind) for each in counted) for kind in (Works, Refused, Open)
    )
    forms = sum(isinstance(shape.outcome, Open) for shape in rows if shape.form)
    print(
        f"\n{len(counted)} shapes, {works} work, {refused} refused with a reason, {left} open"
        f" (and {forms} open of {len(rows) - len(counted)} other forms)"
    )


if __name__ == "__main__":
    main()
