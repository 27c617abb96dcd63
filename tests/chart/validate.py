"""Holds objects (a JSON list on stdin) against the schemas of a Kubernetes version, strictly.

Prints a JSON list of complaints. A kind without a schema is a complaint too: the caller names
the kinds that have none.
"""

import json
import sys

import kubernetes_validate


def complaint(item, version):
    title = f"{item['kind']}/{item['metadata']['name']}"
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{title}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return f"{title}: {error.message}"
    return None


found = (complaint(item, sys.argv[1]) for item in json.load(sys.stdin))
print(json.dumps([line for line in found if line]))
