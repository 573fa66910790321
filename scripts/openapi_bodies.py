# How Schemathesis writes the bodies that are no JSON.
import json

import schemathesis


@schemathesis.serializer("application/jsonl")
def json_lines(context, value):
    """An item a line, where it is a list; what isn't is one line, and refused."""
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
