"""`millrace new`: a pipeline that runs, written into a checkout from the files in `templates`.

The folder of templates mirrors the repository, with NAME in paths. `prefect.yaml` is there already, so its template is
added at its end; everything else is a new file.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from rich.console import Console
from rich.markup import escape

from flows.pipelines import ALL

TEMPLATES = Path(__file__).parent / "templates"
DEPLOYMENTS = Path("prefect.yaml")
PATTERN = re.compile(r"[a-z][a-z0-9_]{0,23}")


def write_pipeline(console: Console, name: str, into: Path) -> None:
    """Write all files of a new pipeline and add its deployment; nothing that exists is written over."""
    if not PATTERN.fullmatch(name) or keyword.iskeyword(name) or name == ALL:
        raise ValueError(
            f"{name!r} cannot name a pipeline: take at most 24 small letters, digits and underscores, a letter first, "
            f"and neither a word of Python's nor {ALL!r}"
        )
    deployments = into / DEPLOYMENTS
    if not (into / "flows" / "pipelines.py").is_file() or not deployments.is_file():
        raise ValueError(f"--into {into}: there is no checkout of Millrace; give the folder that holds {DEPLOYMENTS}")
    files = filled_templates(name)
    addition = files.pop(DEPLOYMENTS)
    hidden = (Path("tasks", name), Path("tasks", f"{name}.py"), Path("flows", name))
    if taken := [str(path) for path in (*files, *hidden) if (into / path).exists()]:
        raise ValueError(f"{', '.join(taken)} in {into.absolute()} would be written over; choose another name")
    for path, text in files.items():
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_text(text)
        console.print(f"new    {path}  {len(text.splitlines())} lines", highlight=False)
    deployments.write_text(deployments.read_text() + addition)
    console.print(
        f"added  {DEPLOYMENTS}  deployment {name}/demo\nNext, in {escape(str(into.absolute()))}: millrace plan {name}; "
        f"millrace run {name}; then make it yours: docs/new_pipeline.md",
        highlight=False,
        soft_wrap=True,
    )


def filled_templates(name: str) -> dict[Path, str]:
    """Return the text of every file of a pipeline by its path in the repository."""
    words = {"name": name, "Name": "".join(part.title() for part in name.split("_"))}
    return {
        Path(str(path.relative_to(TEMPLATES).with_suffix("")).replace("NAME", name)): Template(
            path.read_text()
        ).substitute(words)
        for path in sorted(TEMPLATES.rglob("*.txt"))
    }
