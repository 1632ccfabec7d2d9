"""Plots of the figures that are points of a curve: PNG files, one for each plot, lines by what was measured."""

from collections import defaultdict
from pathlib import Path
from typing import Any

Row = dict[str, Any]

AXES = {  # plot -> title, x, y
    "partitions": ("Compaction of 200,000 records", "partitions", "seconds"),
    "operations": ("Storage operations of a driver", "partitions", "operations"),
    "change": (
        "Compaction of 1,000,000 rows, beside a rebuild",
        "share of the rows that changed",
        "share of a rebuild",
    ),
    "runs": ("Compaction of 0.1 % new after so many runs", "runs before", "seconds"),
}


def draw(results: Row, folder: Path) -> list[Path]:
    """Draw what the suites' rows hold; returns the files."""
    import matplotlib as mpl  # noqa: PLC0415 - only who draws has it

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 - only who draws has it

    lines: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for suite in results["suites"].values():
        for row in suite["rows"]:
            if "plot" in row:
                lines[row["plot"]][row["line"]].append((row["x"], row["y"]))
    folder.mkdir(parents=True, exist_ok=True)
    return [_drawn(pyplot, name, those, folder / f"{name}.png") for name, those in lines.items()]


def _drawn(pyplot: Any, name: str, lines: dict[str, list[tuple[float, float]]], path: Path) -> Path:
    title, across, up = AXES[name]
    figure, axes = pyplot.subplots(figsize=(6, 4), dpi=100)
    for line, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=line)
    axes.set(title=title, xlabel=across, ylabel=up, xscale="log", yscale="log" if name != "runs" else "linear")
    if name == "runs":
        axes.set(xscale="linear", ylim=(0, None))
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)
    return path
