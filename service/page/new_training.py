"""A new training: pictures first, then what is to be trained; the same request in the words of the APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import FileResponse, Response

from library.errors import UserError
from service.database.tables import Job
from service.page.again import has_pictures, inputs_of
from service.page.form import PRESETS, make_form, preset_of, read_form, with_preset
from service.page.pictures import (
    FIELD,
    SHOWN,
    draft_of,
    draft_with_pictures_of,
    find_draft,
    preview_of,
    preview_path,
)
from service.page.rendering import render
from service.page.requests_shown import ShownRequest, shown_requests
from service.page.routing import Given, Posted, TrainerPosted, Visitor, is_asked_by_script, page_router, posted, see
from service.page.sessions import Visit
from service.page.training_facts import is_draft
from service.problems import FieldMistake, Problem
from service.services import Services
from service.training import from_console
from service.training.fields import BadInput
from service.training.job_files import check_together
from service.training.models import Models, read_models
from service.training.resolved import ResolvedRequest
from service.views.taking import checked, of_bad_input

FIRST_PRESET = "subject"
PREVIEW_HEADERS = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'; sandbox"}

router = page_router()


@router.get("/trainings/new")
def new(request: Request, visit: Visitor, services: Given, draft: str | None = None, like: str | None = None) -> Response:
    """`like`: with the settings, and if they are kept the pictures, of another training."""
    visit.caller.require("train")
    found = find_draft(services, visit.caller, draft) if draft else None
    parent_id = like or (found.parent_id if found else None)
    parent = services.board.get(visit.caller.project_id, parent_id) if parent_id else None
    inputs = inputs_of(parent) if parent else with_preset({}, FIRST_PRESET)
    return _page(request, services, visit, inputs, found, parent=parent)


@router.post("/trainings/new/pictures")
def pictures(request: Request, sent: TrainerPosted, services: Given) -> Response:
    """The script swaps the part with the pictures; who sends the form gets the page, with the draft in its address."""
    visit, like = sent.visit, sent.text("like")
    parent = services.board.get(visit.caller.project_id, like) if like else None
    try:
        if parent is not None and sent.text("use") == "parent":
            draft = draft_with_pictures_of(services, visit.caller, parent)
        else:
            draft = draft_of(services, visit.caller, sent.files(FIELD))
    except Problem as problem:
        if is_asked_by_script(request):
            return _pictures_part(request, services, visit, None, parent, problem.mistakes or (FieldMistake(FIELD, problem.detail),), 422)
        inputs = inputs_of(parent) if parent else with_preset({}, FIRST_PRESET)
        mistakes = problem.mistakes or (FieldMistake(FIELD, problem.detail),)
        return _page(request, services, visit, inputs, None, parent=parent, picture_mistakes=mistakes, status=problem.status)
    if is_asked_by_script(request):
        return _pictures_part(request, services, visit, draft, parent, ())
    return see(f"/trainings/new?draft={draft.id}" + (f"&like={parent.id}" if parent else ""))


@router.get("/trainings/{job_id}/preview/{kind}/{name}")
def preview(job_id: str, kind: str, name: str, visit: Visitor, services: Given) -> FileResponse:
    job = services.board.get(visit.caller.project_id, job_id)
    return FileResponse(preview_path(services, job, kind, name), media_type="image/png", headers=PREVIEW_HEADERS)


@router.post("/trainings/new/preset")
def preset(request: Request, sent: TrainerPosted, services: Given) -> Response:
    """The form once more, with what the preset sets and all else as it was."""
    inputs = with_preset(read_form(sent.texts()), sent.text("preset"))
    return _page(request, services, sent.visit, inputs, _draft(services, sent), parent=_parent(services, sent))


@router.post("/trainings/new/request")
def as_requests(request: Request, sent: Annotated[Posted, Depends(posted)], services: Given) -> Response:
    """The script swaps the part below the form; without it, the page has it."""
    inputs = read_form(sent.texts())
    requests: list[ShownRequest] = []
    mistakes: Sequence[FieldMistake] = ()
    try:
        resolved = _resolved(services, inputs)
        requests = shown_requests(services, services.keys.project_name(sent.visit.caller.project_id), resolved)
    except Problem as problem:
        mistakes = problem.mistakes or (FieldMistake("", problem.detail),)
    if is_asked_by_script(request):
        form = make_form(inputs, _models(services), mistakes)
        return render(request, "parts/requests.html.jinja", sent.visit, requests=requests, mistakes=form.mistakes)
    return _page(
        request, services, sent.visit, inputs, _draft(services, sent), parent=_parent(services, sent), mistakes=mistakes, requests=requests,
        status=422 if mistakes else 200,
    )  # fmt: skip


@router.post("/trainings")
def start(request: Request, sent: TrainerPosted, services: Given) -> Response:
    """Everything that is wrong is told at once, beside its field."""
    job_id, project_id = sent.text("draft"), sent.visit.caller.project_id
    if job_id and not is_draft(services.board.get(project_id, job_id)):  # sent twice
        return see(f"/trainings/{job_id}")
    inputs, mistakes = read_form(sent.texts()), list[FieldMistake]()
    draft, resolved = _draft(services, sent), None
    try:
        resolved = _resolved(services, inputs)
    except Problem as problem:
        mistakes += problem.mistakes or (FieldMistake("", problem.detail),)
    no_pictures = () if draft else (FieldMistake(FIELD, "choose the pictures first: a preview says what is taken"),)
    if resolved is None or draft is None:
        return _page(
            request, services, sent.visit, inputs, draft, parent=_parent(services, sent), mistakes=mistakes, picture_mistakes=no_pictures,
            status=422,
        )  # fmt: skip
    changes: dict[str, Any] = {"inputs": inputs, "resolved": resolved.to_json(), "warnings": list(resolved.warnings)}
    try:
        job = services.board.start(draft.project_id, draft.id, name=str(inputs.get("name", "")), **changes)
    except Problem as problem:  # too many wait: the form is not lost
        told = [FieldMistake("", problem.detail)]
        return _page(request, services, sent.visit, inputs, draft, parent=_parent(services, sent), mistakes=told, status=problem.status)
    return see(f"/trainings/{job.id}")


def _resolved(services: Services, inputs: Mapping[str, Any]) -> ResolvedRequest:
    """A Problem with every mistake, also of options that do not go together."""
    resolved = checked(services, from_console.read, inputs)
    try:
        check_together(resolved)
    except BadInput as error:
        raise of_bad_input(error) from None
    return resolved


def _draft(services: Services, sent: Posted) -> Job | None:
    draft_id = sent.text("draft")
    return find_draft(services, sent.visit.caller, draft_id) if draft_id else None


def _parent(services: Services, sent: Posted) -> Job | None:
    like = sent.text("like")
    return services.board.get(sent.visit.caller.project_id, like) if like else None


def _models(services: Services) -> Models:
    try:
        return read_models(services.workshop.models_file)
    except UserError as error:
        raise Problem(503, "Base models unavailable", f"the operator's list of base models cannot be read: {error}") from None


def _page(
    request: Request, services: Services, visit: Visit, inputs: Mapping[str, Any], draft: Job | None, *, parent: Job | None = None,
    status: int = 200, **more: Any,
) -> Response:  # fmt: skip
    """`more`: mistakes, picture_mistakes, requests."""
    models = _models(services)
    return render(
        request, "new_training.html.jinja", visit, status, form=make_form(inputs, models, more.get("mistakes", ())), presets=PRESETS,
        chosen=preset_of(inputs),
        has_models=bool(models.models), requests=more.get("requests", ()),
        **_of_pictures(services, draft, parent, more.get("picture_mistakes", ())),
    )  # fmt: skip


def _pictures_part(
    request: Request, services: Services, visit: Visit, draft: Job | None, parent: Job | None, mistakes: Sequence[FieldMistake],
    status: int = 200,
) -> Response:  # fmt: skip
    return render(request, "parts/pictures.html.jinja", visit, status, **_of_pictures(services, draft, parent, mistakes))


def _of_pictures(services: Services, draft: Job | None, parent: Job | None, mistakes: Sequence[FieldMistake]) -> dict[str, Any]:
    return {
        "draft": draft,
        "preview": preview_of(services, draft) if draft else None,
        "parent": parent,
        "parent_has_pictures": parent is not None and has_pictures(services, parent),
        "picture_mistakes": [mistake.message for mistake in mistakes],
        "max_upload_mib": services.settings.max_upload_mib,
        "shown": SHOWN,
    }
