"""The web application: health, errors, limits, and the views."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from sqlalchemy import text
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from service.background import Background
from service.crashes import ToldCrashes
from service.health import metrics
from service.idempotency import IdempotentRequests
from service.jobs import routes as jobs
from service.limits import LimitedBodies, SafeHeaders
from service.page.routes import ROUTERS as PAGE_ROUTERS
from service.problems import Problem, of_outage, of_status, of_validation, problem_response
from service.services import Services, make_services, services_of
from service.settings import ServiceSettings
from service.storage.local import LocalStore
from service.storage.routes import storage_router
from service.views import (
    cerebrium,
    dreambooth,
    graphql,
    model_cards,
    predictions,
    replicate,
    replicate_files,
    replicate_models,
    tiyaro_models,
)
from service.views.connect import connect

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router, graphql.router, replicate.router, replicate_models.router, replicate_files.router, dreambooth.router, cerebrium.router,
    predictions.router, tiyaro_models.router, model_cards.router,
    *PAGE_ROUTERS,
)  # fmt: skip
health = APIRouter(include_in_schema=False)


def create_app(settings: ServiceSettings) -> FastAPI:
    """The service, ready to be served; what works in the background starts with the server (the application's lifespan)."""
    services = make_services(settings)
    app = FastAPI(title="Tadpole training service", lifespan=_lifespan, docs_url=None, redoc_url=None)
    connect(services)
    app.state.services = services
    app.add_exception_handler(Problem, _tell_problem)
    app.add_exception_handler(RequestValidationError, _tell_validation)
    app.add_exception_handler(HTTPException, _tell_status)
    app.add_exception_handler(DataError, _tell_text)
    app.add_exception_handler(UnicodeEncodeError, _tell_text)
    app.add_middleware(IdempotentRequests, services=services)
    app.add_middleware(LimitedBodies, services=services)
    app.add_middleware(ToldCrashes)
    app.add_middleware(SafeHeaders)
    for router in (health, *ROUTERS):
        app.include_router(router)
    if isinstance(services.store, LocalStore):
        app.include_router(storage_router(services.store, services.uploads.hooks()))
    app.state.background = Background(services)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.background.start()
    yield
    await run_in_threadpool(app.state.background.stop)
    app.state.services.database.close()


def _tell_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error)


def _tell_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(of_validation(error))


def _tell_status(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = problem_response(of_outage(error) or of_status(error.status_code, error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _tell_text(_request: Request, _error: Exception) -> Response:
    """NUL, or half of a character: neither database takes them all, and no name has them."""
    return problem_response(Problem(400, "Bad text", "this request has a text with a character that is none, such as NUL; leave it out"))


@health.get("/healthz")
def alive() -> PlainTextResponse:
    return PlainTextResponse("ok\n")


@health.get("/readyz")
def ready(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Whether requests can be served: 503 says what stands in the way."""
    try:
        with services.database.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        return JSONResponse({"ready": False, "reason": f"the database does not answer: {type(error).__name__}"}, 503)
    return JSONResponse({"ready": True})


@health.get("/metrics")
def figures(services: Annotated[Services, Depends(services_of)]) -> PlainTextResponse:
    return PlainTextResponse(metrics(services.database), media_type="text/plain; version=0.0.4")
