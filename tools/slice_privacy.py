"""An import-linter contract of our own: outside a resource, only its public modules may be imported."""

from __future__ import annotations

from typing import Any

from importlinter import Contract, ContractCheck, fields, output


class SlicePrivacyContract(Contract):
    """Fails for an import from outside a slice of something that is neither public nor an entry for the server.

    Options: `container` holds the slices; `public` lists modules that all may import; `entry` those that only the server may.
    """

    container = fields.StringField()
    public = fields.StringField()
    entry = fields.StringField()

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        """Look at every import of every module of every slice."""
        public = {name.strip() for name in str(self.public).split(",")}
        entry = {name.strip() for name in str(self.entry).split(",")}
        prefix = f"{self.container}."
        server = f"{str(self.container).partition('.')[0]}.server"
        broken: list[tuple[str, str]] = []
        for imported in sorted(graph.modules):
            parts = imported.removeprefix(prefix).split(".")
            if not imported.startswith(prefix) or len(parts) < 2 or parts[1] in public:
                continue
            home = prefix + parts[0]
            for importer in sorted(graph.find_modules_that_directly_import(imported)):
                is_inside = importer == home or importer.startswith(f"{home}.")
                is_server = parts[1] in entry and (importer == server or importer.startswith(f"{server}."))
                if not is_inside and not is_server:
                    broken.append((importer, imported))
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each offence."""
        for importer, imported in check.metadata["broken"]:
            output.print_error(f"{importer} reaches into {imported}")
