"""What a node class is: its schema, and what happens when it runs.

A subclass is the node class; an instance is what ComfyUI keeps in its cache of node objects, so state in `self` lives
exactly as long as there. Inputs arrive as keyword arguments of `run`, as with a real V1 node: one that the class does
not know is a TypeError.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from simulator.graph import GraphBuilder
from simulator.ledger import Doer
from simulator.machine import Machine
from simulator.stills import Still

Inputs = dict[str, dict[str, Any]]
"""`required`, `optional` and `hidden`, each by name: a list of type (or options) and details; hidden ones a kind."""


@dataclass(frozen=True)
class Files:
    """An input that names a file: its options are the files of a model folder, or the images of the input folder.

    Args:
        folder: a model folder; None means the input folder.
        extra: options that are no files.
        before: options that are no files and come first.
        details: the rest of the specification.
    """

    folder: str | None
    extra: tuple[str, ...] = ()
    details: Mapping[str, Any] | None = None
    before: tuple[str, ...] = ()

    def resolve(self, machine: Machine) -> tuple[Any, ...]:
        """The input's specification as it is now."""
        names = machine.input_images() if self.folder is None else list(machine.files(self.folder))
        options = [*self.before, *names, *(name for name in self.extra if name not in names)]
        return (options,) if self.details is None else (options, dict(self.details))


Spec = tuple[Any, ...] | list[Any] | Files
"""Type (or list of options) and details of an input."""


class Call(Protocol):
    """What a running node can see and do."""

    machine: Machine
    prompt_id: str
    node_id: str
    class_type: str
    doer: Doer

    @property
    def client_id(self) -> Any:
        """Who gets the events of this prompt; None: nobody in particular."""

    def check_interrupt(self) -> None:
        """Raises Interrupted when the user asked for it."""

    @property
    def previews(self) -> bool:
        """Whether samplers show their work."""

    def progress(self, value: float, maximum: float, preview: Still | None = None) -> None:
        """Tell how far the node is, which clients hear at most every 0.1 s; also checks for an interruption."""

    def send(self, event: str, data: Any, client_id: Any) -> None:
        """Send an event to one client, or with None to all."""

    def send_text(self, text: str, client_id: Any) -> None:
        """Send a progress text as binary event."""

    def builder(self) -> GraphBuilder:
        """A builder for the graph that this node expands into."""


class Interrupted(Exception):  # noqa: N818  # no error: somebody asked for it
    """The prompt was interrupted."""


class Node:
    """Base of all node classes. Class variables mean what they mean in ComfyUI."""

    NAME: ClassVar[str]
    DISPLAY_NAME: ClassVar[str] = ""
    CATEGORY: ClassVar[str] = "simulator"
    DESCRIPTION: ClassVar[str] = ""
    MODULE: ClassVar[str] = "nodes"
    REQUIRED: ClassVar[Mapping[str, Spec]] = {}
    OPTIONAL: ClassVar[Mapping[str, Spec]] = {}
    HIDDEN: ClassVar[Mapping[str, Any]] = {}
    RETURN_TYPES: ClassVar[tuple[Any, ...]] = ()
    RETURN_NAMES: ClassVar[tuple[str, ...] | None] = None
    INPUT_IS_LIST: ClassVar[bool] = False
    OUTPUT_IS_LIST: ClassVar[tuple[bool, ...] | None] = None
    OUTPUT_NODE: ClassVar[bool] = False
    INTERMEDIATE_OUTPUT: ClassVar[bool] = False
    NOT_IDEMPOTENT: ClassVar[bool] = False
    V3: ClassVar[bool] = False
    """Written against ComfyUI's newer node interface; its schema looks a little different."""
    ACCEPTS_ALL: ClassVar[bool] = False
    """Constants in undeclared inputs are passed on too."""
    ASYNC: ClassVar[bool] = False
    """The real class runs as a coroutine: other nodes run meanwhile."""
    FINGERPRINT: ClassVar[bool] = False
    """The class has an IS_CHANGED; see `fingerprint`."""
    CHECKED_INPUTS: ClassVar[tuple[str, ...]] = ()
    """Inputs that `check` validates in place of the schema."""

    @classmethod
    def inputs(cls, machine: Machine) -> Inputs:
        """The schema of the inputs (ComfyUI's INPUT_TYPES); lists of files are those of this moment."""
        kinds = {"required": cls.REQUIRED, "optional": cls.OPTIONAL}
        schema: Inputs = {
            kind: {name: spec.resolve(machine) if isinstance(spec, Files) else spec for name, spec in specs.items()}
            for kind, specs in kinds.items()
            if specs or kind == "required"
        }
        if cls.HIDDEN:
            schema["hidden"] = dict(cls.HIDDEN)
        return schema

    @classmethod
    def finalized(cls, machine: Machine, given: dict[str, Any]) -> Inputs:
        """The schema for the inputs that a prompt gives: they differ from `inputs` where the class is dynamic."""
        del given
        return cls.inputs(machine)

    @classmethod
    def shown_name(cls, name: str) -> str:
        """What an input is called in error messages."""
        return name

    @classmethod
    async def fingerprint(cls, call: Call, **inputs: Any) -> Any:
        """What IS_CHANGED returns; linked inputs are None."""
        raise NotImplementedError

    @classmethod
    def check(cls, machine: Machine, **inputs: Any) -> bool | str:
        """What VALIDATE_INPUTS returns: True, or what is wrong."""
        raise NotImplementedError

    async def run(self, *call: Any, **inputs: Any) -> Any:
        """Do the work: a tuple of outputs, or a dict with `ui`, `result`, `expand`.

        Called with a Call and the inputs by name; each class declares its own.
        """
        raise NotImplementedError

    def wants(self, **inputs: Any) -> list[str]:
        """Names of lazy inputs that are needed after all, given those that are there."""
        del inputs
        return []

    @classmethod
    def is_lazy(cls, name: str) -> bool:
        """Whether an input is evaluated only on demand."""
        spec = cls.REQUIRED.get(name, cls.OPTIONAL.get(name))
        return spec is not None and not isinstance(spec, Files) and bool(_details(spec).get("lazy"))

    @classmethod
    def keyed_by_id(cls) -> bool:
        """Whether outputs are cached per node id, because the class reads its UNIQUE_ID."""
        return "UNIQUE_ID" in cls.HIDDEN.values()

    @classmethod
    def info(cls, machine: Machine) -> dict[str, Any]:
        """The class's entry in /object_info (ComfyUI server.py, `node_info`)."""
        inputs = cls.inputs(machine)
        return {
            **(_V3_ENTRY if cls.V3 else {}),
            **({"output_tooltips": [None] * len(cls.RETURN_TYPES)} if cls.V3 else {}),
            "input": inputs,
            "input_order": {kind: list(names) for kind, names in inputs.items()},
            "is_input_list": cls.INPUT_IS_LIST,
            "output": cls.RETURN_TYPES,
            "output_is_list": cls.OUTPUT_IS_LIST or [False] * len(cls.RETURN_TYPES),
            "output_name": cls.RETURN_NAMES or cls.RETURN_TYPES,
            "name": cls.NAME,
            "display_name": cls.DISPLAY_NAME or cls.NAME,
            "description": cls.DESCRIPTION,
            "python_module": cls.MODULE,
            "category": cls.CATEGORY,
            "output_node": cls.OUTPUT_NODE,
            "has_intermediate_output": cls.INTERMEDIATE_OUTPUT,
            "search_aliases": [],
        }


_V3_ENTRY: Mapping[str, Any] = {
    "output_matchtypes": None,
    "deprecated": False,
    "experimental": False,
    "dev_only": False,
    "api_node": False,
    "price_badge": None,
    "essentials_category": None,
}

Classes = Mapping[str, type[Node]]


def input_info(inputs: Inputs, name: str) -> tuple[Any, str | None, dict[str, Any]]:
    """Type, category and details of an input; None for both of the first where the class does not declare it."""
    for category in ("required", "optional", "hidden"):
        if name in inputs.get(category, {}):
            spec = inputs[category][name]
            return (spec, category, {}) if isinstance(spec, str) else (spec[0], category, _details(spec))
    return None, None, {}


def _details(spec: tuple[Any, ...] | list[Any]) -> dict[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
