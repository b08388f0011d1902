"""An import-linter contract of our own: outside a resource, only its public modules may be imported."""

from __future__ import annotations

from typing import Any

from importlinter import Contract, ContractCheck, fields, output


class SlicePrivacyContract(Contract):
    """Fails for an import from outside a slice of something that is neither public nor an entry for the server.

    Options: `container` holds the slices; `public` lists modules that all may import; `entry` those that only the server may, and the shipped fakes,
    which put the same things together.
    """

    container = fields.StringField()
    public = fields.StringField()
    entry = fields.StringField()

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        """Look at every import of every module of every slice."""
        public = {name.strip() for name in str(self.public).split(",")}
        entry = {name.strip() for name in str(self.entry).split(",")}
        prefix = f"{self.container}."
        package = str(self.container).partition(".")[0]
        roof = {f"{package}.server", f"{package}.testing"}
        broken: list[tuple[str, str]] = []
        for imported in sorted(graph.modules):
            parts = imported.removeprefix(prefix).split(".")
            if not imported.startswith(prefix) or len(parts) < 2 or parts[1] in public:
                continue
            home = prefix + parts[0]
            for importer in sorted(graph.find_modules_that_directly_import(imported)):
                is_inside = importer == home or importer.startswith(f"{home}.")
                is_roof = parts[1] in entry and ".".join(importer.split(".")[:2]) in roof
                if not is_inside and not is_roof:
                    broken.append((importer, imported))
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each offence."""
        for importer, imported in check.metadata["broken"]:
            output.print_error(f"{importer} reaches into {imported}")
