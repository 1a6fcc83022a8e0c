"""What visitors send."""

from __future__ import annotations

from django import forms


class UploadForm(forms.Form):
    """One file."""

    file = forms.FileField(
        max_length=150,
        widget=forms.FileInput(attrs={"aria-label": "File"}),
        error_messages={"required": "Choose a file first.", "empty": "That file is empty."},
    )
