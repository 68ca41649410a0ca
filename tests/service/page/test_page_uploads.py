"""How much the page takes: pictures as much as an upload, everything else as little as any request."""
from __future__ import annotations

import pytest

from service.limits import LARGEST_BODY, MIB, PAGE_UPLOAD, largest_body
from service.page.routes import ROUTERS


@pytest.mark.parametrize(("path", "limit"), [(PAGE_UPLOAD, 9 * MIB), ("/trainings", LARGEST_BODY), ("/login", LARGEST_BODY)])
def test_the_largest_bodies(path: str, limit: int) -> None:
    assert largest_body(path, 8) == limit


def test_the_path_of_uploads_is_one_of_the_page() -> None:
    assert PAGE_UPLOAD in [route.path for router in ROUTERS for route in router.routes]


def test_a_new_training_is_found_before_a_training_of_that_name() -> None:
    paths = [route.path for router in ROUTERS for route in router.routes if "GET" in route.methods]
    assert paths.index("/trainings/new") < paths.index("/trainings/{job_id}")
