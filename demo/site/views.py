"""The pages. They use Django's file API and nothing of django-dualstorage, but for the two that show what it does."""

from __future__ import annotations

import mimetypes
import os
from typing import Any

from django.contrib import messages
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from demo.site.forms import UploadForm
from demo.site.models import Document
from demo.site.sides import both_sides, phase_now, process_status

_PER_PAGE = 48
_PREVIEW = 4000


def migration(request: HttpRequest) -> dict[str, Any]:
    """For the header of every page."""
    return {"phase": phase_now()}


@require_GET
@ensure_csrf_cookie
def library(request: HttpRequest) -> HttpResponse:
    """All documents, newest first."""
    folder, words = request.GET.get("folder", ""), request.GET.get("q", "").strip()
    documents = Document.objects.all()
    if folder:
        documents = documents.filter(file__startswith=f"{folder}/")
    if words:
        documents = documents.filter(file__icontains=words)
    page = Paginator(documents, _PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "pages": page.paginator.get_elided_page_range(page.number),
        "folder": folder,
        "folders": _folders(),
        "words": words,
        "total": Document.objects.count(),
        "form": UploadForm(),
    }
    return render(request, "site/library.html", context)


def _folders() -> list[str]:
    names = Document.objects.values_list("file", flat=True)
    return sorted({str(name).partition("/")[0] for name in names if "/" in str(name)})


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """A new document."""
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        messages.error(request, _problem(form))
        return redirect("library")
    document = Document.objects.create(file=form.cleaned_data["file"])
    messages.success(request, f"{document.name} is in the library.")
    return _answer(request, document)


def _problem(form: UploadForm) -> str:
    return " ".join(str(error) for error in form.errors.get("file", ()))


@require_GET
@ensure_csrf_cookie
def document(request: HttpRequest, pk: int) -> HttpResponse:
    """One document, and where its bytes are."""
    found = get_object_or_404(Document, pk=pk)
    preview = ""
    if found.is_text:
        with found.file.open() as file:
            preview = file.read(_PREVIEW).decode(errors="replace")
    context = {"document": found, "preview": preview, "sides": both_sides(found.file.name or ""), "form": UploadForm()}
    return render(request, "site/document.html", context)


@require_GET
def download(request: HttpRequest, pk: int) -> HttpResponseBase:
    """The bytes, read through the storage: from S3 where its copy is certified, else from the disk."""
    found = get_object_or_404(Document, pk=pk)
    return FileResponse(_opened(found.file.name or ""), as_attachment=True, filename=found.name)


@require_GET
def media(request: HttpRequest, name: str) -> HttpResponseBase:
    """What MEDIA_URL points at; on a larger site a web server would do this."""
    # As an <img> a picture's scripts do not run; opened by itself they would.
    response = FileResponse(_opened(name), content_type=mimetypes.guess_type(name)[0] or "application/octet-stream")
    response["Content-Security-Policy"] = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    return response


def _opened(name: str) -> File[Any]:
    try:
        return default_storage.open(name)
    except (FileNotFoundError, IsADirectoryError, SuspiciousFileOperation):
        raise Http404(name) from None


@require_POST
def replace(request: HttpRequest, pk: int) -> HttpResponse:
    """Other bytes under the same name, so that links to the document go on working."""
    found = get_object_or_404(Document, pk=pk)
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        messages.error(request, _problem(form))
        return redirect(found)
    with default_storage.open(found.file.name or "", "wb") as file:
        for chunk in form.cleaned_data["file"].chunks():
            file.write(chunk)
    messages.success(request, f"{found.name} has new content.")
    return _answer(request, found)


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Gone, with its file."""
    found = get_object_or_404(Document, pk=pk)
    name = found.name
    found.file.delete(save=False)
    found.delete()
    messages.success(request, f"{name} is deleted.")
    return redirect("library")


def _answer(request: HttpRequest, found: Document) -> HttpResponse:
    """A page for people, JSON for programs."""
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse({"id": found.pk, "name": found.file.name})
    return redirect(found)


@require_GET
def status(request: HttpRequest) -> JsonResponse:
    """What this process does and has done."""
    return JsonResponse({"pid": os.getpid(), **process_status()})
