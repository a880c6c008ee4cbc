"""`vqzoo plugins`."""

from vqzoo.cli.terminal import command, stdout


@command
def plugins() -> None:
    """List the installed plugins, what each brings, and what is wrong with those left out."""
    from rich.markup import escape
    from rich.table import Table

    from vqzoo.plugin.manager import installed_plugins

    found = installed_plugins()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("plugin", "package", "module", "brings"):
        table.add_column(title)
    for status in found.statuses:
        origin = status.origin
        brings = f"[red]left out:[/] {escape(status.problem)}" if status.problem else ""
        table.add_row(
            escape(origin.entry_point),
            escape(f"{origin.distribution} {origin.version}"),
            escape(status.module),
            brings or escape(", ".join(status.brings)),
        )
    console = stdout()
    console.print(table)
    registries = (found.quantizers, found.transforms, found.selectors, found.packings)
    for registry in registries:
        for name, origins in registry.clashes().items():
            choices = " or ".join(f"{origin.distribution}:{name}" for origin in origins)
            console.print(f"[yellow]{registry.kind} {escape(name)} is ambiguous:[/] say {choices}")
