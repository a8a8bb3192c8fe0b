"""Markdown tables on the terminal."""


def print_table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A title and a table that can be pasted into docs/performance.md."""
    print(f"\n### {title}\n")
    for line in (head, tuple("---" for _ in head), *rows):
        print("| " + " | ".join(line) + " |", flush=True)
