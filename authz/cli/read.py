"""The documents of a section again, which have just been found good: for what stands where in them. Root."""

from collections.abc import Iterator

from authz.config import AuthzSection
from edgekeeper.beside import is_test
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, parse

__all__ = ["documents"]


def documents(section: AuthzSection, sources: Sources) -> Iterator[tuple[Document, str]]:
    """Yield each document, and the text of its file, from `sources` that have read them before: the same texts."""
    for entry in section.policies:
        for file in sources.yaml_files(entry.path):
            if not is_test(file):
                content = sources.read(file)
                text = content.decode()
                yield from ((each, text) for each in parse(content, file) if each.value is not None)
