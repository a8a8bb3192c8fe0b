import json
import re
from typing import Any

import pytest

from services.gateway.rest.app import endpoints
from services.gateway.rest.openapi import document
from services.gateway.rest.schemas import SCHEMAS

DOCUMENT = document("1.0")


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(path, method.upper()): o for path, methods in DOCUMENT["paths"].items() for method, o in methods.items()}


def test_the_document_has_every_route_and_no_other():
    routes = {(e.path, e.method): e.operation for e in endpoints(backend=None, ready=lambda: True)}  # type: ignore[arg-type]
    described = {place: o["operationId"] for place, o in operations().items() if place[1] != "HEAD"}
    assert described == routes


def test_every_operation_has_a_name_of_its_own():
    names = [o["operationId"] for o in operations().values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_to_a_schema():
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert named == SCHEMAS.keys()


@pytest.mark.parametrize("place", operations(), ids=" ".join)
def test_parameters_of_a_path_are_described(place: tuple[str, str]):
    described = {p["name"] for p in operations()[place].get("parameters", ()) if p["in"] == "path"}
    assert described == set(re.findall(r"{(\w+)}", place[0]))
