"""Where the numbers of a report come from: files, checksums, versions, machine."""

from birder.hub import checksum
from birder.inference.machine import facts, versions
from birder.inference.results.run_file import read_run
from birder.report.sources import Source


def provenance(source: Source) -> dict[str, str]:
    """Names and values for one source, as they are shown."""
    about = {"SHA-256 of names and labels of the pictures": source.samples.fingerprint()}
    if source.model is not None:
        return {
            "Model file": source.model.path.name,
            "SHA-256 of the model": checksum.sha256(source.model.path),
            **about,
        }
    assert source.table is not None, "a source is a model or a table"
    about = {"Table of results": source.table.name, "SHA-256 of the table": checksum.compute(source.table), **about}
    run = read_run(source.table)
    if run is None:
        return about
    model = {"Model": run.model.get("name"), "SHA-256 of the model": run.model.get("sha256")}
    made = {"Made by": " ".join(run.line), "Finished": run.finished, "Computed by": run.backend}
    return about | {name: str(value) for name, value in (model | made).items() if value}


def surroundings(command: str) -> dict[str, str]:
    """What made the page, and on what machine."""
    machine, installed = facts(), versions()
    memory = machine["memory_gib"]
    return {
        "Command": command,
        "Versions": ", ".join(f"{name} {version}" for name, version in installed.items()),
        "System": f"{machine['system']}, Python {machine['python']}",
        "Processor": f"{machine['processor']}, {machine['cores']} cores{f', {memory} GiB of memory' if memory else ''}",
    }
