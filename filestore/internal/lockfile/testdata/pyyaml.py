# The other reader and writer of lock files, for the tests: one request a line on
# standard input, one answer a line on standard output, both JSON.
#
#   {"load": TEXT}                 -> {"value": what yaml.safe_load makes of it}
#   {"dump": DOCUMENT, "how": N}   -> {"text": what PyYAML writes}
#
# {"error": TEXT} answers what cannot be done.
import json
import sys

import yaml


def number(text):
    # PyYAML writes integers in full; beyond 2^53 they are texts to pylok.
    value = int(text)
    return value if abs(value) <= 2**53 else float(text)


def plain(value):
    """The value, if JSON can hold it without loss."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError("the key %r is a %s" % (key, type(key).__name__))
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError("the value %r is a %s" % (value, type(value).__name__))


WAYS = [
    lambda d: yaml.dump(d, default_flow_style=False),  # as the original library writes
    lambda d: yaml.dump(d, default_flow_style=False, allow_unicode=True),
    lambda d: yaml.safe_dump(d),
    lambda d: yaml.dump(d, default_flow_style=None, sort_keys=False),
    lambda d: yaml.dump(d, default_flow_style=True, width=40),
    lambda d: yaml.dump(d, default_style="|"),
    lambda d: yaml.dump(d, indent=4, explicit_start=True, explicit_end=True),
]

sys.stdin.reconfigure(encoding="utf-8")
for line in sys.stdin:
    request = json.loads(line, parse_int=number)
    try:
        if "load" in request:
            answer = {"value": plain(yaml.safe_load(request["load"]))}
        else:
            answer = {"text": WAYS[request.get("how", 0) % len(WAYS)](request["dump"])}
    except Exception as error:
        answer = {"error": "%s: %s" % (type(error).__name__, error)}
    print(json.dumps(answer), flush=True)
