"""What a workflow needs in memory: one `ModelRef` for each component, a `ModelSet` for all of them.

A component is what one loader or LoRA node brings in: the files it picks and the class that reads them. Numeric knobs
(a LoRA's strength) and what the node is wired to are no part of it: the bytes on disk are the same.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """One component: the class that loads it and the files or names it picks, in the order of the class's inputs."""

    class_type: str
    files: tuple[str, ...]

    @property
    def label(self) -> str:
        """A short name for people: the files, or the class where it picks none."""
        return " + ".join(self.files) or self.class_type


ModelSet: TypeAlias = frozenset[ModelRef]
"""All components that one prompt needs."""
