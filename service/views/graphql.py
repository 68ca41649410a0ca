"""The route of GraphQL: one POST, answered as AWS AppSync answers, whose clients these are."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

import strawberry
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from graphql import GraphQLError
from sqlalchemy.exc import DataError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext, ExecutionResult

from service.keys import Reader
from service.problems import Problem, of_outage, route_with
from service.services import Services, services_of
from service.views.tiyaro import Asked, Mutation, Query

MOST_DEPTH, MOST_ALIASES, MOST_TOKENS = 8, 20, 2000
ERROR_TYPES = {
    400: "BadRequestException",
    401: "UnauthorizedException",
    403: "Unauthorized",
    404: "NotFoundException",
    409: "ConflictException",
    422: "ValidationException",
    429: "ThrottlingException",
}
log = logging.getLogger("service")


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Mistakes of clients are theirs to read; what else goes wrong belongs into the log."""
        for error in errors:
            problem = _problem_of(error)
            if problem is None or problem.status >= 500:
                log.error("a resolver failed", exc_info=error.original_error)


schema = _Schema(
    Query,
    Mutation,
    config=StrawberryConfig(auto_camel_case=False),
    extensions=[
        lambda: QueryDepthLimiter(max_depth=MOST_DEPTH),
        lambda: MaxAliasesLimiter(max_alias_count=MOST_ALIASES),
        lambda: MaxTokensLimiter(max_token_count=MOST_TOKENS),
    ],
)


def _refused(problem: Problem) -> Response:
    error = {"errorType": ERROR_TYPES.get(problem.status, "InternalFailure"), "message": problem.detail}
    return JSONResponse({"errors": [error]}, problem.status, problem.headers)


router = APIRouter(route_class=route_with(_refused), tags=["Tiyaro"])


async def _body(request: Request) -> bytes:
    return await request.body()


@router.post("/graphql")
def graphql(body: Annotated[bytes, Depends(_body)], caller: Reader, services: Annotated[Services, Depends(services_of)]) -> JSONResponse:
    """Answers a query; in a thread, as resolvers ask the database."""
    query, variables, operation = _read(body)
    context = Asked(services, caller)
    try:
        result = schema.execute_sync(query, variable_values=variables, context_value=context, operation_name=operation)
    except RecursionError:
        raise Problem(400, "Bad query", "this query is nested too deeply") from None
    return JSONResponse(_told(result))


def _read(body: bytes) -> tuple[str, dict[str, Any], str | None]:
    """Whatever its Content-Type says, it is JSON."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "Bad body", 'the body is no JSON; send {"query": "...", "variables": {}}') from None
    content = content if isinstance(content, dict) else {}
    query, variables, operation = content.get("query"), content.get("variables"), content.get("operationName")
    if not isinstance(query, str) or not isinstance(variables or {}, dict) or not isinstance(operation or "", str):
        raise Problem(400, "Bad body", 'send {"query": "...", "variables": {}}: a text and an object')
    return query, variables or {}, operation or None


def _told(result: ExecutionResult) -> dict[str, Any]:
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [_error(error) for error in result.errors]
    return answer


def _error(error: GraphQLError) -> dict[str, Any]:
    problem = _problem_of(error)
    status = problem.status if problem else 500
    return {
        "path": error.path,
        "errorType": ERROR_TYPES.get(status, "InternalFailure"),
        "message": problem.detail if problem else "the service made a mistake; its log says which",
        "locations": [{"line": place.line, "column": place.column} for place in error.locations or ()],
    }


def _problem_of(error: GraphQLError) -> Problem | None:
    """What the client did wrong, or the service cannot help; None: we made a mistake."""
    original = error.original_error
    if isinstance(original, Problem):
        return original
    if isinstance(original, DataError | UnicodeEncodeError):
        return Problem(400, "Bad text", "this query has a text with a character that is none, such as NUL; leave it out")
    if isinstance(original, RecursionError):
        return Problem(400, "Bad query", "this query is nested too deeply")
    if original is not None and (outage := of_outage(original)) is not None:
        return outage
    return Problem(422, "Bad query", error.message) if original is None or isinstance(original, GraphQLError) else None
