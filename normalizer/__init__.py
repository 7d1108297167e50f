"""Pure: a prompt in, a rewritten prompt and the way back out."""

from normalizer.chains import Chain
from normalizer.errors import MalformedPrompt, NormalizerError
from normalizer.faults import Fault, fatal_faults
from normalizer.identity import mentions_sent_id
from normalizer.models import ModelRef, ModelSet
from normalizer.normalize import Change, Normalized, normalize
from normalizer.pins import METADATA_SCANNERS, carry
from normalizer.restore import EXTRA_DATA_KEY, WayBack, with_client_prompt
from normalizer.schema import NodeClass, Role, Row, Schema, describe
from normalizer.shared import REMOVER, SharedLoaders, cache_keys, exchange, is_cache_key

__all__ = [
    "EXTRA_DATA_KEY",
    "METADATA_SCANNERS",
    "REMOVER",
    "Chain",
    "Change",
    "Fault",
    "MalformedPrompt",
    "ModelRef",
    "ModelSet",
    "NodeClass",
    "Normalized",
    "NormalizerError",
    "Role",
    "Row",
    "Schema",
    "SharedLoaders",
    "WayBack",
    "cache_keys",
    "carry",
    "describe",
    "exchange",
    "fatal_faults",
    "is_cache_key",
    "mentions_sent_id",
    "normalize",
    "with_client_prompt",
]
