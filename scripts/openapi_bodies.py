# How Schemathesis serializes bodies that aren't JSON.
import json

import schemathesis


@schemathesis.serializer("application/jsonl")
def json_lines(context, value):
    """A list becomes one line for each item; anything else becomes one line, which the control plane refuses."""
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
