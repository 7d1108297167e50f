"""A prompt that was rewritten and carries a chain of another, and the ids in it."""

import json
from typing import Any

from normalizer import EXTRA_DATA_KEY, carry, mentions_sent_id, normalize
from tests.normalizer.schemas import SCHEMA, text_to_image

PROMPT = text_to_image()
PROMPT["4"]["inputs"] = {"junk": 1, **PROMPT["4"]["inputs"]}
OTHER = normalize(text_to_image(ckpt="other.safetensors", lora="other"), SCHEMA)
PROMPT_ID = "2f0bd4c1-6b2b-4f9c-8b8e-0d6f4e1f6a55"


SENT = carry(normalize(PROMPT, SCHEMA), OTHER.chains, SCHEMA)
BACK = SENT.way_back
LOADER, LORA = BACK.ids
PIN = BACK.pins[0]


def no_trace(value: Any) -> bool:
    """Nothing of ours is left: no id, no key."""
    text = json.dumps(value)
    return not mentions_sent_id(text) and EXTRA_DATA_KEY not in text
